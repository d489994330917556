"""The workloads as HDF5: the same values as in the plain formats, read with h5py only, and the same sizes."""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from scimill.bench import generate, sizing
from scimill.bench.params import FORMATS, BenchGenerateConfig, SizeConfig
from scimill.config import Layer, build, preset_names, read_preset
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.store.verify import verify

SMALL = {"depth_range": "128:130", "width_range": "128:132", "instances_range": "200:300", "rows_per_file": 5000}


def make(path: Path, **values: Any) -> Path:
    config = build(BenchGenerateConfig, [Layer("test", {**SMALL, **values})])
    generate.generate(config, Output(path), World(None))
    return path


def test_rows_of_dlrm_are_those_of_bin(tmp_path: Path) -> None:
    store = make(tmp_path / "a.h5", workload="dlrm", format="hdf5", size="1MB", block_size=2**16)
    folder = make(tmp_path / "bin", workload="dlrm", format="bin", size="1.2MB")
    expected = np.fromfile(folder / "terabyte_processed_train.bin", dtype=np.int32).reshape(-1, 40)
    with h5py.File(store) as file:
        found = np.column_stack([file["label"], file["dense"], file["sparse"]])
        assert {file[name].dtype for name in ("label", "dense", "sparse")} == {np.dtype("int32")}
    assert len(found) == 6250
    np.testing.assert_array_equal(found, expected[:6250])


@pytest.mark.parametrize("distribution", ["random", "sentences"])
def test_instances_of_bert_are_sound(tmp_path: Path, distribution: str) -> None:
    store = make(tmp_path / "a.h5", workload="bert", format="hdf5", size="1MB", sequences=distribution)
    with h5py.File(store) as file:
        rows = {name: file[name][:] for name in file if "units" in file[name].attrs}
    assert {name: values.dtype for name, values in rows.items()} == {
        "input_ids": np.int32, "input_mask": np.int8, "segment_ids": np.int8, "masked_lm_positions": np.int32,
        "masked_lm_ids": np.int32, "next_sentence_labels": np.int8,
    }  # fmt: skip
    lengths = rows["input_mask"].sum(axis=1)
    np.testing.assert_array_equal(rows["input_mask"], np.arange(512) < lengths[:, None])
    assert not rows["input_ids"][rows["input_mask"] == 0].any()
    assert ((rows["masked_lm_positions"] > 0).sum(axis=1) <= 76).all()
    assert not verify(store, World(None)).problems


@pytest.mark.parametrize("labels", ["random", "blobs"])
def test_voxels_of_imseg_are_those_of_npy(tmp_path: Path, labels: str) -> None:
    values = {"workload": "imseg", "labels": labels, "block_size": 2**20}
    store = make(tmp_path / "a.h5", format="hdf5", size="35MB", **values)
    folder = make(tmp_path / "npy", format="npy", size="35MB", **values)
    with h5py.File(store) as file:
        begins = file["blocks"]["cases_rows"] > 0
        table = {name: file[f"cases/{name}"][:][begins] for name in ("case", "first", "shape")}
        assert len(table["case"]) >= 2
        for case, first, shape in zip(*table.values(), strict=True):
            expected = np.load(folder / f"case_{case:05}_x.npy")
            if shape.tolist() != list(expected.shape[1:]):
                assert case == table["case"][-1]  # shaped to fit, and the headers of npy take space
                continue
            rows = slice(int(first), int(first) + int(shape.prod()))
            np.testing.assert_array_equal(file["image"][rows].reshape(shape), expected[0])
            label = np.load(folder / f"case_{case:05}_y.npy")
            np.testing.assert_array_equal(file["label"][rows].reshape(shape), label[0])


