"""Datasets of bert: framing, protocol buffers and contents, checked with protobuf and another CRC-32C."""

import functools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from scimill.bench import CAMPAIGN, generate
from scimill.bench.dataset.plan import MARGIN
from scimill.bench.formats import catalogue
from scimill.bench.formats.bert_tfrecord.write import TRAINING
from scimill.bench.kernels import sequences
from scimill.bench.kernels.counter import stream_key
from scimill.bench.params import BenchGenerateConfig
from scimill.config import Layer, build
from scimill.parallel.world import World
from scimill.store.output import Output
from splitmix import halves

LENGTHS = {
    "input_ids": 512, "input_mask": 512, "segment_ids": 512, "masked_lm_ids": 76, "masked_lm_positions": 76,
    "masked_lm_weights": 76, "next_sentence_labels": 1,
}  # fmt: skip


def configure(**values: Any) -> BenchGenerateConfig:
    return build(BenchGenerateConfig, [Layer("test", {"workload": "bert", "size": "3MB", **values})])


def message_class() -> Any:
    """tf.train.Example, from tensorflow/core/example/example.proto and feature.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    repeated, optional = 3, 1
    kinds = {"bytes": 12, "float": 2, "int64": 3}
    for kind, number in kinds.items():
        message = file.message_type.add(name=f"{kind.capitalize()}List")
        message.field.add(name="value", number=1, label=repeated, type=number)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, kind in enumerate(kinds, start=1):
        feature.field.add(
            name=f"{kind}_list", number=number, label=optional, type=11, oneof_index=0,
            type_name=f".tensorflow.{kind.capitalize()}List",
        )  # fmt: skip
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=optional, type=9)
    entry.field.add(name="value", number=2, label=optional, type=11, type_name=".tensorflow.Feature")
    features.field.add(name="feature", number=1, label=repeated, type=11, type_name=".tensorflow.Features.FeatureEntry")
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, label=optional, type=11, type_name=".tensorflow.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


Example = message_class()
TABLE: list[int] = []
for byte in range(256):
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)  # noqa: PLW2901
    TABLE.append(byte)


def masked_crc(content: bytes) -> int:
    """Masked CRC-32C, byte by byte from its definition."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = TABLE[(crc ^ byte) & 255] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def records(path: Path) -> list[bytes]:
    """Read the data of all records of a TFRecord file; the file must end with the last record."""
    content, place, found = path.read_bytes(), 0, []
    while place < len(content):
        length, length_crc = struct.unpack_from("<QI", content, place)
        data = content[place + 12 : place + 12 + length]
        assert length_crc == masked_crc(content[place : place + 8])
        assert struct.unpack_from("<I", content, place + 12 + length)[0] == masked_crc(data)
        found.append(data)
        place += 16 + length
    assert place == len(content)
    return found


def parse(data: bytes) -> dict[str, np.ndarray]:
    example = Example.FromString(data)
    return {
        name: np.array((feature.int64_list if feature.HasField("int64_list") else feature.float_list).value)
        for name, feature in example.features.feature.items()
    }


