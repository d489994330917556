"""From a fine run to a correction and its comparison, on a small grid; in this process unless ranks matter."""

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from mpi import scimill, start, wait_until
from scimill.config import Layer, build
from scimill.errors import ConfigError, InputError
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.store.reader import Reader
from scimill.training.directory import RunDirectory
from scimill.turbulence import corrections, simulate
from scimill.turbulence.learning import compare as comparison
from scimill.turbulence.learning.export import export
from scimill.turbulence.learning.train import make_task, train_network
from scimill.turbulence.params import CompareConfig, CorrectionsConfig, SimulateConfig, TurbulenceTrainConfig

ALONE = World(None)
POINTS, PAIRS, MEMBERS = 64, 12, 3
FLOW = {
    "points": POINTS, "kappa": 2.0, "density_diffusion": 0.08, "vorticity_diffusion": 0.08, "modified": True,
    "box": 25.6, "amplitude": 2.0, "noise_modes": 8, "step": 0.02,
}  # fmt: skip
TRAIN = {
    "hidden": [8, 8], "lowest_mode": 3, "batch_size": 4, "epochs": 2, "validation_share": 0.3, "warmup_steps": 0,
    "learning_rate": 3e-3, "precision": "float64",
}  # fmt: skip
FLAGS = [word for name, value in TRAIN.items() for word in (f"--{name.replace('_', '-')}", str(value).strip("[]"))]


