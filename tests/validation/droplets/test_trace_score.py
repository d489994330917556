"""A network scored on a trace: its errors equal those of numpy, and the exact integrator follows an exact trace."""

import csv
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import droplet_traces
from mpi import succeed
from scimill import pictures
from scimill.config import Layer, build, read_preset
from scimill.droplets.exchange import records
from scimill.droplets.generate import generate
from scimill.droplets.learning.export import export
from scimill.droplets.learning.models import load_model
from scimill.droplets.learning.network import predict
from scimill.droplets.learning.score import score
from scimill.droplets.learning.train import train_network
from scimill.droplets.params import (
    DropletsGenerateConfig,
    DropletsImportConfig,
    DropletsTrainConfig,
    TraceScoreConfig,
)
from scimill.errors import InputError
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.training.directory import RunDirectory

ALONE = World(None)
PARTICLES, STEPS, DT = 12, 50, 0.2
FOUND = "unknown; constants only scale the features"


@pytest.fixture(scope="module")
def trace() -> np.ndarray:
    return droplet_traces.simulate(PARTICLES, STEPS, DT).astype(float)


@pytest.fixture(scope="module")
def folder(
    trace: np.ndarray, tmp_path_factory: pytest.TempPathFactory, configure: Callable[..., DropletsGenerateConfig]
) -> Path:
    """Make stores and networks: `known.h5` and `unknown.h5` are the trace, `generated.h5` has its physics."""
    folder = tmp_path_factory.mktemp("traces")
    droplet_traces.write(folder / "trace.data", trace)
    for name, presets in (("known", ["ntlp-2026"]), ("unknown", [])):
        layers = [read_preset("scimill.droplets/presets/import", preset) for preset in presets]
        values = {"files": [str(folder / "trace.data")], "block_size": 128}
        records.import_files(
            build(DropletsImportConfig, [*layers, Layer("test", values)]), Output(folder / f"{name}.h5"), ALONE
        )
    generate(configure("ntlp-2026", count=4000, block_size=256, tolerance=1e-4), Output(folder / "generated.h5"), ALONE)
    small = {"count": 400, "block_size": 256, "tolerance": 1e-4}
    generate(configure("classic", **small), Output(folder / "classic.h5"), ALONE)
    generate(configure("ntlp-2026", schmidt=0.6, **small), Output(folder / "other.h5"), ALONE)
    config = build(
        DropletsTrainConfig, [Layer("test", {"epochs": 3, "batch_size": 128, "warmup_steps": 5, "hidden": [8]})]
    )
    for name in ("generated", "unknown"):
        train_network(config, folder / f"{name}.h5", RunDirectory(folder / f"{name}-run"), ALONE)
        torch.set_flush_denormal(False)  # training disables subnormal numbers, which other tests need
    return folder


@pytest.fixture(autouse=True)
def low_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "DPI", 40)


def read_score(folder: Path, model: str, store: str, out: Path, **values: object) -> tuple[str, dict[str, float]]:
    config = build(TraceScoreConfig, [Layer("test", values)])
    text = score(folder / model, folder / store, out, config)
    return text, json.loads((out / "score.json").read_text())


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def test_errors_along_the_trace_equal_those_of_a_loop(folder: Path, trace: np.ndarray, tmp_path: Path) -> None:
    model, _ = load_model(folder / "generated-run")
    text, found = read_score(folder, "generated-run", "known.h5", tmp_path)
    state, radius, temperature, one_step = trace[0, :, 1:3], [], [], []
    for step in range(STEPS - 1):
        dt = np.float32(trace[step + 1, :, 0] - trace[step, :, 0]).astype(float)
        rest = np.concatenate([trace[step, :, 3:], dt[:, None]], axis=1)
        state = predict(model, np.concatenate([state, rest], axis=1))
        radius.append(np.log10(state[:, 0] / trace[step + 1, :, 1]))
        temperature.append(state[:, 1] - trace[step + 1, :, 2])
        direct = predict(model, np.concatenate([trace[step, :, 1:3], rest], axis=1))
        one_step.append(np.log10(direct[:, 0] / trace[step + 1, :, 1]))
    assert found["network_radius_rmse"] == pytest.approx(rms(np.array(radius)), rel=1e-9)
    assert found["network_temperature_rmse"] == pytest.approx(rms(np.array(temperature)), rel=1e-9)
    assert found["one_step_radius_rmse"] == pytest.approx(rms(np.array(one_step)), rel=1e-9)
    unchanged = np.log10(trace[:1, :, 1] / trace[1:, :, 1])
    assert found["unchanged_radius_rmse"] == pytest.approx(rms(unchanged), rel=1e-9)
    assert sum(row["steps"] for row in found["regions"]) == 3 * PARTICLES * (STEPS - 1)
    assert f"{PARTICLES * (STEPS - 1):,} steps of {PARTICLES} uninterrupted pieces" in text


def test_the_exact_integrator_follows_an_exact_trace(folder: Path, tmp_path: Path) -> None:
    _, found = read_score(folder, "generated-run", "known.h5", tmp_path)
    assert found["exact_radius_rmse"] < 1e-5 < found["unchanged_radius_rmse"]
    assert found["exact_temperature_rmse"] < 1e-3


