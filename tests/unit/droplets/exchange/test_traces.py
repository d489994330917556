"""Traces become rows: one per step of a particle, none where a step is missing."""

from pathlib import Path

import h5py
import numpy as np
import pytest

import droplet_traces
from scimill.config import Layer, build
from scimill.droplets.exchange import records, traces
from scimill.droplets.params import DropletsImportConfig
from scimill.errors import InputError
from scimill.parallel.world import World
from scimill.store.inspect import inspect
from scimill.store.output import Output
from scimill.store.verify import verify

ALONE = World(None)
STATE = (1e-6, 290.0, 1e-18, 291.0, 0.98, 1.1)
Record = droplet_traces.Record


def record(particle: int, time: float, *, status: int = 64, radius: float | None = None) -> Record:
    """A record whose radius tells its time, unless another is given."""
    return (particle, status, time, 1e-6 * (1 + time / 100) if radius is None else radius, *STATE[1:])


def rows_of(made: list[Record], largest_gap: float = 1.8) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Return the rows, and the number of records that begin none by reason."""
    array = np.frombuffer(droplet_traces.pack(made), dtype=traces.TRACE_RECORD)
    rows, lost, _ = traces.make_rows(array, largest_gap)
    return rows, dict(zip(traces.REASONS, lost.tolist(), strict=True))


def summary(rows: dict[str, np.ndarray]) -> list[tuple[int, float, int]]:
    columns = (rows["particle"], rows["start_time"].astype(float).round(3), rows["begins"])
    return [(int(particle), float(time), int(begins)) for particle, time, begins in zip(*columns, strict=True)]


def test_records_in_any_order_become_steps_by_particle_and_time() -> None:
    made = [record(particle, 0.5 * step) for step in range(4) for particle in (9, 2)]
    shuffled = [made[index] for index in np.random.default_rng(1).permutation(len(made))]
    rows, lost = rows_of(shuffled)
    assert summary(rows) == [(2, 0, 1), (2, 0.5, 0), (2, 1, 0), (9, 0, 1), (9, 0.5, 0), (9, 1, 0)]
    np.testing.assert_allclose(rows["time"], 0.5)
    np.testing.assert_array_equal(rows["radius"][:2], rows["initial_radius"][1:3])
    np.testing.assert_allclose(rows["radius"], 1e-6 * (1 + (rows["start_time"] + 0.5) / 100), rtol=1e-6)
    assert lost == {**dict.fromkeys(traces.REASONS, 0), "last of a particle": 2}


def test_a_gap_gives_no_row_and_a_new_piece() -> None:
    times = [0, 1, 2, 3, 5, 6, 7.7]
    rows, lost = rows_of([record(1, time) for time in times])
    assert summary(rows) == [(1, 0, 1), (1, 1, 0), (1, 2, 0), (1, 5, 1), (1, 6, 0)]
    assert (lost["followed by a gap"], lost["last of a particle"]) == (1, 1)
    assert rows_of([record(1, time) for time in times], largest_gap=2)[1]["followed by a gap"] == 0


def test_the_usual_step_is_that_of_each_particle() -> None:
    made = [record(1, 0.1 * step) for step in range(5)] + [record(2, 10.0 * step) for step in range(5)]
    assert rows_of(made)[1]["followed by a gap"] == 0


@pytest.mark.parametrize(("status", "is_failed"), [(1, True), (8, True), (16 | 64, True), (2, False), (4 | 128, False)])
def test_a_failed_step_gives_no_row(status: int, is_failed: bool) -> None:
    made = [record(1, time, status=status if time == 1 else 64) for time in range(4)]
    rows, lost = rows_of(made)
    assert lost["failed"] == is_failed
    assert summary(rows) == ([(1, 0, 1), (1, 2, 1)] if is_failed else [(1, 0, 1), (1, 1, 0), (1, 2, 0)])


def test_repeated_and_impossible_records_are_left_out() -> None:
    made = [record(1, time) for time in range(6)] + [record(1, 2, radius=5e-5), record(1, 6, radius=-1)]
    made[4] = record(1, 4, radius=float("nan"))
    rows, lost = rows_of(made)
    assert summary(rows) == [(1, 0, 1), (1, 1, 0), (1, 2, 0)]
    assert rows["radius"].max() < 2e-6, "the first of two records at the same time counts"
    assert (lost["repeated"], lost["impossible"], lost["followed by a gap"]) == (1, 2, 1)


def test_every_record_is_counted_once() -> None:
    random = np.random.default_rng(3)
    made = [
        record(int(p), float(t), status=int(s), radius=-1.0 if bad else None)
        for p, t, s, bad in zip(random.integers(0, 5, 400), random.integers(0, 60, 400), random.choice([0, 8], 400),
                                random.random(400) < 0.1, strict=True)
    ]  # fmt: skip
    rows, lost = rows_of(made)
    assert len(rows["time"]) + sum(lost.values()) == 400
    assert all(lost.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the trace of 7 particles as two files; the particles of the second half of the steps change files."""
    folder, made = tmp_path_factory.mktemp("traces"), droplet_traces.simulate(7, 30, 0.1)
    halves = made[:15], made[15:]
    for name, ranges in (("a", (slice(0, 3), slice(4, 7))), ("b", (slice(3, 7), slice(0, 4)))):
        parts = []
        for half, chosen in zip(halves, ranges, strict=True):
            droplet_traces.write(folder / name, half[:, chosen], first=chosen.start)
            parts.append((folder / name).read_bytes())
        (folder / name).write_bytes(b"".join(parts))
    return folder


