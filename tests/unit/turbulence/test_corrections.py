"""Corrections: checks that a dataset fails if it is off by one step or loses the corrections."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mpi import change_ledger
from scimill.config import Layer, build
from scimill.errors import ConfigError, InputError, NumericalError, StorageError
from scimill.parallel.world import World
from scimill.store.checksums import bytes_checksum, row_checksums
from scimill.store.layout import Layout
from scimill.store.output import Output
from scimill.store.reader import Reader
from scimill.store.verify import verify
from scimill.turbulence.corrections import CHANGES, CHANNELS, Corrections, describe_corrections, make
from scimill.turbulence.kernels import coarse
from scimill.turbulence.kernels.solver import FlowSolver, potential
from scimill.turbulence.params import CorrectionsConfig, SimulateConfig
from scimill.turbulence.simulate import simulate
from scimill.turbulence.snapshots import open_snapshots

ALONE = World(None)
FLOW = {"kappa": 2, "density_diffusion": 0.005, "vorticity_diffusion": 0.005, "modified": True, "box": 12.8}
NOISE = {**FLOW, "points": 96, "amplitude": 1.0, "noise_modes": 4, "snapshots": 1, "interval": 6.0, "members": 2}
FACTOR, STEPS, INTERVAL, SNAPSHOTS, BEGIN = 3, 2, 0.026, 24, 6.0


def flow(output: Path, **values: Any) -> Path:
    simulate(build(SimulateConfig, [Layer("test", NOISE | values)]), Output(output), ALONE)
    return output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a fine run of two members that are turbulent from the start."""
    folder = tmp_path_factory.mktemp("fine")
    before = flow(folder / "before.h5")
    return flow(folder / "fine.h5", from_=str(before), snapshots=SNAPSHOTS, interval=INTERVAL)


def correct(fine: Path, output: Path, **values: Any) -> Path:
    defaults = {"fine": str(fine), "factor": FACTOR, "steps": STEPS, "precision": "float64"}
    make(build(CorrectionsConfig, [Layer("test", defaults | values)]), Output(output), ALONE)
    return output


@contextmanager
def open_corrections(path: Path) -> Iterator[Corrections]:
    with Reader.open(path) as reader:
        yield Corrections(reader)


def truth(pairs: Corrections, pair: int) -> list[np.ndarray]:
    """Return the coarsened density and vorticity of the fine run at the time of the pair."""
    rows = pairs.rows(pair)
    return [rows[name] + rows[f"{name}_correction"] for name in ("density", "vorticity")]


@pytest.fixture(scope="module")
def pairs(run: Path) -> Corrections:
    with open_corrections(correct(run, run.with_name("pairs.h5"))) as found:
        yield found


def resolved(state: tuple[np.ndarray, np.ndarray], pairs: Corrections, method: str = "spectral") -> tuple[Any, Any]:
    """Return a coarse state as far as the coarse scheme resolves it."""
    solver = FlowSolver(pairs.physics, pairs.points, pairs.scheme)
    solver.load(*coarse.coarsen_state(*state, FACTOR, method))
    return solver.fields()


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


# ---- the checks of the pipeline, (a) to (d) ---------------------------------------------------------------------


def test_coarse_step_and_correction_make_the_coarsened_truth(run: Path, pairs: Corrections) -> None:
    with open_snapshots(run) as fine:
        for pair, (member, time) in enumerate(zip(pairs.members, pairs.times, strict=True)):
            snapshot = int(np.argmin(np.abs(fine.times[member] - time)))
            assert fine.times[member, snapshot] == time
            expected = resolved(fine.read(snapshot, int(member)), pairs)
            for made, known in zip(truth(pairs, pair), expected, strict=True):
                np.testing.assert_allclose(made, known, atol=1e-14 * np.abs(known).max())


def test_the_state_is_that_after_one_coarse_step(run: Path, pairs: Corrections) -> None:
    solver = FlowSolver(pairs.physics, pairs.points, pairs.scheme)
    with open_snapshots(run) as fine:
        for pair in (0, len(pairs) - 1):
            before = int(np.argmin(np.abs(fine.times[0] - (pairs.times[pair] - pairs.duration))))
            solver.load(*resolved(fine.read(before, int(pairs.members[pair])), pairs))
            for _ in range(pairs.substeps):
                solver.step(pairs.duration / pairs.substeps)
            for name, known in zip(("density", "vorticity"), solver.fields(), strict=True):
                np.testing.assert_allclose(pairs.rows(pair)[name], known, atol=1e-13)


def test_each_pair_begins_with_the_truth_that_the_one_before_ends_with(pairs: Corrections) -> None:
    """Therefore the increment of pair k is truth k minus truth k − 1."""
    same = pairs.members[1:] == pairs.members[:-1]
    np.testing.assert_allclose(np.diff(pairs.times)[same], pairs.duration)
    assert pairs.duration == pytest.approx(STEPS * INTERVAL)
    assert np.count_nonzero(~same) == 1


