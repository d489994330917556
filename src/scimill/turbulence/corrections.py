"""Corrections of coarse steps: what must be added to a coarse run, step by step, so that it follows the fine run.

A pair of snapshots is a block, so all ranks make one dataset in one pass. `Corrections` reads it.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scimill import config as configuration
from scimill.campaign import describe_plan
from scimill.errors import InputError, NumericalError
from scimill.parallel.world import World
from scimill.store.layout import Field, Layout
from scimill.store.output import Output
from scimill.store.reader import Reader
from scimill.store.writer import BlockData
from scimill.turbulence import CAMPAIGN
from scimill.turbulence.fields import coordinates
from scimill.turbulence.kernels import coarse
from scimill.turbulence.kernels.equations import FlowPhysics
from scimill.turbulence.kernels.fourier import Choice, choose_library
from scimill.turbulence.kernels.pairs import IrregularTimes, SnapshotPair, interval_of, pair_up
from scimill.turbulence.kernels.solver import DivergenceError, FlowSolver
from scimill.turbulence.params import CorrectionsConfig, CorrectionsRecord
from scimill.turbulence.snapshots import physics
from scimill.turbulence.sources import FineRun, Grid, State, build_record, open_fine, require_undamaged

STATE = ("density", "vorticity", "potential")
CHANGES = ("density_correction", "vorticity_correction")
CHANNELS = (*STATE, *CHANGES)
"""Fields of a pair, in the order of the statistics."""
MEANINGS = {
    "density": ("1", "density after the coarse step, (x, y)"),
    "vorticity": ("cs/Ln", "vorticity after the coarse step, (x, y)"),
    "potential": ("1", "potential of that vorticity, (x, y)"),
    "density_correction": ("1", "coarsened density of this time − density after the coarse step, (x, y)"),
    "vorticity_correction": ("cs/Ln", "coarsened vorticity of this time − vorticity after the coarse step, (x, y)"),
}
"""Units and meanings of the fields."""
SAMPLED_SNAPSHOTS = 9
"""Snapshots, spread over the run, that determine the number of substeps; each pair then checks its own step."""
SAFETY = 0.8
"""Chosen step relative to the longest stable one: other snapshots may have a faster flow."""


class CoarseStep:
    """The coarse step to correct, from any state.

    Parameters
    ----------
    physics : parameters of the fine run; the coarse grid covers the same box.
    points : points of the coarse grid along each side.
    scheme : scheme of the coarse step.
    duration, substeps : length of the coarse step, and the number of equal Runge–Kutta steps in it.
    fft : library of Fourier transforms.

    """

    def __init__(
        self,
        physics: FlowPhysics,
        points: int,
        scheme: Literal["spectral", "arakawa"],
        duration: float,
        substeps: int,
        fft: Choice = "auto",
    ) -> None:
        self._solver = FlowSolver(physics, points, scheme, fft=fft)
        self._duration, self._length = duration, duration / substeps

    def resolved(self, state: State) -> State:
        """Return the part of a coarse state that the scheme resolves."""
        self._solver.load(*state)
        return self._solver.fields()

    def stable(self, state: State) -> float:
        """Return the longest stable Runge–Kutta step from a coarse state."""
        self._solver.load(*state)
        return self._solver.longest_stable_step()

    def advance(self, state: State) -> tuple[Grid, Grid, Grid]:
        """Return density, vorticity and potential after the step.

        Raises
        ------
        DivergenceError : the step is unstable.
        """
        self._solver.load(*state)
        self._solver.advance(self._duration, self._length)
        self._solver.speed()  # raises if a value is not finite
        return *self._solver.fields(), self._solver.potential()


# ---- making a store ---------------------------------------------------------------------------------------------


def make(config: CorrectionsConfig, output: Output, world: World) -> bool:
    """Make a store of corrections; collective. Return False if it was already complete.

    Raises
    ------
    InputError : the fine run is missing, not a store, unfinished, irregular in time or too short.
    StorageError : the fine store is damaged.
    ConfigError : the factor does not divide the grid.
    NumericalError : the coarse step is unstable.
    Stopped : before the walltime or on a signal; rerun with ``resume``.
    ScimillError : see `store.writer.open_writer`.
    """
    record = world.on_root(make_record, config)
    with open_fine(config, check=False) as fine:
        pairs = pair_up(fine.times, fine.members, config.steps)
        layout, make_block = make_layout(record, len(pairs)), block_maker(record, fine, pairs)
        return CAMPAIGN.fill(record, layout, make_block, output, world, maker="corrections", unit="pairs")


def remake(config: str, output: Output, world: World) -> bool:
    """Make corrections as a stored configuration says; see `make`."""
    return make(configuration.from_stored(CorrectionsConfig, config), output, world)


def make_record(config: CorrectionsConfig) -> CorrectionsRecord:
    """Complete a configuration with what follows from the fine run; raises as `make`. On rank 0."""
    with open_fine(config, check=True) as fine:
        duration = config.steps * _interval(fine, config)
        origin = fine.origin(config)
        chosen = config.substeps or choose_substeps(fine, config, origin["points"], duration)
        return build_record(
            CorrectionsRecord,
            config,
            origin | {"duration": duration, "substeps": chosen, "fft": choose_library(config.fft)},
        )


def _interval(fine: FineRun, config: CorrectionsConfig) -> float:
    """Return the time between snapshots; refuse a run that has too few of them."""
    try:
        interval = interval_of(fine.times, fine.members)
    except IrregularTimes as error:
        raise InputError(f"the snapshots cannot be paired: {error}", where=fine.name) from None
    if not pair_up(fine.times, fine.members, config.steps):
        what = f"too few snapshots for coarse steps with --steps {config.steps}"
        raise InputError(what, where=fine.name, allowed=f"{config.steps + 1} or more per member after --start-time")
    return interval


def choose_substeps(fine: FineRun, config: CorrectionsConfig, points: int, duration: float) -> int:
    """Return the fewest Runge–Kutta steps per coarse step that are stable, with a margin, throughout the run."""
    step = CoarseStep(fine.snapshots.physics, points, config.scheme, duration, 1, config.fft)
    chosen = np.unique(np.linspace(0, len(fine.rows) - 1, SAMPLED_SNAPSHOTS).astype(int)).tolist()
    stable = (step.stable(_coarse_state(step, fine, index, config)) for index in chosen)
    return max(1, *(math.ceil(duration / (SAFETY * length)) for length in stable))


def _coarse_state(step: CoarseStep, fine: FineRun, index: int, config: CorrectionsConfig) -> State:
    """Return the index-th fine state on the coarse grid, as far as the coarse scheme resolves it."""
    return step.resolved(coarse.coarsen_state(*fine.state(index), config.factor, config.coarsening))


def make_layout(record: CorrectionsRecord, pairs: int) -> Layout:
    """Return the structure of the store: one pair is a block."""
    shape = (record.points, record.points)
    fields = tuple(Field(name, record.precision, *MEANINGS[name], shape, axes=("x", "y")) for name in CHANNELS)
    time = Field("time", "float64", "Ln/cs", "time of the truth, and of the state after the coarse step")
    member = Field("member", "int32", "1", "trajectory of the fine run")
    order = "of the pair's fields, in the order " + ", ".join(CHANNELS)
    ledger = (
        Field("mean", "float64", "1", f"means {order}", (len(CHANNELS),)),
        Field("variance", "float64", "1", f"variances {order}", (len(CHANNELS),)),
    )
    places = coordinates(record.points, record.box)
    return Layout(pairs, 1, (*fields, time, member), ledger=ledger, coordinates=places)


def block_maker(record: CorrectionsRecord, fine: FineRun, pairs: list[SnapshotPair]) -> Callable[[int], BlockData]:
    """Return the function that makes a pair, given its number."""
    step = CoarseStep(
        fine.snapshots.physics, record.points, record.scheme, record.duration, record.substeps or 1, record.fft
    )

    def make(block: int) -> BlockData:
        pair = pairs[block]
        before, after = (_coarse_state(step, fine, index, record) for index in (pair.before, pair.after))
        try:
            fields = step.advance(before)
        except DivergenceError as error:
            raise _instability_error(error, step.stable(before), record, pair) from None
        values = (*fields, *(there - here for there, here in zip(after, fields, strict=False)))
        stored = {name: field.astype(record.precision) for name, field in zip(CHANNELS, values, strict=True)}
        moments = [(values.mean(dtype=np.float64), values.var(dtype=np.float64)) for values in stored.values()]
        mean, variance = np.array(moments).T
        rows: dict[str, NDArray[np.generic]] = {name: values[None] for name, values in stored.items()}
        rows |= {"time": np.array([pair.time]), "member": np.array([pair.member], dtype=np.int32)}
        return BlockData(rows, ledger={"mean": mean, "variance": variance})

    return make


def _instability_error(
    error: DivergenceError, stable: float, record: CorrectionsRecord, pair: SnapshotPair
) -> NumericalError:
    """Return the error that says how many substeps the pair needs."""
    needed = math.ceil(record.duration / (SAFETY * stable))
    return NumericalError(
        f"the coarse step is unstable: {error}",
        where=f"member {pair.member}, coarse step to time {pair.time:.6g}, --substeps {record.substeps}",
        remedy=f"use --substeps {needed} or more, or fewer --steps",
    )


def describe_corrections(config: CorrectionsConfig, output: Output) -> str:
    """Check the fine run and describe what making corrections would do, for ``--dry-run``."""
    record = make_record(config)
    with open_fine(config, check=False) as fine:
        pairs, points = pair_up(fine.times, fine.members, config.steps), fine.snapshots.points
    lines = {
        "grid": f"{points} x {points} to {record.points} x {record.points}, {record.coarsening}",
        "step": f"{record.duration:.6g} Ln/cs, {record.scheme}, Runge–Kutta steps: {record.substeps}",
        "pairs": f"{len(pairs):,}, {record.precision}",
    }
    return describe_plan(output, make_layout(record, len(pairs)), lines)


# ---- reading a store --------------------------------------------------------------------------------------------


def is_corrections(reader: Reader) -> bool:
    """Return whether a store holds corrections."""
    return set(CHANNELS) <= {field.name for field in reader.layout.fields}


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of a field over all pairs and points."""

    mean: float
    std: float


