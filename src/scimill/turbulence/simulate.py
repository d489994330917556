"""Simulation of turbulence: from initial states through the solver to a store, one snapshot per block."""

import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from scimill.campaign import describe_plan
from scimill.config import from_stored, with_values
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
from scimill.turbulence.kernels.fourier import choose_library
from scimill.turbulence.kernels.slabs import max_ranks
from scimill.turbulence.kernels.solver import DivergenceError, FlowSolver
from scimill.turbulence.params import SimulateConfig
from scimill.turbulence.snapshots import physics, read_state

Grid = NDArray[np.floating]
Row = dict[str, float]
SolverFactory = Callable[[SimulateConfig, World], FlowSolver]

STEP_RATE = 0.8e-7  # s per point and step on one core at 1024² in float64, for --dry-run; see benchmarks/turbulence.py


def build_solver(config: SimulateConfig, team: World | None = None) -> FlowSolver:
    """Return the solver that a configuration describes."""
    longest = config.longest_step if config.longest_step is not None else float("inf")
    return FlowSolver(
        physics(config), config.points, config.scheme, config.precision, team,
        courant=config.courant, longest_step=longest, fft=config.fft,
    )  # fmt: skip


def simulate(
    config: SimulateConfig, output: Output, world: World,
    make_solver: SolverFactory = build_solver, maker: str = "simulate",
) -> bool:  # fmt: skip
    """Simulate into a store; collective. Return False if it was already complete.

    Parameters
    ----------
    config, output, world : what to simulate, where to write it, the ranks.
    make_solver : makes the solver of a team of ranks.
    maker : name stored as the origin of the store.

    Raises
    ------
    Stopped : before the walltime or on a signal; rerun with ``resume``.
    NumericalError : the state has NaN or infinite values, or a step is too long.
    ScimillError : see `store.writer.open_writer` and `states.initial`.

    """
    teams = min(config.members, world.size)
    world.on_root(check, config, world.size // teams)
    config = with_values(config, fft=choose_library(config.fft))
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
        world.fail(Stopped(f"stopped by {reason}; all finished snapshots are kept", remedy=RESUME))
    return True


def remake(config: str, output: Output, world: World) -> bool:
    """Simulate as a stored configuration says; see `simulate`."""
    return simulate(from_stored(SimulateConfig, config), output, world)


def layout(config: SimulateConfig) -> Layout:
    """Return the structure of the store that a configuration makes."""
    return fields.layout(
        config.points, config.snapshots + 1, config.members, config.samples, config.precision, config.box
    )


def check(config: SimulateConfig, ranks: int) -> None:
    """Refuse an initial state that cannot be read, and more ranks than can share a field."""
    most = max_ranks(config.points)
    if ranks > most:
        what = f"{ranks} ranks per member are too many for {config.points} points per side"
        raise ConfigError(what, allowed=f"at most {most} per member", remedy="use fewer ranks or more members")
    states.initial(config, 0, slice(0, 1))


def compile_kernels(config: SimulateConfig, world: World) -> None:
    """Compile on rank 0 first, so that the other ranks find the result in the cache."""

    def compiled() -> None:
        small = FlowSolver(
            FlowPhysics(hyperviscosity=1e-9, order=2), 16, config.scheme, config.precision, fft=config.fft
        )
        small.load(np.zeros((16, 16)), np.zeros((16, 16)))
        small.step(1e-3)
        small.diagnose()

    world.on_root(compiled)
    compiled()


def _run(run: "TeamRun", world: World, mine: range, stop: Stop) -> None:
    """Make the pending snapshots of this team in order of time, until all are done or a stop is requested."""
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
    """The solver of one team of ranks and the store that it fills.

    Parameters
    ----------
    config, writer, team : what to simulate, where to write it, the ranks that share a field.
    solver : solver of these ranks.

    """

    def __init__(self, config: SimulateConfig, writer: Writer, team: World, solver: FlowSolver) -> None:
        self.config, self.writer, self.team = config, writer, team
        self._solver = solver
        self._rows = slice(*self._solver.rows)
        self._loaded: tuple[int, int] | None = None
        self._start_time = 0.0

    def make(self, member: int, snapshot: int, started: float) -> None:
        """Make and write a snapshot of a member. Collective within the team."""
        before = self._solver.steps
        if snapshot == 0:
            density, vorticity, self._start_time = states.initial(self.config, member, self._rows)
            density, vorticity = (field.astype(self.config.precision) for field in (density, vorticity))
            self._solver.load(density, vorticity, self._start_time)
            samples = [self._sample()]
        else:
            if self._loaded != (member, snapshot - 1):
                self._continue(member, snapshot - 1)
            samples = list(self._samples(snapshot))
            density, vorticity = self._solver.fields()
        # Continue from exactly what is stored, so a run that is resumed here has the same bits.
        self._solver.load(density, vorticity, samples[-1]["time"])
        self._write(member, snapshot, (density, vorticity), samples, self._solver.steps - before, started)
        self._loaded = (member, snapshot)

    def _continue(self, member: int, snapshot: int) -> None:
        """Load a snapshot that was written earlier."""
        row = member * (self.config.snapshots + 1) + snapshot
        reader = self.writer.reader()
        self._start_time = float(reader.file["time"][row - snapshot])  # as stored: a difference would round
        self._solver.load(*read_state(reader, row, self._rows), self._time(snapshot))

    def _time(self, snapshot: float) -> float:
        return self._start_time + snapshot * self.config.interval

    def _samples(self, snapshot: int) -> Iterator[Row]:
        """Advance to a snapshot and yield the diagnostics on the way."""
        count = self.config.samples
        for sample in range(1, count + 1):
            try:
                self._solver.advance(self.config.interval / count, self.config.step)
                self._solver.time = self._time(snapshot - 1 + sample / count)
                yield self._sample()
            except DivergenceError as failure:
                raise self._divergence_error(failure, snapshot) from None

    def _divergence_error(self, failure: DivergenceError, snapshot: int) -> NumericalError:
        return NumericalError(
            f"{failure}",
            where=f"rank {self.team.rank} of {self.team.size} of this member, before snapshot {snapshot}",
            remedy="reduce --step or --courant, or increase --points or the diffusion; earlier snapshots are kept",
        )

    def _sample(self) -> Row:
        """Measure the state. Collective within the team."""
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
    """Check the initial state and describe what simulating would do, for ``--dry-run``."""
    teams = min(config.members, ranks)
    check(config, ranks // teams)
    rows = {
        "grid": f"{config.points} x {config.points}, box {config.box:g}, {config.scheme}, {config.precision}",
        "start": f"{config.from_}, snapshot {config.snapshot}" if config.from_ else f"noise, seed {config.seed}",
        "members": f"{config.members}",
        "snapshots": f"{config.snapshots + 1:,} per member, every {config.interval:g} Ln/cs",
        "ranks": f"{ranks}, {ranks // teams} per member",
        "cost": f"about {STEP_RATE * config.points**2:.2g} core seconds per step",
    }
    return describe_plan(output, layout(config), {**rows, **(more or {})})
