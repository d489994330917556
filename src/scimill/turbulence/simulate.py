"""Simulating turbulence: initial states to solver to store, one snapshot per block."""

import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from scimill.campaign import describe_plan
from scimill.config import from_stored
from scimill.errors import ConfigError, NumericalError, Stopped
from scimill.parallel.report import Progress
from scimill.parallel.world import Stop, World
from scimill.store.layout import Layout
from scimill.store.output import RESUME, Output
from scimill.store.writer import BlockData, Writer
from scimill.turbulence import CAMPAIGN, fields
from scimill.turbulence.exchange import states
from scimill.turbulence.kernels import diagnostics
from scimill.turbulence.kernels.equations import FlowPhysics
from scimill.turbulence.kernels.slabs import most_ranks
from scimill.turbulence.kernels.solver import Diverged, FlowSolver
from scimill.turbulence.params import SimulateConfig
from scimill.turbulence.snapshots import physics, read_state

Grid = NDArray[np.floating]
Row = dict[str, float]
MakeSolver = Callable[[SimulateConfig, World], FlowSolver]

STEP_RATE = 0.8e-7  # s per point and step on one core at 1024² and float64, for --dry-run; see benchmarks/turbulence.py


def solver_of(config: SimulateConfig, team: World | None = None) -> FlowSolver:
    """Return the solver that a configuration describes."""
    longest = config.longest_step if config.longest_step is not None else float("inf")
    return FlowSolver(
        physics(config), config.points, config.scheme, config.precision, team,
        courant=config.courant, longest_step=longest,
    )  # fmt: skip