class Corrections:
    """Reads a complete store of corrections, pair by pair.

    Parameters
    ----------
    reader : the open store.

    Attributes
    ----------
    record : the complete configuration that made it.
    points, box : points of the coarse grid along each side, side of the box.
    physics : parameters of the equations.
    scheme : scheme of the coarse step.
    duration, substeps : length of a coarse step, and the number of Runge–Kutta steps in it.

    Raises
    ------
    InputError : not a store of corrections, or unfinished.
    """

    def __init__(self, reader: Reader) -> None:
        if not is_corrections(reader):
            allowed = "a store made by turbulence corrections"
            raise InputError("not a store of corrections", where=str(reader.path), allowed=allowed)
        reader.require_complete()
        self.reader = reader
        self._checked: set[int] = set()
        stored = configuration.parse_yaml(str(reader.provenance["config"]), f"{reader.path}, config")
        self.record = record = configuration.build(CorrectionsRecord, [stored])
        self.points, self.box, self.physics = record.points, record.box, physics(record)
        self.scheme, self.duration, self.substeps = record.scheme, record.duration, record.substeps or 1

    def __len__(self) -> int:
        return self.reader.layout.rows

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """Time of the truth of each pair, shape (pairs,)."""
        return np.asarray(self.reader.file["time"][:])

    @cached_property
    def members(self) -> NDArray[np.int32]:
        """Member of each pair, shape (pairs,)."""
        return np.asarray(self.reader.file["member"][:])

    def rows(self, pair: int) -> dict[str, Grid]:
        """Return the fields of a pair as stored, each of shape (points, points).

        Raises
        ------
        StorageError : its bytes are damaged.
        """
        if pair not in self._checked:
            require_undamaged(self.reader, pair)
            self._checked.add(pair)
        return {name: self.reader.rows(pair, name)[0] for name in CHANNELS}

    @cached_property
    def statistics(self) -> dict[str, Statistics]:
        """Statistics of each field, merged over the pairs in a fixed order, so they do not depend on the ranks."""
        means, variances = self.reader.column("mean"), self.reader.column("variance")
        mean = means.mean(axis=0)
        variance = variances.mean(axis=0) + ((means - mean) ** 2).mean(axis=0)
        return {
            name: Statistics(float(m), float(np.sqrt(v))) for name, m, v in zip(CHANNELS, mean, variance, strict=True)
        }