@pytest.mark.parametrize("field", [0, 1], ids=["density", "vorticity"])
def test_corrections_are_small_and_no_increments(pairs: Corrections, field: int) -> None:
    changes, increments = [], []
    for pair in range(1, len(pairs)):
        if pairs.members[pair] == pairs.members[pair - 1]:
            changes.append(pairs.rows(pair)[CHANGES[field]])
            increments.append(truth(pairs, pair)[field] - truth(pairs, pair - 1)[field])
    assert abs(correlation(np.array(changes), -np.array(increments))) < 0.2
    assert np.std(changes) < 0.5 * np.std(increments)
    assert np.std(changes) > 0


@pytest.mark.parametrize("scheme", ["spectral", "arakawa"])
def test_a_run_needs_no_correction_towards_itself(tmp_path: Path, scheme: str) -> None:
    fine = flow(tmp_path / "fine.h5", points=32, snapshots=4, interval=0.1, step=0.025, members=1, scheme=scheme)
    made = correct(fine, tmp_path / "pairs.h5", factor=1, steps=1, substeps=4, scheme=scheme)
    with open_corrections(made) as pairs:
        for pair in range(len(pairs)):
            rows = pairs.rows(pair)
            assert max(np.abs(rows[name]).max() for name in CHANGES) < 1e-13


# ---- the store --------------------------------------------------------------------------------------------------


def test_the_potential_is_that_of_the_vorticity(pairs: Corrections) -> None:
    rows = pairs.rows(3)
    np.testing.assert_allclose(rows["potential"], potential(rows["vorticity"], pairs.box), atol=1e-13)


def test_the_statistics_are_those_of_all_pairs(pairs: Corrections) -> None:
    for name in CHANNELS:
        values = pairs.reader.file[name][:]
        assert pairs.statistics[name].std == pytest.approx(values.std(), rel=1e-10)
        assert pairs.statistics[name].mean == pytest.approx(values.mean(), abs=1e-10 * values.std())


def test_the_store_records_its_origin_and_verifies(pairs: Corrections) -> None:
    assert verify(pairs.reader.path, ALONE).problems == ()
    assert (pairs.points, pairs.box, pairs.scheme) == (32, 12.8, "spectral")
    assert vars(pairs.physics).items() >= {k: v for k, v in FLOW.items() if k != "box"}.items()
    assert pairs.substeps >= 1
    assert set(pairs.members.tolist()) == {0, 1}
    assert pairs.times.min() == pytest.approx(BEGIN + STEPS * INTERVAL)


def test_float32_rounds_what_float64_holds(run: Path, pairs: Corrections, tmp_path: Path) -> None:
    with open_corrections(correct(run, tmp_path / "single.h5", precision="float32")) as single:
        for name in CHANNELS:
            stored = single.rows(5)[name]
            assert stored.dtype == np.float32
            np.testing.assert_array_equal(stored, pairs.rows(5)[name].astype(np.float32))


@pytest.mark.parametrize("method", ["mean", "sample"])
def test_other_coarsenings_have_larger_corrections(run: Path, pairs: Corrections, tmp_path: Path, method: str) -> None:
    with open_corrections(correct(run, tmp_path / "other.h5", coarsening=method)) as other, open_snapshots(run) as fine:
        snapshot = int(np.argmin(np.abs(fine.times[0] - other.times[0])))
        for made, known in zip(truth(other, 0), resolved(fine.read(snapshot), other, method), strict=True):
            np.testing.assert_allclose(made, known, atol=1e-13)
        assert other.statistics["vorticity_correction"].std > pairs.statistics["vorticity_correction"].std


# ---- what is refused --------------------------------------------------------------------------------------------