@pytest.mark.parametrize(("workload", "form"), [(w, f) for w, formats in FORMATS.items() for f in formats])
def test_size_agrees_with_generate_to_the_byte(tmp_path: Path, workload: str, form: str) -> None:
    values = {**SMALL, "workload": workload, "format": form}
    values |= {"steps": 1} if workload == "imseg" else {"steps": 50, "batch_size": 10}
    config = build(SizeConfig, [Layer("test", values)])
    request, planned = sizing.find_size(config, World(None))
    assert 500 <= planned.training <= 510 or workload == "imseg"
    path = make(tmp_path / "out", workload=workload, format=form, size=request)
    if form == "hdf5":
        with h5py.File(path) as file:
            size = sum(file[name].nbytes for name in file if "units" in file[name].attrs)
    else:
        size = sum(p.stat().st_size for p in path.iterdir() if p.is_file() and p.name != "manifest.json")
    assert size == planned.size


@pytest.mark.parametrize("workload", FORMATS)
def test_records_that_are_held_out_make_no_steps(workload: str) -> None:
    values = {"workload": workload, "steps": 60, "batch_size": 1 if workload == "imseg" else 100}
    config = build(SizeConfig, [Layer("test", values)])
    _, planned = sizing.find_size(config, World(None))
    cases = "00|03|05|06|12|24|34|41|44|49|52|56|61|65|66|70|76|78|80|84|86|87|92"  # from the trainer's list
    held_out = {"bert": "eval_10k", "dlrm": r".*_test\.bin", "imseg": rf"case_000({cases})_.*"}
    records = {file.name: file.records for file in planned.files}
    training = sum(count for name, count in records.items() if not re.fullmatch(held_out[workload], name))
    assert training < planned.records
    assert config.steps * config.batch_size <= training <= 1.01 * config.steps * config.batch_size + 1


def test_the_rules_ask_for_five_times_the_memory_and_500_steps() -> None:
    def size(**values: Any) -> tuple[int, int]:
        config = build(SizeConfig, [Layer("test", {"workload": "dlrm", "format": "npy", **values})])
        request, planned = sizing.find_size(config, World(None))
        assert planned.size >= request
        return planned.size, planned.records

    # 2 clients of 64 GiB, as in the rules of MLPerf Storage
    assert size(hosts=2, memory="64GiB")[0] - 5 * 2 * 2**36 < 160
    assert size(accelerators=8, batch_size=2048)[1] - 500 * 8 * 2048 < 10
    assert "500 training samples for 500 steps" in sizing.describe_size(
        build(SizeConfig, [Layer("t", {"workload": "dlrm"})]), World(None)
    )


@pytest.mark.parametrize("preset", preset_names("scimill.bench/presets"))
@pytest.mark.parametrize("workload", FORMATS)
def test_presets_are_configurations_of_every_workload(preset: str, workload: str) -> None:
    layers = [read_preset("scimill.bench/presets", preset), Layer("flags", {"workload": workload, "size": "1GB"})]
    config = build(BenchGenerateConfig, layers)
    assert generate.make_plan(config, config.size, World(None)).size == pytest.approx(1e9, rel=1e-3)
    if preset == "original":
        assert config == build(BenchGenerateConfig, layers[1:])


@pytest.mark.parametrize(
    "values",
    [
        {"workload": "imseg", "case_sizes": "normal", "depth_range": (130, 200), "steps": 2},
        {"workload": "bert", "seed": 4, "sequences": "sentences", "instances_range": (1000, 1001), "memory": "1MiB"},
        {"workload": "dlrm", "format": "parquet", "missing": 0.1, "ids": "skewed", "rows_per_file": 1000},
    ],
)
def test_the_command_of_size_generates_what_was_planned(values: dict[str, Any]) -> None:
    config = build(SizeConfig, [Layer("test", values)])
    described = sizing.describe_size(config, World(None))
    words = described.split("scimill bench generate ")[1].split()
    flags = dict(zip((word[2:].replace("-", "_") for word in words[2::2]), words[3::2], strict=True))
    printed = build(BenchGenerateConfig, [Layer("flags", {"workload": words[0], **flags})])
    request, planned = sizing.find_size(config, World(None))
    assert printed.size == request
    plan = generate.make_plan(printed, printed.size, World(None))
    assert generate.describe_content(printed, plan) == generate.describe_content(config, planned)
    content = ("seed", "case_sizes", "depth_range", "sequences", "instances_range", "missing", "ids", "rows_per_file")
    assert [getattr(printed, name) for name in content] == [getattr(config, name) for name in content]