def import_trace(folder: Path, path: Path, **values: object) -> dict[str, np.ndarray]:
    files = [str(folder / name) for name in ("a", "b")]
    config = build(DropletsImportConfig, [Layer("test", {"files": files, "block_size": 64, **values})])
    assert records.import_files(config, Output(path), ALONE)
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file if name != "blocks"} | {"ledger": file["blocks"][()]}


def test_a_trace_comes_back_from_the_store(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found, made = import_trace(folder, tmp_path / "s.h5"), droplet_traces.simulate(7, 30, 0.1)
    before, after = made[:-1].transpose(1, 0, 2).reshape(-1, 7), made[1:].transpose(1, 0, 2).reshape(-1, 7)
    names = (
        "start_time", "initial_radius", "initial_temperature", "salinity", "air_temperature", "relative_humidity",
        "air_density",
    )  # fmt: skip
    for column, name in enumerate(names):
        np.testing.assert_array_equal(found[name], before[:, column], err_msg=name)
    np.testing.assert_array_equal(found["radius"], after[:, 1])
    np.testing.assert_array_equal(found["temperature"], after[:, 2])
    np.testing.assert_array_equal(found["particle"], np.repeat(np.arange(7), 29))
    np.testing.assert_array_equal(np.flatnonzero(found["begins"]), 29 * np.arange(7))
    assert verify(tmp_path / "s.h5", ALONE).problems == ()
    assert (
        "210 records of 7 particles give 203 steps; records without a step: 7 last of a particle"
        in capfd.readouterr().err
    )
    text = inspect(tmp_path / "s.h5")
    assert "kind: trace" in text
    assert "salinity_kind: solute-term" in text
    assert '"steps": 203' in text


def test_rows_do_not_depend_on_the_size_of_groups(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = import_trace(folder, tmp_path / "whole.h5")
    monkeypatch.setattr(traces, "GROUP_RECORDS", 65)
    monkeypatch.setattr(traces, "CHUNK_RECORDS", 11)
    assert len(traces.split_particles(np.arange(7), np.full(7, 30))) == 4
    parts = import_trace(folder, tmp_path / "parts.h5")
    for name in whole.keys() - {"ledger"}:
        np.testing.assert_array_equal(whole[name], parts[name])
    np.testing.assert_array_equal(whole["ledger"]["crc32c"], parts["ledger"]["crc32c"])


def test_the_ledger_has_the_extremes_of_each_block(folder: Path, tmp_path: Path) -> None:
    found = import_trace(folder, tmp_path / "s.h5")
    np.testing.assert_array_equal(found["ledger"]["lowest"][1, 0], found["initial_radius"][64:128].min())
    np.testing.assert_array_equal(found["ledger"]["highest"][:, 6].max(), found["time"].max())


def test_traces_without_a_step_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(droplet_traces.pack([record(particle, 1) for particle in range(5)]))
    config = build(DropletsImportConfig, [Layer("test", {"files": [str(tmp_path / "a")]})])
    with pytest.raises(InputError, match="the traces have no step: 5 last of a particle"):
        records.import_files(config, Output(tmp_path / "s.h5"), ALONE)
    assert not list(tmp_path.glob("s.h5*"))
