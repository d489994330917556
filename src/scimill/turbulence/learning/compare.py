"""Does a correction help? Compare corrected, uncorrected and finer runs with the truth.

The truth is a fine run that the model was not trained on, filtered to what the coarse grid resolves. The cost is the
CPU time of stepping, including inference. The finer run has the largest grid that costs no more per unit of time than
the corrected run: the baseline that a correction must beat.
"""

import contextlib
import csv
import dataclasses
import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy.fft import next_fast_len

from scimill.errors import ConfigError, InputError
from scimill.files import replacing
from scimill.parallel.report import Progress
from scimill.parallel.world import World
from scimill.pictures import make_folder
from scimill.turbulence.kernels.resemblance import flux, measure_agreement, resample, spectrum
from scimill.turbulence.kernels.solver import DivergenceError, FlowSolver
from scimill.turbulence.learning.comparison import (
    CORRECTED,
    DIVERGED,
    FINER,
    RUNS,
    UNCORRECTED,
    Comparison,
    Numbers,
    RunAverages,
    Start,
    TrackedRun,
)
from scimill.turbulence.learning.models import Correction, open_correction
from scimill.turbulence.learning.network import CorrectionNetworkSpec
from scimill.turbulence.learning.rollout import CorrectedSolver, check_physics
from scimill.turbulence.params import CompareConfig
from scimill.turbulence.snapshots import Snapshots, open_snapshots, physics

T = TypeVar("T")
MEASURED_STEPS = 10
"""Coarse steps over which a cost is measured."""
COST_STARTS = 4
"""Starts from which a cost is measured."""
COST_CUTOFF = 1.5
"""Cost, relative to the limit, above which no larger grid is tried."""
COURANT = 1.0
"""Courant number of the finer run, the default of ``turbulence simulate``."""


@dataclasses.dataclass(frozen=True)
class CandidateRun:
    """A run to compare: a solver, and its longest step."""

    name: str
    solver: FlowSolver
    step: float | None
    """longest step; follows from the Courant number if None"""

    def load(self, state: Numbers) -> None:
        """Start from density and vorticity on any grid, shape (2, x, y)."""
        self.solver.load(*resample(state, self.solver.points))

    def advance(self, duration: float) -> float:
        """Advance, and return the CPU time in seconds."""
        started = time.process_time()
        self.solver.advance(duration, self.step)
        return time.process_time() - started

    def state(self, points: int) -> Numbers:
        """Return density and vorticity on a grid, shape (2, points, points)."""
        return resample(np.stack(self.solver.fields()), points)


def compare(config: CompareConfig, truth: Path, folder: Path, world: World) -> str:
    """Compare the runs and write errors.csv, summary.csv, statistics.csv and pictures; collective.

    Parameters
    ----------
    config : the model, and what to compare.
    truth : a fine run that the model was not trained on.
    folder : directory for tables and pictures.
    world : the ranks, which share the starts.

    Returns
    -------
    The summary as a table.

    Raises
    ------
    InputError : the model or the truth is missing, or the truth has other physics, is too coarse or too short.
    ConfigError : the snapshots of the truth do not match the duration or the coarse step.
    """
    world.on_root(make_folder, folder)
    with world.together():
        correction = open_correction(config.model, world.rank)
    try:
        with open_snapshots(truth, check=world.is_root) as store:
            with world.together():
                check_physics(correction.spec, store, config.model)
                reference = Truth(store, correction.spec)
            found = _measure(config, reference, correction, world)
    finally:
        correction.close()
    return world.on_root(_write, found, folder)