def simulate(
    config: SimulateConfig, output: Output, world: World, make_solver: MakeSolver = solver_of, maker: str = "simulate"
) -> bool:
    """Simulate into a store; collective. Return False where it was complete already.

    Parameters
    ----------
    config, output, world : what is run, where it goes, the ranks.
    make_solver : makes the solver of a team of ranks.
    maker : what the store is recorded as made by.

    Raises
    ------
    Stopped : before the walltime or on a signal; run again with ``resume``.
    NumericalError : the state holds values that are no numbers, or a step is too long.
    ScimillError : see `store.writer.open_writer` and `states.initial`.

    """
    teams = min(config.members, world.size)
    world.on_root(check, config, world.size // teams)
    stop = Stop(world, config.walltime, config.walltime_margin)
    writer = CAMPAIGN.open(config, layout(config), output, world, stop, maker=maker)
    if writer is None:
        return False
    compile_kernels(config, world)
    mine = range(world.team_number(teams), config.members, teams)
    team = world.teams(teams)
    _run(TeamRun(config, writer, team, make_solver(config, team)), world, mine, stop)
    reason = stop.finish()
    complete = writer.finish()
    stop.restore()
    if not complete:
        world.fail(Stopped(f"stopped by {reason}; all done snapshots are kept", remedy=RESUME))
    return True


def remake(config: str, output: Output, world: World) -> bool:
    """Simulate by a stored configuration; see `simulate`."""
    return simulate(from_stored(SimulateConfig, config), output, world)


def layout(config: SimulateConfig) -> Layout:
    """Structure of the store that a configuration makes."""
    return fields.layout(config.points, config.snapshots + 1, config.members, config.samples, config.precision)


def check(config: SimulateConfig, ranks: int) -> None:
    """Refuse an initial state that cannot be had, and more ranks than a field can be dealt to."""
    most = most_ranks(config.points)
    if ranks > most:
        what = f"{ranks} ranks for each member, more than {config.points} points can be dealt to"
        raise ConfigError(what, allowed=f"at most {most} for each member", remedy="take fewer ranks, or more members")
    states.initial(config, 0, slice(0, 1))


def compile_kernels(config: SimulateConfig, world: World) -> None:
    """Compile on rank 0, so that the other ranks find the result in the cache."""

    def compiled() -> None:
        small = FlowSolver(FlowPhysics(hyperviscosity=1e-9, order=2), 16, config.scheme, config.precision)
        small.load(np.zeros((16, 16)), np.zeros((16, 16)))
        small.step(1e-3)
        small.diagnose()

    world.on_root(compiled)
    compiled()


def _run(run: "TeamRun", world: World, mine: range, stop: Stop) -> None:
    """Make this team's pending snapshots, in the order of time, until done or asked to stop."""
    writer, team = run.writer, run.team
    progress = Progress(
        writer.layout.rows, initial=writer.rows_done(), unit="snapshots", what="turbulence", enabled=world.is_root
    )
    per_member = run.config.snapshots + 1
    pending = [block for block in writer.pending.tolist() if block // per_member in mine]
    for block in pending:
        if any(team.gather_all(stop.requested())):
            break
        started = time.monotonic()
        run.make(block // per_member, block % per_member, started)
        stop.record_block_time(time.monotonic() - started)
        if progress.due():
            progress.update(writer.rows_done())
    if world.is_root:
        progress.update(writer.rows_done())
    progress.close()


class TeamRun:
    """A solver and the store that it fills, one team's.

    Parameters
    ----------
    config, writer, team : what is run, where it goes, the ranks that share a field.
    solver : theirs.

    """

    def __init__(self, config: SimulateConfig, writer: Writer, team: World, solver: FlowSolver) -> None:
        self.config, self.writer, self.team = config, writer, team
        self._solver = solver
        self._rows = slice(*self._solver.rows)
        self._at: tuple[int, int] | None = None
        self._beginning = 0.0

    def make(self, member: int, snapshot: int, started: float) -> None:
        """Make and write a snapshot of a member. Collective among the team."""
        before = self._solver.steps
        if snapshot == 0:
            density, vorticity, self._beginning = states.initial(self.config, member, self._rows)
            density, vorticity = (field.astype(self.config.precision) for field in (density, vorticity))
            self._solver.load(density, vorticity, self._beginning)
            samples = [self._sample()]
        else:
            if self._at != (member, snapshot - 1):
                self._continue(member, snapshot - 1)
            samples = list(self._samples(snapshot))
            density, vorticity = self._solver.fields()
        # What is stored is what the run goes on from, so that a run which is resumed here has the same bits.
        self._solver.load(density, vorticity, samples[-1]["time"])
        self._write(member, snapshot, (density, vorticity), samples, self._solver.steps - before, started)
        self._at = (member, snapshot)

    def _continue(self, member: int, snapshot: int) -> None:
        """Load a snapshot that was written before."""
        row = member * (self.config.snapshots + 1) + snapshot
        reader = self.writer.reader()
        self._beginning = float(reader.file["time"][row - snapshot])  # not from this one's: a difference would round
        self._solver.load(*read_state(reader, row, self._rows), self._time(snapshot))

    def _time(self, snapshot: float) -> float:
        return self._beginning + snapshot * self.config.interval

    def _samples(self, snapshot: int) -> Iterator[Row]:
        """Advance to a snapshot, and yield the diagnostics on the way."""
        count = self.config.samples
        for sample in range(1, count + 1):
            try:
                self._solver.advance(self.config.interval / count, self.config.step)
                self._solver.time = self._time(snapshot - 1 + sample / count)
                yield self._sample()
            except Diverged as failure:
                raise self._failed(failure, snapshot) from None

    def _failed(self, failure: Diverged, snapshot: int) -> NumericalError:
        return NumericalError(
            f"{failure}",
            where=f"rank {self.team.rank} of the {self.team.size} of this member, before snapshot {snapshot}",
            remedy="a smaller --step or --courant, more --points or more diffusion; snapshots before it are kept",
        )

    def _sample(self) -> Row:
        """Measure the state. Collective among the team."""
        means = self._solver.diagnose()
        residuals = {"energy_residual": means.energy_residual, "enstrophy_residual": means.enstrophy_residual}
        step = self._solver.last_step
        numbers = {"time": self._solver.time, "step": step, "courant": step * self._solver.speed()}
        return means.values | residuals | numbers

    def _write(
        self, member: int, snapshot: int, state: tuple[Grid, Grid], samples: list[Row], steps: int, started: float
    ) -> None:
        spectra = zip(diagnostics.SPECTRA, self._solver.spectra(), strict=True)
        values: dict[str, NDArray[np.generic]] = {name: spectrum[None] for name, spectrum in spectra}
        values |= {name: field[None] for name, field in zip(fields.STATE, state, strict=True)}
        values |= {"time": np.array([samples[-1]["time"]]), "member": np.array([member])}
        table: dict[str, NDArray[np.generic]] = {name: np.array([row[name] for row in samples]) for name in samples[0]}
        table["member"] = np.full(len(samples), member)
        data = BlockData(values, {"diagnostics": table}, {"steps": steps}, fields.STATE)
        row = member * (self.config.snapshots + 1) + snapshot
        self.writer.write_shared(row, data, self._rows.start, self.team, started)


def describe_simulation(
    config: SimulateConfig, output: Output, ranks: int, more: Mapping[str, str] | None = None
) -> str:
    """Say what simulating would do, for ``--dry-run``, after checking the initial state."""
    teams = min(config.members, ranks)
    check(config, ranks // teams)
    rows = {
        "grid": f"{config.points} x {config.points}, box {config.box:g}, {config.scheme}, {config.precision}",
        "begin": f"{config.from_}, snapshot {config.snapshot}" if config.from_ else f"noise, seed {config.seed}",
        "snapshots": f"{config.snapshots + 1:,} of {config.members} members, every {config.interval:g}",
        "ranks": f"{ranks}, in teams of {ranks // teams} for each member",
        "time": f"about {STEP_RATE * config.points**2:.2g} core seconds per step",
    }
    return describe_plan(output, layout(config), {**rows, **(more or {})})
