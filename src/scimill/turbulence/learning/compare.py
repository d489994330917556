"""Whether a correction helps: corrected and uncorrected coarse runs, and a finer run of equal cost, beside the truth.

The truth is a fine run that the model was not trained on, filtered to what the coarse grid resolves. The costs are CPU
time of the stepping, inference included. The finer run has the largest grid whose cost per unit of time is not above
that of the corrected run: the baseline that a correction must beat.
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
    RunAverages,
    Comparison,
    TrackedRun,
    Numbers,
    Start,
)
from scimill.turbulence.learning.models import Correction, open_correction
from scimill.turbulence.learning.network import CorrectionNetworkSpec
from scimill.turbulence.learning.rollout import CorrectedSolver, check_physics
from scimill.turbulence.params import CompareConfig
from scimill.turbulence.snapshots import Snapshots, open_snapshots, physics

T = TypeVar("T")
MEASURED_STEPS = 10
"""Coarse steps that a cost is measured over."""
COST_STARTS = 4
"""Starts that a cost is measured from."""
COST_CUTOFF = 1.5
"""Cost, relative to the limit, above which no larger grid is tried."""
COURANT = 1.0
"""Courant number of the finer run, the default of ``turbulence simulate``."""


@dataclasses.dataclass(frozen=True)
class CandidateRun:
    """One way to run: a solver, and how it takes a coarse step's time."""

    name: str
    solver: FlowSolver
    step: float | None
    """longest step; chosen by the Courant number where None"""

    def load(self, state: Numbers) -> None:
        """Begin from density and vorticity on any grid, shape (2, x, y)."""
        self.solver.load(*resample(state, self.solver.points))

    def advance(self, duration: float) -> float:
        """Advance, and return the CPU time that it took."""
        started = time.process_time()
        self.solver.advance(duration, self.step)
        return time.process_time() - started

    def state(self, points: int) -> Numbers:
        """Density and vorticity on a grid, shape (2, points, points)."""
        return resample(np.stack(self.solver.fields()), points)


def compare(config: CompareConfig, truth: Path, folder: Path, world: World) -> str:
    """Compare, and write errors.csv, summary.csv, statistics.csv and pictures; collective.

    Parameters
    ----------
    config : the model, and what to compare.
    truth : a fine run that the model was not trained on.
    folder : where tables and pictures go.
    world : the ranks, which share the starts.

    Returns
    -------
    The table of the summary.

    Raises
    ------
    InputError : no model, no run, of other physics, too coarse or too short.
    ConfigError : the times do not fit.
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
    """The fine run, as the coarse grid resolves it.

    Parameters
    ----------
    store : its snapshots.
    spec : of the model.

    Raises
    ------
    InputError : it is no finer than the coarse grid.
    ConfigError : its snapshots do not lie on coarse steps.
    """

    def __init__(self, store: Snapshots, spec: CorrectionNetworkSpec) -> None:
        self.store, self.spec = store, spec
        if store.points < spec.points:
            allowed = f"{spec.points} points or more on each side"
            raise InputError(f"a run of {store.points} points", where=str(store.reader.path), allowed=allowed)
        self.interval = float(np.diff(store.times[0]).mean())
        self.steps = round(self.interval / spec.step)
        if not self.steps or not np.isclose(self.steps * spec.step, self.interval, rtol=1e-6):
            raise ConfigError(
                f"snapshots every {self.interval:g} do not lie on coarse steps of {spec.step:g}",
                where=str(store.reader.path), allowed="a multiple of the coarse step",
            )  # fmt: skip

    def unfiltered(self, start: Start) -> Numbers:
        """Density and vorticity as they are, shape (2, x, y)."""
        return np.stack(self.store.read(start.snapshot, start.member)).astype(np.float64)

    def filtered(self, start: Start) -> Numbers:
        """What the coarse grid resolves of them."""
        return resample(self.unfiltered(start), self.spec.points)

    def starts(self, count: int, frames: int) -> list[Start]:
        """Return starts that are followed by `frames` snapshots, evenly over members and time.

        Raises
        ------
        InputError : the run is too short.
        """
        last = self.store.count - 1 - frames
        if last < 0:
            raise InputError(
                f"the run has {self.store.count - 1} snapshots after the first, fewer than the {frames} to be followed",
                where=str(self.store.reader.path), remedy="give a smaller --duration, or simulate for longer",
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
                f"duration {config.duration:g} is below the interval of the snapshots, {truth.interval:g}"
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
    """Make all ways to run; the finer one's grid is chosen on rank 0. Collective."""
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
    """Find the largest grid on which a run costs no more than the corrected one, between its grid and the truth's."""
    coarse = truth.spec.points
    limit = _cost(corrected, truth, starts)
    grids = [n for n in range(coarse + 2, truth.store.points + 1, 2) if next_fast_len(n, real=True) == n]
    chosen = min([*grids, truth.store.points])
    for points in grids:
        cost = _cost(_finer_run(truth, points), truth, starts)
        if cost <= limit:
            chosen = points
        if cost > COST_CUTOFF * limit:
            break
    return chosen


