"""Small datasets of each format, written and read without scimill."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from crc32c import crc32c

from mpi import dataset_hashes

IDS = 512
FEATURES = ("input_ids", "input_mask", "masked_lm_ids", "masked_lm_positions", "masked_lm_weights",
            "next_sentence_labels", "segment_ids")  # fmt: skip


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of all datasets in a folder, and of every dataset of the stores."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".h5":
            found |= {f"{name}/{field}": value for field, value in dataset_hashes(path).items()}
        elif path.is_file() and path.name not in ("manifest.json", "run.json"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


# ---- imseg ------------------------------------------------------------------------------------------------------


def make_cases(folder: Path, numbers: list[int], seed: int = 1, edge: int = 128) -> None:
    """Cases of intensities and labels of different depths; a third of each image is clipped, like air."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in numbers:
        shape = (1, edge + number % 3, edge, edge)
        image = random.uniform(-2.340702, 2.639792, shape).astype(np.float32)
        image[:, :, : edge // 3] = -2.340702
        label = np.zeros(shape, dtype=np.uint8)
        label[:, 40:60, 30:70, 50:90], label[:, 45:50, 40:45, 60:70] = 1, 2
        np.save(folder / f"case_{number:05}_x.npy", image)
        np.save(folder / f"case_{number:05}_y.npy", label)


# ---- dlrm -------------------------------------------------------------------------------------------------------


def rows(count: int, seed: int = 1) -> np.ndarray:
    """Rows of a label, 13 integers and 26 categories with skewed distributions; int32, shape (count, 40)."""
    random = np.random.default_rng(seed)
    label, dense = random.integers(0, 2, (count, 1)), random.geometric(0.01, (count, 13)) - 2
    return np.hstack([label, dense, random.geometric(0.001, (count, 26)) * 7]).astype("<i4")


def make_bin(folder: Path, train: int, test: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows(train).tofile(folder / "terabyte_processed_train.bin")
    rows(test, seed=2).tofile(folder / "terabyte_processed_test.bin")
    np.savez(folder / "day_fea_count.npz", counts=np.full(26, 10**6, dtype=np.int32))


def make_npz(folder: Path, counts: list[int], *, compressed: bool = False) -> None:
    """Files with these numbers of rows and the dtypes that the trainer's own preprocessing writes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, count in enumerate(counts):
        table = rows(count, seed=number)
        arrays = {"X_cat": table[:, 14:], "X_int": table[:, 1:14], "y": table[:, 0]}
        save = np.savez_compressed if compressed else np.savez
        kind = np.float64 if compressed else np.int32
        save(folder / f"day_{number}_reordered.npz", **{name: array.astype(kind) for name, array in arrays.items()})
    np.savez(folder / "day_fea_count.npz", counts=np.full(26, 10**6, dtype=np.int32))
    np.savez(folder / "day_day_count.npz", total_per_file=np.array(counts))


def make_triplets(folder: Path, counts: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, count in enumerate(counts):
        table = rows(count, seed=number)
        np.save(folder / f"day_{number}_dense.npy", np.log(table[:, 1:14] + 2.0).astype(np.float32))
        np.save(folder / f"day_{number}_sparse.npy", table[:, 14:])
        np.save(folder / f"day_{number}_labels.npy", table[:, :1])


def make_parquet(folder: Path, counts: list[int]) -> None:
    """Files of several row groups, compressed, as a user's program would write them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, count in enumerate(counts):
        columns = [pa.array(column) for column in rows(count, seed=number).T]
        names = ["label", *(f"I{i}" for i in range(13)), *(f"C{i}" for i in range(26))]
        pq.write_table(pa.table(columns, names=names), folder / f"day_{number}.parquet", row_group_size=1500)


def text_of(table: np.ndarray, seed: int = 1) -> str:
    """Lines of rows, with a tenth of the fields empty."""
    missing = np.random.default_rng(seed).random(table.shape) < 0.1
    lines = []
    for row, gaps in zip(table.tolist(), missing.tolist(), strict=True):
        words = [str(row[0]), *map(str, row[1:14]), *(f"{value * 977 % 2**32:08x}" for value in row[14:])]
        lines.append(
            "\t".join(["" if gap and i else word for i, (word, gap) in enumerate(zip(words, gaps, strict=True))])
        )
    return "\n".join(lines) + "\n"


def make_text(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.txt").write_text(text_of(rows(count)))


def read_text(path: Path) -> list[list[str]]:
    lines = path.read_text().split("\n")
    assert lines.pop() == ""
    return [line.split("\t") for line in lines]


# ---- bert -------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(features: dict[str, np.ndarray]) -> bytes:
    """A tf.train.Example as written by protobuf's deterministic serialisation."""
    entries = b""
    for name in sorted(features):
        values = features[name]
        if values.dtype == np.float32:
            of_kind = field(2, field(1, values.tobytes()))
        else:
            of_kind = field(3, field(1, b"".join(varint(value) for value in values.tolist())))
        entries += field(1, field(1, name.encode()) + field(2, of_kind))
    return field(1, entries)


def sequence(random: np.random.Generator) -> dict[str, np.ndarray]:
    """The features of one record: [CLS] tokens [SEP], some of them masked."""
    length = int(random.integers(20, IDS))
    ids, mask = np.zeros(IDS, dtype=np.int64), np.zeros(IDS, dtype=np.int64)
    ids[:length] = np.minimum(999 + random.zipf(1.2, length).clip(1, 29_000), 30_521)
    ids[0], ids[length - 1], mask[:length] = 101, 102, 1
    count = max(1, int(0.15 * length))
    places = np.sort(random.choice(np.arange(1, length - 1), count, replace=False))
    padded = {"masked_lm_positions": places, "masked_lm_ids": ids[places], "masked_lm_weights": np.ones(count)}
    features = {
        name: np.concatenate([values, np.zeros(76 - count)]).astype(np.int64) for name, values in padded.items()
    }
    features["masked_lm_weights"] = features["masked_lm_weights"].astype(np.float32)
    ids[places[::2]] = 103
    segments = np.where(np.arange(IDS) < length // 2, 0, mask)
    label = np.array([length % 2])
    return {**features, "input_ids": ids, "input_mask": mask, "segment_ids": segments, "next_sentence_labels": label}


def frame(data: bytes) -> bytes:
    """A record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(length)) + data + struct.pack("<I", masked(data))


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def make_records(folder: Path, counts: list[int], evaluation: int) -> None:
    """Files with these numbers of records; the file numbers begin at 27 and have gaps."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    names = [f"part-{27 + 2 * i:05}-of-00500" for i in range(len(counts))]
    for name, count in zip([*names, "eval_10k"], [*counts, evaluation], strict=True):
        (folder / name).write_bytes(b"".join(frame(example(sequence(random))) for _ in range(count)))


def read_records(path: Path) -> list[dict[str, np.ndarray]]:
    """Read the features of each record of a file and check its checksums."""
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        data = content[at + 12 : at + 12 + length]
        assert frame(data) == content[at : at + length + 16]
        found.append(parse(data))
        at += length + 16
    return found


def fields(data: bytes) -> list[tuple[int, bytes]]:
    """Number and content of each field of a message; every field must be length-delimited."""
    found, at = [], 0
    while at < len(data):
        tag, at = read_varint(data, at)
        assert tag & 7 == 2
        length, at = read_varint(data, at)
        found.append((tag >> 3, data[at : at + length]))
        at += length
    assert at == len(data)
    return found


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def parse(data: bytes) -> dict[str, np.ndarray]:
    ((_, features),) = fields(data)
    found = {}
    for _, entry in fields(features):
        (_, name), (_, feature) = fields(entry)
        ((kind, values),) = fields(feature)
        ((_, packed),) = fields(values) or [(1, b"")]
        if kind == 2:
            found[name.decode()] = np.frombuffer(packed, dtype="<f4")
            continue
        numbers, at = [], 0
        while at < len(packed):
            number, at = read_varint(packed, at)
            numbers.append(number)
        found[name.decode()] = np.array(numbers)
    return found
