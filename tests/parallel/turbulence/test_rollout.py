"""Corrected runs: checks that the original pipeline would have failed, on any number of ranks and after a kill."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from mpi import Result, dataset_hashes, done_blocks, scimill, start, succeed, wait_until
from redisai import StandIn
from scimill.cli import scimill as command_line
from scimill.config import Layer, build
from scimill.errors import ConfigError, InputError
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.training.checkpoint import save_model
from scimill.turbulence.kernels.solver import FlowSolver
from scimill.turbulence.learning import rollout as corrected
from scimill.turbulence.learning.export import export
from scimill.turbulence.learning.network import CorrectionNetwork, CorrectionNetworkSpec
from scimill.turbulence.learning.rollout import CorrectedSolver
from scimill.turbulence.params import RolloutConfig
from scimill.turbulence.snapshots import physics

POINTS, SUBSTEPS, STEP = 48, 2, 0.05
FLOW = {
    "alpha": 1.0, "kappa": 2.0, "density_diffusion": 0.02, "vorticity_diffusion": 0.02, "hyperviscosity": 0.0,
    "order": 1, "modified": True, "box": 25.6,
}  # fmt: skip
SPEC = CorrectionNetworkSpec(
    hidden=(6, 5, 4), activation="silu", points=POINTS, box=25.6, step=STEP, substeps=SUBSTEPS, scheme="spectral",
    physics=FLOW, input_scale=(1.0, 1.0, 1.0), output_scale=(0.01, 0.01), band=(4.0, 99.0),
)  # fmt: skip
SIMULATE = (
    "turbulence", "simulate", "--points", POINTS, "--amplitude", 1, "--kappa", 2, "--density-diffusion", 0.02,
    "--vorticity-diffusion", 0.02, "--modified", "--box", 25.6, "--noise-modes", 10,
)  # fmt: skip
FIELDS = ("density", "vorticity")


def write_run(folder: Path, spec: CorrectionNetworkSpec, gain: float = 1.0) -> Path:
    """Write the model of a run, with initial weights times a gain."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(3)
    network = CorrectionNetwork(spec)
    state = {name: gain * values for name, values in network.state_dict().items()}
    store = {"rows": 12, "path": "/data/corrections.h5", "seed": "1", "identity": "0123"}
    about = {"network": spec.to_dict(), "store": store, "environment": {"date": "2026-11-25"}}
    save_model(folder, {**about, "state": state, "position": {"best_loss": 0.5, "best_epoch": 3}})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model, its exports, an initial snapshot, and an uncorrected run from there."""
    folder = tmp_path_factory.mktemp("rollout")
    write_run(folder / "run", SPEC)
    export(folder / "run", str(folder / "model.onnx"), "onnx", zero=False, overwrite=False)
    export(folder / "run", str(folder / "script.pt"), "torchscript", zero=False, overwrite=False)
    export(folder / "run", str(folder / "zero.onnx"), "onnx", zero=True, overwrite=False)
    call(*SIMULATE, folder / "start.h5", "--snapshots", 1, "--members", 2)
    call(*SIMULATE, folder / "plain.h5", "--snapshots", 4, "--interval", 2 * STEP, "--step", STEP / SUBSTEPS,
         "--members", 2, "--from", folder / "start.h5")  # fmt: skip
    return folder


def call(*words: object) -> None:
    """Run the command line in this process."""
    command_line.main([str(word) for word in words], prog_name="scimill", standalone_mode=False)


def arguments(data: Path, output: Path, model: object, *args: object) -> tuple[object, ...]:
    return ("turbulence", "rollout", output, "--model", model, "--from", data / "start.h5", "--snapshots", 4,
            "--every", 2, *args)  # fmt: skip


def rollout(data: Path, output: Path, model: object, ranks: int) -> Result:
    return scimill(*arguments(data, output, model), ranks=ranks)


@pytest.fixture(scope="module")
def on_three_ranks(data: Path) -> Path:
    """Roll out on teams of 1 and 2 ranks, one per member: MODEL.h5."""
    folder = data / "on-three-ranks"
    folder.mkdir()
    for model in ("zero.onnx", "model.onnx"):
        succeed(*arguments(data, folder / f"{model}.h5", data / model), ranks=3)
    return folder


def fields_of(path: Path) -> np.ndarray:
    with h5py.File(path, "r", locking=False) as file:
        return np.stack([file[name][:] for name in FIELDS])


# ---- checks of the pipeline -------------------------------------------------------------------------------------


def test_the_zero_model_changes_no_bit(data: Path, on_three_ranks: Path, tmp_path: Path) -> None:
    here(data, tmp_path / "zero.h5", data / "zero.onnx")
    plain = dataset_hashes(data / "plain.h5")
    assert dataset_hashes(tmp_path / "zero.h5") == plain
    assert dataset_hashes(on_three_ranks / "zero.onnx.h5") == plain


@pytest.mark.parametrize("scheme", ["spectral", "arakawa"])
def test_a_model_of_the_stored_corrections_follows_the_truth(scheme: Any) -> None:
    """The truth has twice the points; the model returns the error of each coarse step."""
    spec = dataclasses.replace(SPEC, scheme=scheme, band=(0.0, 99.0))
    equations, points = physics(FLOW), 2 * POINTS
    x = 2 * np.pi * np.arange(points) / points
    waves = [np.sin(3 * x[:, None] + 2 * x[None, :]), np.cos(5 * x[None, :] - 2 * x[:, None]), np.sin(4 * x[:, None])]
    fine, coarse, filtering = (
        FlowSolver(equations, points),
        FlowSolver(equations, POINTS, scheme),
        FlowSolver(equations, POINTS),
    )
    fine.load(waves[0] + waves[1], 2 * waves[2] - waves[1] + waves[0])

    def filtered() -> np.ndarray:
        """Return every second point of what the coarse dealiased grid resolves."""
        modes = np.fft.rfft2(np.stack(fine.fields()))
        modes[:, np.abs(np.fft.fftfreq(points, 1 / points)) > (POINTS - 1) // 3] = 0
        modes[:, :, (POINTS - 1) // 3 + 1 :] = 0
        filtering.load(*np.fft.irfft2(modes)[:, ::2, ::2])
        return np.stack(filtering.fields())

    truths, corrections = [filtered()], []
    for _ in range(6):
        coarse.load(*truths[-1])
        coarse.advance(STEP, STEP / SUBSTEPS)
        fine.advance(STEP, STEP / 8)
        truths.append(filtered())
        corrections.append(truths[-1] - np.stack(coarse.fields()))
    stored: Iterator[np.ndarray] = iter(corrections)
    run = CorrectedSolver(spec, lambda state: next(stored)[None])  # type: ignore[arg-type]
    plain = FlowSolver(equations, POINTS, scheme)
    for solver in (run, plain):
        solver.load(*truths[0])
    for truth in truths[1:]:
        run.advance(STEP)
        plain.advance(STEP, STEP / SUBSTEPS)
        # Modes that Arakawa's scheme makes above the 2/3 cutoff are in neither the truth nor the band.
        tolerance = 1e-12 if scheme == "spectral" else 1e-2
        difference = np.stack(run.fields()) - truth
        assert np.abs(difference).max() < tolerance
    lacking = np.abs(np.stack(plain.fields()) - truths[-1]).max()
    assert lacking > (1e-6 if scheme == "spectral" else 3e-2)
    assert next(stored, None) is None


@pytest.mark.parametrize("model", ["model.onnx", "script.pt", "run"])
def test_any_number_of_ranks_and_any_format_give_the_same(
    data: Path, on_three_ranks: Path, tmp_path: Path, model: str
) -> None:
    here(data, tmp_path / "1.h5", data / model)
    found = [fields_of(path) for path in (tmp_path / "1.h5", *on_three_ranks.glob(f"{model}.h5"))]
    assert len(found) == (2 if model == "model.onnx" else 1)
    reference = reference_run(data)
    scale = np.abs(reference).max()
    plain = np.abs(fields_of(data / "plain.h5") - reference).max()
    assert plain > 1e-3 * scale
    for fields in found:
        assert np.abs(fields - reference).max() < 1e-6 * scale


def reference_run(data: Path) -> np.ndarray:
    """Make the corrected run with whole transforms and circular convolutions, written out here."""
    network = CorrectionNetwork(SPEC)
    network.load_state_dict(torch.load(data / "run" / "model.pt", weights_only=True)["state"])
    m = np.hypot(np.fft.fftfreq(POINTS, 1 / POINTS)[:, None], np.arange(POINTS // 2 + 1)[None, :])
    inside = (m >= 4) & (np.abs(np.fft.fftfreq(POINTS, 1 / POINTS)) <= 15)[:, None]
    inside &= np.arange(POINTS // 2 + 1)[None, :] <= 15
    begin = fields_of(data / "start.h5")
    made = []
    for member in range(2):
        solver = FlowSolver(physics(FLOW), POINTS)
        solver.load(*begin[:, 2 * member + 1])
        made.append(begin[:, 2 * member + 1])
        for _ in range(4):
            for _ in range(2):
                solver.advance(STEP, STEP / SUBSTEPS)
                state = np.stack([*solver.fields(), solver.potential()])
                r = SPEC.radius
                around = np.pad(state, ((0, 0), (r, r), (r, r)), mode="wrap").astype(np.float32)
                with torch.no_grad():
                    correction = network(torch.from_numpy(around[None]))[0].double().numpy()
                solver.load(*(state[:2] + np.fft.irfft2(np.fft.rfft2(correction) * inside)))
            made.append(np.stack(solver.fields()))
    return np.stack(made, axis=1)


def test_restart_in_the_middle_equals_the_uninterrupted_run(data: Path, tmp_path: Path) -> None:
    here(data, tmp_path / "whole.h5", data / "model.onnx")
    rest = {"from_": str(tmp_path / "whole.h5"), "snapshot": 2, "snapshots": 2}
    here(data, tmp_path / "rest.h5", data / "model.onnx", **rest)
    whole, later = (fields_of(tmp_path / f"{name}.h5") for name in ("whole", "rest"))
    np.testing.assert_array_equal(
        whole.reshape(2, 2, 5, POINTS, POINTS)[:, :, 2:], later.reshape(2, 2, 3, POINTS, POINTS)
    )


def test_killed_and_resumed_gives_the_same_bits(data: Path, tmp_path: Path) -> None:
    args = ("turbulence", "rollout", "--model", data / "model.onnx", "--from", data / "start.h5", "--snapshots", 60)
    succeed(*args, tmp_path / "whole.h5", ranks=2)
    part = tmp_path / "killed.h5.part"
    with start(*args, tmp_path / "killed.h5", ranks=2) as job:
        wait_until(lambda: len(done_blocks(part)) >= 3, "three snapshots")
        job.kill(1)
        assert job.wait().returncode != 0
    assert 3 <= len(done_blocks(part)) < 122
    succeed(*args, tmp_path / "killed.h5", "--resume", ranks=2)
    assert dataset_hashes(tmp_path / "killed.h5") == dataset_hashes(tmp_path / "whole.h5")


@pytest.mark.needs("SmartRedis")
def test_a_database_corrects_as_a_file_does(data: Path, tmp_path: Path) -> None:
    with StandIn() as server:
        address = f"redis://{server.address}/correction"
        export(data / "run", address, "torchscript", zero=False, overwrite=False)
        result = rollout(data, tmp_path / "redis.h5", address, ranks=2)
        assert result.returncode == 0, result
    difference = fields_of(tmp_path / "redis.h5") - reference_run(data)
    assert np.abs(difference).max() < 1e-5


# ---- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "message"), [
    ({"variables": ("density", "vorticity")}, "the model uses the variables density, vorticity"),
    ({"points": 64}, "another grid"),
    ({"box": 20.0, "physics": {**FLOW, "box": 20.0}}, "box was 20.0, is 25.6"),
    ({"physics": {**FLOW, "alpha": 0.5}}, "alpha was 0.5, is 1.0"),
])  # fmt: skip
def test_a_model_of_something_else_is_refused(data: Path, tmp_path: Path, change: Any, message: str) -> None:
    run = write_run(tmp_path / "other", dataclasses.replace(SPEC, **change))
    with pytest.raises(InputError, match=message):
        here(data, tmp_path / "a.h5", run)
    assert not list(tmp_path.glob("a.h5*"))


def here(data: Path, output: Path, model: Path, *, resume: bool = False, **values: Any) -> None:
    """Roll out in this process."""
    given = {"model": str(model), "from_": str(data / "start.h5"), "snapshots": 4, "every": 2, **values}
    config = build(RolloutConfig, [Layer("test", given)])
    corrected.rollout(config, Output(output, resume=resume), World(None))


def refused(result: Result, code: int, message: str) -> None:
    assert result.returncode == code, result
    assert len(result.errors) == 1, result
    assert message in result.errors[0]
    assert not result.tracebacks


def test_another_coarse_step_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"coarse steps of 0\.05, not of 0\.04"):
        here(data, tmp_path / "a.h5", data / "model.onnx", coarse_step=0.04)


def test_a_damaged_model_and_a_missing_one_are_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes((data / "model.onnx").read_bytes()[:2000])
    refused(rollout(data, tmp_path / "a.h5", tmp_path / "cut.onnx", ranks=2), 3, "the model is damaged")
    with pytest.raises(InputError, match="no such file"):
        here(data, tmp_path / "a.h5", tmp_path / "none.onnx")


def test_a_model_that_makes_the_run_break_down_stops_it_at_once(data: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "wild", dataclasses.replace(SPEC, output_scale=(1e3, 1e3)), gain=30.0)
    result = rollout(data, tmp_path / "a.h5", run, ranks=2)
    assert result.returncode == 5, result
    assert "before snapshot 1" in result.stderr
    assert not result.tracebacks
    assert done_blocks(tmp_path / "a.h5.part")  # what was good is kept


def test_resuming_with_another_model_is_refused(data: Path, tmp_path: Path) -> None:
    here(data, tmp_path / "a.h5", data / "model.onnx")
    here(data, tmp_path / "a.h5", data / "model.onnx", resume=True)
    with pytest.raises(ConfigError, match="model_identity was"):
        here(data, tmp_path / "a.h5", data / "zero.onnx", resume=True)


def test_dry_run_writes_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(*arguments(data, tmp_path / "a.h5", data / "model.onnx", "--dry-run"))
    assert "correcting every 0.05" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