def test_each_piece_is_in_the_table_and_in_the_picture(folder: Path, tmp_path: Path) -> None:
    _, found = read_score(folder, "generated-run", "known.h5", tmp_path)
    with (tmp_path / "traces.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["particle"]) for row in rows] == list(range(PARTICLES))
    assert {row["steps"] for row in rows} == {str(STEPS - 1)}
    squares = np.array([float(row["radius_rmse"]) ** 2 for row in rows])
    assert np.sqrt(squares.mean()) == pytest.approx(found["network_radius_rmse"], rel=1e-6)
    assert sum(int(row["radius_change_points"]) for row in rows) == found["radius_change_points"] > 0
    assert (tmp_path / "traces.png").read_bytes().startswith(b"\x89PNG")


def test_large_tolerances_leave_no_change_point(folder: Path, tmp_path: Path) -> None:
    _, found = read_score(
        folder, "generated-run", "known.h5", tmp_path, radius_tolerance=100, temperature_tolerance=1000
    )
    assert (found["radius_change_points"], found["temperature_change_points"]) == (0, 0)


def test_fewer_pieces_can_be_followed(folder: Path, tmp_path: Path) -> None:
    text, found = read_score(folder, "generated-run", "known.h5", tmp_path, most_pieces=3)
    assert (found["pieces"], found["steps"]) == (3, 3 * (STEPS - 1))
    assert f"of {PARTICLES} in known.h5" in text


@pytest.mark.parametrize(
    ("model", "store", "unknown"),
    [("generated-run", "unknown.h5", "unknown.h5"), ("unknown-run", "known.h5", "the training data"),
     ("unknown-run", "unknown.h5", "the training data and unknown.h5"),
     ("unknown-run", "other.h5", "the training data")],
)  # fmt: skip
def test_unknown_physics_is_said_and_not_compared(folder: Path, model: str, store: str, unknown: str) -> None:
    text = score(folder / model, folder / store, None)
    assert f"unknown for {unknown}, so not compared" in text
    assert ("'exact' has generate's default constants" in text) == (store == "unknown.h5")


def test_known_physics_must_be_the_same(folder: Path) -> None:
    with pytest.raises(InputError, match="physical constants or salinity kind differ"):
        score(folder / "generated-run", folder / "other.h5", None)
    assert "unknown" not in score(folder / "generated-run", folder / "known.h5", None)


@pytest.mark.parametrize("model", ["generated-run", "unknown-run"])
def test_salinity_must_mean_the_same_even_if_the_physics_is_unknown(folder: Path, model: str) -> None:
    with pytest.raises(InputError, match="takes the solute term of a droplet, but the store has its salt mass"):
        score(folder / model, folder / "classic.h5", None)


def test_exports_of_unknown_physics_say_so(folder: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for form, suffix in (("fortran", "f90"), ("onnx", "onnx"), ("torchscript", "pt")):
        for run in ("unknown", "generated"):
            path = tmp_path / f"{run}.{suffix}"
            export(folder / f"{run}-run", path, form, precision="float64", zero=False, overwrite=False)
    unknown, known = ((tmp_path / f"{run}.f90").read_text() for run in ("unknown", "generated"))
    assert f"! physics: {FOUND}" in unknown
    assert "The physics of the training data is unknown" in unknown
    assert "Constants of the equations" in known
    assert "unknown" not in known.split("Layer 1")[0].replace("accuracy is unknown", "")
    assert "trained on: 588 droplets of unknown.h5, imported" in unknown
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "unknown.onnx").metadata_props}
    files = {"about.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch now recommends another format
        torch.jit.load(tmp_path / "unknown.pt", _extra_files=files)
    assert metadata["physics"] == json.loads(files["about.json"])["physics"] == FOUND


def test_the_ranges_of_a_network_are_those_of_its_trace(folder: Path, trace: np.ndarray) -> None:
    model, _ = load_model(folder / "unknown-run")
    for index, values in enumerate((trace[:-1, :, 1], trace[:-1, :, 2], trace[:-1, :, 3])):
        assert model.spec.ranges[index] == (values.min(), values.max())
    assert model.spec.ranges[6] == pytest.approx((DT, DT), rel=1e-4)


def test_the_commands_lead_from_a_trace_to_droplets_like_its_own(
    folder: Path, trace: np.ndarray, tmp_path: Path
) -> None:
    succeed("droplets", "ranges", folder / "known.h5", "--quantiles", 0.1, 0.9, "--output", tmp_path / "ranges.yaml")
    succeed("droplets", "generate", tmp_path / "new.h5", "--count", 500, "--config", tmp_path / "ranges.yaml")
    with h5py.File(tmp_path / "new.h5") as file:
        radius, offset = file["initial_radius"][:], file["initial_temperature"][:] - file["air_temperature"][:]
    low, high = np.quantile(trace[:-1, :, 1], (0.1, 0.9))
    assert low * 0.999 < radius.min() < radius.max() < high * 1.001
    assert np.abs(offset).max() <= np.abs(trace[:-1, :, 2] - trace[:-1, :, 4]).max() + 1e-3
    result = succeed("droplets", "score", folder / "generated-run", folder / "known.h5", "--radius-threshold", 0.5)
    assert "change points: " in result.stdout