def refused(fine: Path, folder: Path, error: type[Exception], match: str, **values: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        correct(fine, folder / "pairs.h5", **values)
    assert len(str(caught.value).splitlines()) <= 4
    assert not (folder / "pairs.h5").exists()


def test_a_factor_that_gives_no_grid(run: Path, tmp_path: Path) -> None:
    refused(run, tmp_path, ConfigError, r"factor 5 does not give an even coarse grid from 96 x 96 points", factor=5)
    refused(run, tmp_path, ConfigError, "factor 32 does not give", factor=32)
    assert not list(tmp_path.iterdir())


def test_too_few_snapshots(run: Path, tmp_path: Path) -> None:
    refused(run, tmp_path, InputError, "too few snapshots for coarse steps with --steps 25", steps=25)
    refused(run, tmp_path, InputError, "no snapshot at or after time 99", start_time=99)
    refused(run, tmp_path, InputError, "cannot be paired: no member has two snapshots", start_time=6.62)


def test_a_coarse_step_that_is_not_stable(run: Path, tmp_path: Path) -> None:
    refused(run, tmp_path, NumericalError, "the coarse step is unstable", substeps=1, steps=24)


def changed(run: Path, folder: Path, change: Callable[[h5py.File], None]) -> Path:
    """Copy a store and change it behind scimill's back."""
    copy = folder / "changed.h5"
    shutil.copy(run, copy)
    with h5py.File(copy, "r+", locking=False) as file:
        change(file)
    return copy


def test_irregular_times(run: Path, tmp_path: Path) -> None:
    def delay(file: h5py.File) -> None:
        file["time"][30] += 0.01

    refused(
        changed(run, tmp_path, delay), tmp_path, InputError, "intervals between snapshots range from 0.016 to 0.036"
    )


def test_a_damaged_snapshot(run: Path, tmp_path: Path) -> None:
    def damage(file: h5py.File) -> None:
        file["vorticity"][30 - SNAPSHOTS % 2, 3, 3] += 1

    refused(changed(run, tmp_path, damage), tmp_path, StorageError, "the store is damaged")


def seal_block(file: h5py.File, block: int) -> None:
    """Give a changed block the checksums of its new content."""
    layout, value = Layout.from_json(file.attrs["layout"]), 0
    for field in layout.fields:
        value = bytes_checksum(file[field.name][layout.span(block)], value)
    for table in layout.tables:
        first = block * table.capacity
        rows = slice(first, first + int(file["blocks"][table.counter][block]))
        for field in table.fields:
            value = bytes_checksum(file[f"{table.name}/{field.name}"][rows], value)
    rows = file["blocks"][block : block + 1]
    rows["crc32c"] = value
    rows["row_crc32c"] = row_checksums(block, rows)
    file["blocks"][block : block + 1] = rows


def test_a_fine_run_with_nan(run: Path, tmp_path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file["density"][30, 3, 3] = np.nan
        seal_block(file, 30)

    message = "the snapshot has NaN or infinite values"
    refused(changed(run, tmp_path, spoil), tmp_path, InputError, message, steps=1)


def test_damaged_corrections(pairs: Corrections, tmp_path: Path) -> None:
    def damage(file: h5py.File) -> None:
        file["density_correction"][4, 3, 3] += 1

    with open_corrections(changed(pairs.reader.path, tmp_path, damage)) as found:
        assert found.rows(3)
        with pytest.raises(StorageError, match="the store is damaged"):
            found.rows(4)


def test_an_unfinished_run(run: Path, tmp_path: Path) -> None:
    def undo(file: h5py.File) -> None:
        change_ledger(file, 7, state=0)

    refused(changed(run, tmp_path, undo), tmp_path, InputError, "the store is unfinished")


def test_a_store_of_something_else(pairs: Corrections, tmp_path: Path) -> None:
    refused(pairs.reader.path, tmp_path, InputError, "this store holds corrections, not snapshots", start_time=0)
    refused(tmp_path / "missing.h5", tmp_path, InputError, "missing.h5|cannot")
    (tmp_path / "text.h5").write_text("no store at all, but long enough to be read as one" * 100)
    refused(tmp_path / "text.h5", tmp_path, InputError, "not")


def test_resuming_with_another_fine_run(run: Path, pairs: Corrections, tmp_path: Path) -> None:
    shutil.copy(pairs.reader.path, tmp_path / "pairs.h5")
    other = flow(tmp_path / "other.h5", seed=2, snapshots=SNAPSHOTS, interval=INTERVAL)
    config = build(CorrectionsConfig, [Layer("test", {
        "fine": str(other), "factor": FACTOR, "steps": STEPS, "precision": "float64",
    })])  # fmt: skip
    with pytest.raises(ConfigError, match="fine_crc32c was"):
        make(config, Output(tmp_path / "pairs.h5", resume=True), ALONE)


def test_snapshots_before_the_start_are_left_out(run: Path, tmp_path: Path) -> None:
    with open_corrections(correct(run, tmp_path / "late.h5", start_time=6.3)) as late:
        assert late.times.min() == pytest.approx(6.312 + STEPS * INTERVAL)
        assert len(late) == 12


def test_a_dry_run_prints_the_plan(run: Path, tmp_path: Path) -> None:
    config = build(CorrectionsConfig, [Layer("test", {"fine": str(run), "factor": 3, "steps": 4})])
    plan = describe_corrections(config, Output(tmp_path / "a.h5"))
    assert "96 x 96 to 32 x 32" in plan
    assert "pairs     12" in plan
    assert not list(tmp_path.iterdir())


def test_snapshots_are_no_corrections(run: Path) -> None:
    with pytest.raises(InputError, match="not a store of corrections"), open_corrections(run):
        pass