@pytest.fixture(scope="module", params=["random", "sentences"])
def data_set(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("bert") / request.param
    config = configure(sequences=request.param, instances_range="300:400")
    generate.generate(config, Output(folder), World(None))
    return request.param, folder


def test_bytes_are_the_deterministic_serialisation_of_protobuf(data_set: tuple[str, Path]) -> None:
    count = 0
    for path in sorted(data_set[1].glob("part-*")):
        for data in records(path):
            assert Example.FromString(data).SerializeToString(deterministic=True) == data
            count += 1
    assert count >= 1000


def test_files_have_their_names_and_their_numbers_of_instances(data_set: tuple[str, Path]) -> None:
    parts = sorted(data_set[1].glob("part*"))
    assert [path.name for path in parts] == [f"part-{number:05}-of-00500" for number in range(len(parts))]
    counts = [len(records(path)) for path in parts]
    assert all(300 <= count <= 400 for count in counts[:-1]) and len(counts) >= 3
    evaluation = len(records(data_set[1] / "eval_10k"))
    assert evaluation / (sum(counts) + evaluation) == pytest.approx(0.02, abs=0.005)


def test_the_trainer_accepts_every_instance(data_set: tuple[str, Path]) -> None:
    for data in records(data_set[1] / "part-00000-of-00500"):
        features = parse(data)
        assert {name: len(values) for name, values in features.items()} == LENGTHS
        assert features["masked_lm_weights"].dtype.kind == "f"
        ids, mask, segments = features["input_ids"], features["input_mask"], features["segment_ids"]
        length, masked = int(mask.sum()), int(features["masked_lm_weights"].sum())
        assert ids.min() >= 0 and ids.max() < 30522
        assert (mask[:length] == 1).all() and not ids[length:].any() and not segments[length:].any()
        assert (np.diff(segments[:length]) >= 0).all()
        assert (features["masked_lm_weights"][:masked] == 1).all()
        for name in ("masked_lm_positions", "masked_lm_ids"):
            assert not features[name][masked:].any()
        positions = features["masked_lm_positions"][:masked]
        assert (positions < max(length, 1)).all()
        assert features["next_sentence_labels"][0] in (0, 1)
        (check_random if data_set[0] == "random" else check_sentences)(features, length, masked)


def check_random(features: dict[str, np.ndarray], length: int, masked: int) -> None:
    assert masked == int(0.15 * length)
    positions = features["masked_lm_positions"][:masked]
    np.testing.assert_array_equal(features["input_ids"][positions], features["masked_lm_ids"][:masked])


def check_sentences(features: dict[str, np.ndarray], length: int, masked: int) -> None:
    ids, positions = features["input_ids"], features["masked_lm_positions"][:masked]
    assert masked == min(76, max(1, (length * 15 + 50) // 100))
    assert (np.diff(positions) > 0).all()
    first = int(np.argmax(features["segment_ids"]))
    assert (ids[0], ids[first - 1], ids[length - 1]) == (101, 102, 102)
    assert not set(positions) & {0, first - 1, length - 1}
    assert (features["masked_lm_ids"][:masked] >= 1000).all()


def test_four_of_five_masked_tokens_are_hidden(data_set: tuple[str, Path]) -> None:
    if data_set[0] == "random":
        return
    hidden = total = 0
    for data in records(data_set[1] / "part-00000-of-00500"):
        features = parse(data)
        positions = features["masked_lm_positions"][features["masked_lm_weights"] > 0]
        hidden += int((features["input_ids"][positions] == 103).sum())
        total += len(positions)
    assert hidden / total == pytest.approx(0.8, abs=0.03)


def test_random_instances_are_the_words_of_splitmix64(tmp_path: Path) -> None:
    generate.generate(configure(size="60kB"), Output(tmp_path / "set"), World(None))
    for number, data in enumerate(records(tmp_path / "set/part-00000-of-00500")):
        bits = list(halves(int(stream_key(1, CAMPAIGN.number, TRAINING)), 320 * number, 320))
        length = (bits[0] * 512) >> 32
        features = parse(data)
        assert features["input_mask"].sum() == length
        assert features["input_ids"][:length].tolist() == [(b * 30522) >> 32 for b in bits[128 : 128 + length]]
        masked = length * 15 // 100
        assert features["masked_lm_positions"][:masked].tolist() == [(b * length) >> 32 for b in bits[4 : 4 + masked]]
        assert features["segment_ids"].sum() == length - ((bits[1] * length) >> 32)
        assert features["next_sentence_labels"][0] == bits[2] >> 31


@pytest.mark.parametrize(("distribution", "mean"), [("random", 2655), ("sentences", 2497)])
def test_records_have_the_mean_length_of_the_original_dataset(distribution: str, mean: float) -> None:
    plan = catalogue.make_plan(configure(sequences=distribution), 20_000_000, World(None))
    assert plan.size / plan.records == pytest.approx(mean, rel=0.01)


@pytest.mark.parametrize("fit", ["at-least", "at-most", "nearest"])
@pytest.mark.parametrize("size", [10_000, 1_234_567, 123_456_789])
def test_the_size_is_within_a_record_of_the_request(fit: str, size: int) -> None:
    total = catalogue.make_plan(configure(fit=fit), size, World(None)).size
    assert {"at-least": 0 <= total - size < 3200, "at-most": 0 <= size - total < 3200}.get(
        fit, abs(total - size) < 1600
    )


def test_any_range_of_a_file_is_made_by_itself() -> None:
    file = catalogue.make_plan(configure(instances_range="200:200"), 1_000_000, World(None)).files[1]
    whole = np.zeros(file.size + 2 * MARGIN, dtype=np.uint8)
    file.fill(0, file.size, whole, MARGIN)
    for start in np.random.default_rng(1).integers(0, file.size, 20).tolist():
        stop = min(file.size, start + 20_000)
        work = np.full(20_000 + 2 * MARGIN, 255, dtype=np.uint8)
        file.fill(start, stop, work, MARGIN)
        np.testing.assert_array_equal(work[MARGIN : MARGIN + stop - start], whole[MARGIN + start : MARGIN + stop])


def test_a_crc_is_masked_as_tfrecord_does() -> None:
    crcs = np.array([0, 1, 0x8000, 0xFFFFFFFF, 0x12345678], dtype=np.uint32)
    expected = [(((int(crc) >> 15) | (int(crc) << 17)) + 0xA282EAD8) & 0xFFFFFFFF for crc in crcs]
    assert sequences.masked(crcs).tolist() == expected