class Truth:
    """The fine run, filtered to what the coarse grid resolves.

    Parameters
    ----------
    store : its snapshots.
    spec : spec of the model.

    Raises
    ------
    InputError : its grid is coarser than the coarse grid.
    ConfigError : the time between its snapshots is not a multiple of the coarse step.
    """

    def __init__(self, store: Snapshots, spec: CorrectionNetworkSpec) -> None:
        self.store, self.spec = store, spec
        if store.points < spec.points:
            allowed = f"at least {spec.points} points along each side"
            what = f"the truth has only {store.points} points along each side"
            raise InputError(what, where=str(store.reader.path), allowed=allowed)
        self.interval = float(np.diff(store.times[0]).mean())
        self.steps = round(self.interval / spec.step)
        if not self.steps or not np.isclose(self.steps * spec.step, self.interval, rtol=1e-6):
            raise ConfigError(
                f"the snapshot interval {self.interval:g} is not a multiple of the coarse step {spec.step:g}",
                where=str(store.reader.path), remedy="simulate a truth with a matching --interval",
            )  # fmt: skip

    def unfiltered(self, start: Start) -> Numbers:
        """Return density and vorticity on the grid of the truth, shape (2, x, y)."""
        return np.stack(self.store.read(start.snapshot, start.member)).astype(np.float64)

    def filtered(self, start: Start) -> Numbers:
        """Return density and vorticity filtered to the coarse grid, shape (2, points, points)."""
        return resample(self.unfiltered(start), self.spec.points)

    def starts(self, count: int, frames: int) -> list[Start]:
        """Return starts that have `frames` later snapshots, evenly spread over members and time.

        Raises
        ------
        InputError : the run is too short.
        """
        last = self.store.count - 1 - frames
        if last < 0:
            raise InputError(
                f"the comparison needs {frames} snapshots after the first, but the truth has {self.store.count - 1}",
                where=str(self.store.reader.path),
                remedy="reduce --duration or --statistics, or simulate a longer truth",
            )  # fmt: skip
        members = self.store.members
        per_member = -(-count // members)
        places = np.rint(np.linspace(0, last, per_member)).astype(int).tolist() if per_member > 1 else [0]
        return [Start(member, place) for place in places for member in range(members)][:count]


def _measure(config: CompareConfig, truth: Truth, correction: Correction, world: World) -> Comparison:
    frames, lasting = (round(span / truth.interval) for span in (config.duration, config.statistics))
    with world.together():
        if not frames:
            raise ConfigError(
                f"--duration {config.duration:g} is shorter than the snapshot interval of the truth, {truth.interval:g}"
            )
        starts = truth.starts(config.starts, frames)
        truth.starts(1, lasting)
    runs = _make_runs(truth, correction, starts, world)
    with contextlib.closing(Progress(len(starts), unit="starts", what="compare", enabled=world.is_root)) as progress:
        followed = _share_work(lambda start: _track(runs, truth, start, frames), starts, world, progress)
    members = [Start(member, 0) for member in range(truth.store.members)] if lasting else []
    with contextlib.closing(
        Progress(len(members), unit="members", what="statistics", enabled=world.is_root)
    ) as progress:
        averaged = _share_work(lambda start: _average(runs, truth, start, lasting), members, world, progress)
    return Comparison(
        correction.spec, {run.name: run.solver.points for run in runs},
        truth.interval * np.arange(1.0, frames + 1), starts,
        {run.name: [each[run.name] for each in followed] for run in runs},
        {name: [each[name] for each in averaged] for name in ("truth", *RUNS)} if averaged else {},
        truth.interval, config.correlation, truth.store.points,
        world.on_root(lambda: _cost(_finer_run(truth, truth.store.points), truth, starts)),
    )  # fmt: skip


def _make_runs(truth: Truth, correction: Correction, starts: Sequence[Start], world: World) -> list[CandidateRun]:
    """Make all runs to compare; rank 0 chooses the grid of the finer one. Collective."""
    spec = truth.spec
    equations = physics(dict(spec.physics))
    plain = FlowSolver(equations, spec.points, spec.scheme)  # type: ignore[arg-type]
    uncorrected = CandidateRun(UNCORRECTED, plain, spec.step / spec.substeps)
    corrected = CandidateRun(CORRECTED, CorrectedSolver(spec, correction.model), None)
    points = world.on_root(_find_equal_cost_grid, corrected, truth, starts)
    return [uncorrected, corrected, _finer_run(truth, points)]


def _finer_run(truth: Truth, points: int) -> CandidateRun:
    solver = FlowSolver(physics(dict(truth.spec.physics)), points, "spectral", courant=COURANT)
    return CandidateRun(FINER, solver, None)


def _find_equal_cost_grid(corrected: CandidateRun, truth: Truth, starts: Sequence[Start]) -> int:
    """Return the points of the largest grid below that of the truth that costs no more than the corrected run."""
    coarse = truth.spec.points
    limit = _cost(corrected, truth, starts)
    grids = [n for n in range(coarse + 2, truth.store.points, 2) if next_fast_len(n, real=True) == n]
    chosen = min([*grids, truth.store.points])
    for points in grids:
        cost = _cost(_finer_run(truth, points), truth, starts)
        if cost <= limit:
            chosen = points
        if cost > COST_CUTOFF * limit:
            break
    return chosen


def _cost(run: CandidateRun, truth: Truth, starts: Sequence[Start]) -> float:
    """Return CPU seconds per unit of time, averaged over some starts: a faster flow needs shorter steps."""
    duration, some = MEASURED_STEPS * truth.spec.step, starts[:: -(-len(starts) // COST_STARTS)]
    costs = []
    for start in (starts[0], *some):  # the first run compiles
        run.load(truth.unfiltered(start))
        try:
            costs.append(run.advance(duration) / duration)
        except DivergenceError:
            costs.append(float("inf"))
    return float(np.mean(costs[1:]))


def _share_work(work: Callable[[Start], T], items: Sequence[Start], world: World, progress: Progress) -> list[T]:
    """Share the work on all items among the ranks; return all results on all ranks. Collective."""
    mine: list[T] = []
    for item in items[world.rank :: world.size]:
        mine.append(work(item))
        progress.update(min(len(items), len(mine) * world.size))
    found: list[T] = [None] * len(items)  # type: ignore[list-item]
    for rank, part in enumerate(world.gather_all(mine)):
        found[rank :: world.size] = part
    return found


def _states(run: CandidateRun, truth: Truth, start: Start, frames: int) -> Iterator[tuple[Numbers | None, float]]:
    """Run from a start; yield the state at each snapshot time (None after it has diverged) and its CPU time."""
    run.load(truth.unfiltered(start) if run.name == FINER else truth.filtered(start))
    try:
        for frame in range(frames):
            cpu = run.advance(truth.interval)
            state = run.state(truth.spec.points)
            if not np.isfinite(state).all():
                raise DivergenceError("NaN or infinite values", run.solver.steps, frame * truth.interval)
            yield state, cpu
    except DivergenceError:
        while True:
            yield None, 0.0


def _track(runs: Sequence[CandidateRun], truth: Truth, start: Start, frames: int) -> dict[str, TrackedRun]:
    """Measure the errors of all runs from a start."""
    found = {}
    for run in runs:
        agreements, cpu = [], 0.0
        states = _states(run, truth, start, frames)
        for frame in range(1, frames + 1):
            state, seconds = next(states)
            there = truth.filtered(Start(start.member, start.snapshot + frame))
            agreements.append(DIVERGED if state is None else measure_agreement(state, there))
            cpu += seconds
        found[run.name] = TrackedRun(agreements, cpu)
    return found


def _average(runs: Sequence[CandidateRun], truth: Truth, start: Start, frames: int) -> dict[str, RunAverages]:
    """Average fluxes and spectra of the truth and of all runs from a start."""
    there = (truth.filtered(Start(start.member, start.snapshot + frame)) for frame in range(1, frames + 1))
    found = {"truth": _average_states(there, truth.spec.box)}
    for run in runs:
        states = (state for _, (state, _) in zip(range(frames), _states(run, truth, start, frames), strict=False))
        found[run.name] = _average_states(states, truth.spec.box)
    return found


def _average_states(states: Iterator[Numbers | None], box: float) -> RunAverages:
    fluxes, spectra = [], []
    for state in states:
        fluxes.append(np.nan if state is None else flux(state, box))
        if state is not None:
            spectra.append(spectrum(state[1]))
    return RunAverages(fluxes, np.mean(spectra, axis=0) if spectra else np.zeros(1))


# ---- tables ------------------------------------------------------------------------------------------------------

SUMMARY_COLUMNS = (
    "run", "points", "cpu_seconds_per_time", "time", "density_error", "vorticity_error", "vorticity_error_spread",
    "last_vorticity_error", "horizon", "horizon_spread", "flux", "flux_of_truth",
)  # fmt: skip
SUMMARY_TIME = 2.0  # time of the errors in the summary


def _write(found: Comparison, folder: Path) -> str:
    from scimill.turbulence.pictures import comparison_plots

    _write_csv(folder / "errors.csv", ERROR_COLUMNS, _error_rows(found))
    _write_csv(folder / "summary.csv", SUMMARY_COLUMNS, summary_rows(found))
    if found.averaged:
        _write_csv(folder / "statistics.csv", STATISTICS_COLUMNS, _statistic_rows(found))
    comparison_plots.plot(found, folder)
    return describe_comparison(found)


ERROR_COLUMNS = ("run", "start", "member", "snapshot", "time", "density_error", "vorticity_error", "correlation")
STATISTICS_COLUMNS = ("run", "member", "time", "flux")


def _error_rows(found: Comparison) -> Iterator[tuple[object, ...]]:
    for run in RUNS:
        for number, (start, each) in enumerate(zip(found.starts, found.followed[run], strict=True)):
            for moment, agreement in zip(found.times, each.agreements, strict=True):
                yield (run, number, start.member, start.snapshot, float(moment), *agreement)


def _statistic_rows(found: Comparison) -> Iterator[tuple[object, ...]]:
    for run, members in found.averaged.items():
        for member, each in enumerate(members):
            for frame, value in enumerate(each.flux, start=1):
                yield (run, member, frame * found.interval, value)


def summary_rows(found: Comparison) -> list[Any]:
    """Return the rows of the summary, with columns `SUMMARY_COLUMNS`."""
    at = int(np.argmin(np.abs(found.times - SUMMARY_TIME)))
    rows = []
    for run in RUNS:
        measures, horizons = found.measures(run), found.horizons(run)
        errors = measures[:, at, 1]
        rows.append((
            run, found.points[run], found.cost(run), float(found.times[at]), float(measures[:, at, 0].mean()),
            float(errors.mean()), float(errors.std()), float(measures[:, -1, 1].mean()), float(horizons.mean()),
            float(horizons.std()), found.mean_flux(run), found.mean_flux("truth"),
        ))  # fmt: skip
    return rows


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[tuple[object, ...]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([f"{value:.8g}" if isinstance(value, float) else value for value in row] for row in rows)
    with replacing(path, "table") as part:
        part.write_text(text.getvalue(), "utf-8")


def describe_comparison(found: Comparison) -> str:
    """Describe the summary as a table."""
    rows = summary_rows(found)
    moment, end = rows[0][3], float(found.times[-1])
    lines = [
        f"starts: {len(found.starts)}; truth: {found.truth_points}², {found.truth_cost:.3g} CPU s per unit of time, "
        f"filtered to {found.spec.points}²",
        f"{'run':<12}{'grid':>6}{'CPU s/time':>12}{f'error n t={moment:.3g}':>16}{f'error ω t={moment:.3g}':>22}"
        f"{f't={end:.3g}':>9}{f'horizon (ω ≥ {found.threshold:g})':>22}"
        + (f"{'Γn':>9}{'/ truth':>10}" if found.averaged else ""),
    ]
    for run, points, cost, _, density, error, spread, last, horizon, horizon_spread, mean, truth in rows:
        lines.append(
            f"{run:<12}{f'{points}²':>6}{cost:>12.3g}{density:>16.3g}{f'{error:.3f} ± {spread:.3f}':>22}{last:>9.3f}"
            f"{f'{horizon:.2f} ± {horizon_spread:.2f}':>22}"
            + (f"{mean:>9.4f}{mean / truth:>10.3f}" if found.averaged else "")
        )
    base, better, finer = (np.array(row[5:9:3], dtype=float) for row in rows)
    lines.append(
        f"relative to uncorrected: corrected error ω {better[0] / base[0]:.2f}, horizon {better[1] / base[1]:.2f}; "
        f"finer error ω {finer[0] / base[0]:.2f}, horizon {finer[1] / base[1]:.2f}"
    )
    if found.truth_cost <= found.cost(CORRECTED):
        lines.append("the truth's own grid costs no more than the corrected run: at this size a correction cannot help")
    return "\n".join(lines)