def make(config: Any, **values: Any) -> Any:
    return build(config, [Layer("test", values)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make fine runs for training and held out, and the corrections of the first."""
    folder = tmp_path_factory.mktemp("correction")
    burn, fine, held_out = (folder / name for name in ("burn.h5", "fine.h5", "held-out.h5"))
    simulate.simulate(make(SimulateConfig, **FLOW, snapshots=2, interval=4.0, members=MEMBERS), Output(burn), ALONE)
    more = {**FLOW, "from_": str(burn), "members": MEMBERS}
    simulate.simulate(make(SimulateConfig, **more, snapshots=PAIRS, interval=0.04), Output(fine), ALONE)
    simulate.simulate(make(SimulateConfig, **more, snapshots=6, interval=0.08), Output(held_out), ALONE)
    made = make(CorrectionsConfig, fine=str(fine), factor=2, steps=1)
    corrections.make(made, Output(folder / "corrections.h5"), ALONE)
    return folder


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    train(data, data / "run", epochs=12, batch_size=2, learning_rate=1e-2)
    return data / "run"


def train(data: Path, run: Path, **values: Any) -> Path:
    train_network(make(TurbulenceTrainConfig, **{**TRAIN, **values}), data / "corrections.h5", RunDirectory(run), ALONE)
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "model.pt", weights_only=True)["state"]
    return state


def losses(run: Path) -> list[float]:
    rows = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    return [float(row["loss"]) for row in rows if row["split"] == "validation"]


# ---- training ---------------------------------------------------------------------------------------------------


def test_a_member_that_is_held_out_is_corrected_better_and_better(run: Path) -> None:
    """A network with zero output has a loss of 1 per field, in units of the correction's size."""
    found = losses(run)
    assert min(found) < 1.6
    assert min(found) < 0.95 * found[0]


def test_pairs_of_one_member_are_all_held_out(data: Path, run: Path) -> None:
    split = json.loads((run / "run.json").read_text())["split"]
    with h5py.File(data / "corrections.h5", "r", locking=False) as file:
        member = file["member"][:]
    assert len(set(member[split["validation"]])) == 1
    assert len(split["validation"]) == PAIRS
    assert set(member[split["validation"]]).isdisjoint(member[split["train"]])


def test_scales_are_those_of_the_store(data: Path) -> None:
    with Reader.open(data / "corrections.h5") as reader:
        spec = make_task(make(TurbulenceTrainConfig, **TRAIN), reader, ALONE).model.spec
    with h5py.File(data / "corrections.h5", "r", locking=False) as file:
        for name, scale in zip(("density", "vorticity", "potential"), spec.input_scale, strict=True):
            assert scale == pytest.approx(np.sqrt((file[name][:].astype(float) ** 2).mean()), rel=1e-5)
        points = POINTS // 2
        rows, columns = np.fft.fftfreq(points, 1 / points)[:, None], np.arange(points // 2 + 1)[None, :]
        inside = (np.hypot(rows, columns) >= 3) & (np.abs(rows) <= 10) & (columns <= 10)
        for name, scale in zip(("density", "vorticity"), spec.output_scale, strict=True):
            modes = np.fft.rfft2(file[f"{name}_correction"][:].astype(float)) * inside
            assert scale == pytest.approx(np.sqrt((np.fft.irfft2(modes) ** 2).mean()), rel=1e-6)
    assert (spec.points, spec.box, spec.step, spec.scheme) == (points, 25.6, pytest.approx(0.04), "spectral")


def test_any_number_of_ranks_trains_the_same_network(data: Path, run: Path, tmp_path: Path) -> None:
    """On sequences that continue from their own corrected states."""
    unroll, more = 3, {"weights": str(run), "epochs": 1}
    alone = weights(train(data, tmp_path / "alone", unroll=unroll, **more))
    result = scimill(
        "turbulence", "train", data / "corrections.h5", "--output", tmp_path / "together", *FLAGS, "--unroll", unroll,
        *(f"--{name}={value}" for name, value in more.items()), ranks=3,
    )  # fmt: skip
    assert result.returncode == 0, result
    together = weights(tmp_path / "together")
    first = weights(run)
    for name, values in alone.items():
        assert float((values - together[name]).abs().max()) < 1e-10
        assert not torch.equal(values, first[name])


def test_stopped_and_resumed_gives_the_same_bits(data: Path, tmp_path: Path) -> None:
    """In the middle of an epoch, with sequences that are augmented differently in each epoch."""
    args = ("turbulence", "train", data / "corrections.h5", *FLAGS, "--unroll", 2, "--epochs", 4)
    with start(*args, "--output", tmp_path / "run", "--checkpoint-steps", 1) as job:
        wait_until((tmp_path / "run" / "checkpoint.pt").exists, "a checkpoint")
        job.kill(0, signal.SIGUSR2)
        assert job.wait().returncode == 75
    position = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["position"]
    assert 0 < position["step"] < 24
    train_network(make(TurbulenceTrainConfig, **{**TRAIN, "unroll": 2, "epochs": 4}), data / "corrections.h5",
                  RunDirectory(tmp_path / "run", resume=True), ALONE)  # fmt: skip
    whole = weights(train(data, tmp_path / "whole", unroll=2, epochs=4))
    resumed = weights(tmp_path / "run")
    assert all(torch.equal(values, resumed[name]) for name, values in whole.items())


def test_weights_of_another_network_are_refused(data: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a different network: hidden was \(8, 8\), is \(4,\)"):
        train(data, tmp_path / "a", weights=str(run), hidden=[4])
    with pytest.raises(InputError, match="band was"):
        train(data, tmp_path / "b", weights=str(run), lowest_mode=4)


def test_what_holds_no_corrections_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="corrections"):
        train_network(make(TurbulenceTrainConfig, **TRAIN), data / "fine.h5", RunDirectory(tmp_path / "a"), ALONE)


def test_a_band_without_corrections_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="corrections are zero in this band"):
        train(data, tmp_path / "a", lowest_mode=40)


# ---- comparison -------------------------------------------------------------------------------------------------


def rows_of(path: Path, run: str) -> list[dict[str, str]]:
    return [row for row in csv.DictReader(path.read_text().splitlines()) if row["run"] == run]


def compare(data: Path, model: Path, folder: Path, **values: Any) -> str:
    config = make(CompareConfig, model=str(model), **{"starts": 4, "duration": 0.32, "statistics": 0.24, **values})
    return comparison.compare(config, data / "held-out.h5", folder, ALONE)


def test_a_trained_correction_is_nearer_to_the_truth(data: Path, run: Path, tmp_path: Path) -> None:
    table = compare(data, run, tmp_path / "out")
    assert [line.split()[0] for line in table.splitlines()[2:5]] == ["uncorrected", "corrected", "finer"]
    errors = {
        name: np.array([float(row["vorticity_error"]) for row in rows_of(tmp_path / "out" / "errors.csv", name)])
        for name in ("uncorrected", "corrected", "finer")
    }
    assert all(values.shape == (4 * 4,) for values in errors.values())
    assert np.all(errors["corrected"] < errors["uncorrected"])
    assert np.all(errors["finer"] < errors["uncorrected"])
    summary = rows_of(tmp_path / "out" / "summary.csv", "corrected")[0]
    assert float(summary["vorticity_error"]) == pytest.approx(errors["corrected"].reshape(4, 4)[:, -1].mean())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "errors.csv", "summary.csv", "statistics.csv", "errors.png", "flux.png", "spectra.png",
    }  # fmt: skip


def test_the_zero_model_is_no_better_and_no_worse(data: Path, run: Path, tmp_path: Path) -> None:
    export(run, str(tmp_path / "zero.onnx"), "onnx", zero=True, overwrite=False)
    compare(data, tmp_path / "zero.onnx", tmp_path / "out", statistics=0)
    found = [
        [row["vorticity_error"] for row in rows_of(tmp_path / "out" / "errors.csv", name)]
        for name in ("uncorrected", "corrected")
    ]
    assert found[0] == found[1]
    assert not (tmp_path / "out" / "flux.png").exists()


def test_a_run_that_diverges_is_reported_as_such(data: Path, run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "model.pt", weights_only=True)
    content["network"]["output_scale"] = [1e4, 1e4]
    torch.save(content, tmp_path / "model.pt")
    table = compare(data, tmp_path / "model.pt", tmp_path / "out", starts=1)
    assert "nan" in next(line for line in table.splitlines() if line.startswith("corrected  "))


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "too long": ({"duration": 5.0}, InputError, "needs 62 snapshots after the first, but the truth has 6"),
    "too long an average": ({"statistics": 5.0}, InputError, "needs 62 snapshots after the first"),
    "too short": ({"duration": 0.01}, ConfigError, "shorter than the snapshot interval"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_times_that_the_truth_has_not_are_refused(data: Path, run: Path, tmp_path: Path, name: str) -> None:
    values, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        compare(data, run, tmp_path / "out", **values)


def test_other_truths_are_refused(data: Path, run: Path, tmp_path: Path) -> None:
    change: Callable[..., Any] = lambda **values: make(SimulateConfig, **{**FLOW, **values}, snapshots=4)  # noqa: E731
    cases = {
        "alpha was 1.0, is 2.0": change(alpha=2.0, interval=0.08),
        "the truth has only 16 points": change(points=16, noise_modes=4, interval=0.08),
    }
    for message, config in cases.items():
        path = tmp_path / f"{config.points}.h5"
        simulate.simulate(config, Output(path, overwrite=True), ALONE)
        with pytest.raises(InputError, match=message):
            comparison.compare(
                make(CompareConfig, model=str(run), starts=1, duration=0.08), path, tmp_path / "o", ALONE
            )
    simulate.simulate(change(interval=0.05), Output(tmp_path / "off.h5"), ALONE)
    with pytest.raises(ConfigError, match="not a multiple of the coarse step"):
        comparison.compare(
            make(CompareConfig, model=str(run), starts=1, duration=0.1), tmp_path / "off.h5", tmp_path / "o", ALONE
        )