def _cost(run: CandidateRun, truth: Truth, starts: Sequence[Start]) -> float:
    """CPU seconds per unit of time, over some of the starts: a faster flow takes shorter steps."""
    duration, some = MEASURED_STEPS * truth.spec.step, starts[:: -(-len(starts) // COST_STARTS)]
    costs = []
    for start in (starts[0], *some):  # the first one compiles
        run.load(truth.unfiltered(start))
        try:
            costs.append(run.advance(duration) / duration)
        except DivergenceError:
            costs.append(float("inf"))
    return float(np.mean(costs[1:]))


def _share_work(work: Callable[[Start], T], items: Sequence[Start], world: World, progress: Progress) -> list[T]:
    """Do the work of all items, every size-th on this rank, and return all results on all ranks. Collective."""
    mine: list[T] = []
    for item in items[world.rank :: world.size]:
        mine.append(work(item))
        progress.update(min(len(items), len(mine) * world.size))
    found: list[T] = [None] * len(items)  # type: ignore[list-item]
    for rank, part in enumerate(world.gather_all(mine)):
        found[rank :: world.size] = part
    return found


def _states(run: CandidateRun, truth: Truth, start: Start, frames: int) -> Iterator[tuple[Numbers | None, float]]:
    """Run from a start; yield the state at each snapshot's time, None once it has broken down, and its CPU time."""
    run.load(truth.unfiltered(start) if run.name == FINER else truth.filtered(start))
    try:
        for frame in range(frames):
            cpu = run.advance(truth.interval)
            state = run.state(truth.spec.points)
            if not np.isfinite(state).all():
                raise DivergenceError("values that are no numbers", run.solver.steps, frame * truth.interval)
            yield state, cpu
    except DivergenceError:
        while True:
            yield None, 0.0


def _track(runs: Sequence[CandidateRun], truth: Truth, start: Start, frames: int) -> dict[str, TrackedRun]:
    """Errors of all runs from a start."""
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
    """Fluxes and spectra of the truth and all runs, from a start on."""
    there = (truth.filtered(Start(start.member, start.snapshot + frame)) for frame in range(1, frames + 1))
    found = {"truth": _averaged(there, truth.spec.box)}
    for run in runs:
        states = (state for _, (state, _) in zip(range(frames), _states(run, truth, start, frames), strict=False))
        found[run.name] = _averaged(states, truth.spec.box)
    return found


def _averaged(states: Iterator[Numbers | None], box: float) -> RunAverages:
    fluxes, spectra = [], []
    for state in states:
        fluxes.append(np.nan if state is None else flux(state, box))
        if state is not None:
            spectra.append(spectrum(state[1]))
    return RunAverages(fluxes, np.mean(spectra, axis=0) if spectra else np.zeros(1))


# ---- what is written --------------------------------------------------------------------------------------------

SUMMARY_COLUMNS = (
    "run", "points", "cpu_seconds_per_time", "time", "density_error", "vorticity_error", "vorticity_error_spread",
    "last_vorticity_error", "horizon", "horizon_spread", "flux", "flux_of_truth",
)  # fmt: skip
SUMMARY_TIME = 2.0  # time at which the table has the errors


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
            for moment, agreements in zip(found.times, each.agreements, strict=True):
                yield (run, number, start.member, start.snapshot, float(moment), *agreements)


def _statistic_rows(found: Comparison) -> Iterator[tuple[object, ...]]:
    for run, members in found.averaged.items():
        for member, each in enumerate(members):
            for frame, value in enumerate(each.flux, start=1):
                yield (run, member, frame * found.interval, value)


def summary_rows(found: Comparison) -> list[Any]:
    """Rows of the summary, under `SUMMARY_COLUMNS`."""
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
    """Write the summary as a table."""
    rows = summary_rows(found)
    moment, end = rows[0][3], float(found.times[-1])
    lines = [
        f"{len(found.starts)} starts; truth {found.truth_points}², {found.truth_cost:.3g} CPU s per time, "
        f"filtered to {found.spec.points}²",
        f"{'run':<12}{'grid':>6}{'CPU s/time':>12}{f'error n t={moment:.3g}':>16}{f'error ω t={moment:.3g}':>22}"
        f"{f't={end:.3g}':>9}{f'horizon (ω ≥ {found.threshold:g})':>22}"
        + (f"{'Γn':>9}{'of truth':>10}" if found.averaged else ""),
    ]
    for run, points, cost, _, density, error, spread, last, horizon, horizon_spread, mean, truth in rows:
        lines.append(
            f"{run:<12}{f'{points}²':>6}{cost:>12.3g}{density:>16.3g}{f'{error:.3f} ± {spread:.3f}':>22}{last:>9.3f}"
            f"{f'{horizon:.2f} ± {horizon_spread:.2f}':>22}"
            + (f"{mean:>9.4f}{mean / truth:>10.3f}" if found.averaged else "")
        )
    base, better, finer = (np.array(row[5:9:3], dtype=float) for row in rows)
    lines.append(
        f"corrected: error ω {better[0] / base[0]:.2f} x, horizon {better[1] / base[1]:.2f} x of uncorrected; "
        f"finer of equal cost: {finer[0] / base[0]:.2f} x, {finer[1] / base[1]:.2f} x"
    )
    return "\n".join(lines)
