"""Read the droplets that pictures show from a store of any size, within bounded memory."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scimill.droplets import origin
from scimill.droplets.fields import UNITS, samples_per_droplet
from scimill.droplets.kernels.sampling import INPUTS
from scimill.droplets.params import SolveConfig
from scimill.errors import InputError
from scimill.parallel.report import say
from scimill.store.layout import DONE
from scimill.store.reader import Reader

MOST_RECORDS = 500_000  # to plot
MOST_BLOCKS = 256  # to read
DRAWN_INPUTS = (*INPUTS, "time")
LOGARITHMIC = {"initial_radius", "salinity", "time", "radius"}
LINES = 12  # trajectories in a picture
CANDIDATES = 4096  # droplets to choose them from

Values = Mapping[str, NDArray[Any]]


class Population(NamedTuple):
    """Records of one kind: accepted, or weird."""

    values: Values
    """every field and ``classes``; one value per record, inputs repeated for a droplet with several times"""
    weight: float
    """number of sampled droplets, in the blocks that were read, that each record represents"""

    @property
    def droplets(self) -> float:
        """Estimate the number of sampled droplets of this kind in the blocks that were read."""
        return self.weight * len(self.values["time"])


class DropletSample(NamedTuple):
    """Records of a store to plot."""

    accepted: Population
    weird: Population
    content: str
    """how many droplets these are, of how many, as text"""


class Counts(NamedTuple):
    """Counts of a whole store, from its ledger."""

    drawn: int
    """sampled droplets"""
    by_class: NDArray[np.int64]
    """weird ones among them, in the order of CLASSES; a droplet may be in several classes"""


class DropletGroup(NamedTuple):
    """Some droplets of a store, each with all its stored points."""

    inputs: NDArray[np.float32]
    """inputs of `solver.solve`, shape (6, n)"""
    times: NDArray[np.float32]
    """s, shape (n, samples), as for radius (m) and temperature (K)"""
    radius: NDArray[np.float32]
    temperature: NDArray[np.float32]


def read_sample(reader: Reader, most: int = MOST_RECORDS) -> DropletSample:
    """Read about `most` records, evenly over the finished blocks; random, but the same in every call.

    Records that are not finite, or not positive on a logarithmic axis, are left out; `content` then says so.
    """
    blocks = finished_blocks(reader)
    rows = sum(reader.layout.rows_in(block) for block in blocks)
    samples = samples_per_droplet(reader)
    share = min(1.0, most / (rows * samples))
    read = _concatenate(_sample_rows(reader, block, share) for block in blocks)
    drawn = _drawable(read)
    weight, flagged = rows / max(1, drawn["classes"].size), drawn["classes"] != 0
    accepted, weird = Population(select(drawn, ~flagged), weight), Population(select(drawn, flagged), weight)
    if reader.layout.tables:
        weird = _read_replaced(reader, blocks, rows, share)
    content = f"{read['time'].size // samples:,} of {reader.layout.rows:,} droplets"
    content += f", {samples} times each" if samples > 1 else ""
    missing = read["time"].size - drawn["time"].size
    return DropletSample(accepted, weird, content + (f", invalid records left out: {missing:,}" if missing else ""))


def finished_blocks(reader: Reader, most: int = MOST_BLOCKS) -> list[int]:
    """Choose at most `most` finished blocks, evenly over a store, which may still be incomplete.

    Raises
    ------
    InputError : no block is finished.

    """
    done = np.flatnonzero(reader.column("state") == DONE)
    if not done.size:
        raise InputError("the store has no finished block yet", where=str(reader.path))
    places = np.linspace(0, done.size - 1, min(most, done.size)).round().astype(int)
    return [int(block) for block in done[places]]


def _sample_rows(reader: Reader, block: int, share: float) -> Values:
    """Read a random share of a block's records; every k-th point of a Sobol sequence would be a biased sample."""
    n = reader.layout.rows_in(block)
    rows = _choose(n, share, block)
    values = {name: reader.rows(block, name)[rows] for name in UNITS}
    shape = values["time"].shape
    values["classes"] = np.zeros(shape, np.uint16) if reader.layout.tables else reader.rows(block, "weird")[rows]
    per_row = values["time"].size // max(1, shape[0])
    return {name: np.repeat(v, per_row) if v.shape != shape else v.reshape(-1) for name, v in values.items()}


def _read_replaced(reader: Reader, blocks: Sequence[int], rows: int, share: float) -> Population:
    """Read a share of the weird records of a store whose weird droplets were resampled."""
    table = reader.layout.tables[0]
    pieces = []
    for block in blocks:
        classes = reader.table_rows(block, table, "classes")
        chosen = _choose(len(classes), share, block)
        piece = {name: reader.table_rows(block, table, name)[chosen] for name in UNITS}
        pieces.append(piece | {"classes": classes[chosen]})
    values = _drawable(_concatenate(pieces))
    replaced = int(reader.column("attempts")[blocks].sum(dtype=np.int64)) - rows
    return Population(values, replaced / max(1, values["time"].size))


def _choose(n: int, share: float, seed: int) -> NDArray[np.int64]:
    """Choose a random share of n rows, at least one if there are any."""
    count = min(n, max(1, round(share * n)))
    return np.sort(np.random.default_rng(seed).choice(n, count, replace=False)) if n else np.empty(0, np.int64)


def _concatenate(pieces: Iterable[Values]) -> Values:
    pieces = list(pieces)
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def select(values: Values, where: NDArray[Any]) -> Values:
    """Select records by mask or index."""
    return {name: column[where] for name, column in values.items()}


def _drawable(values: Values) -> Values:
    usable = np.ones(values["time"].size, dtype=bool)
    for name in UNITS:
        usable &= np.isfinite(values[name]) & ((values[name] > 0) | (name not in LOGARITHMIC))
    return select(values, usable)


def read_counts(reader: Reader) -> Counts:
    """Read the counts of all finished blocks from the ledger."""
    done = reader.column("state") == DONE
    drawn = int(reader.column("attempts")[done].sum(dtype=np.int64))
    by_class = reader.column("weird_by_class")[done].sum(axis=0, dtype=np.int64)
    return Counts(drawn, by_class)


def read_group(reader: Reader, count: int = LINES) -> DropletGroup:
    """Read some accepted droplets, evenly distributed over the initial radius."""
    block = finished_blocks(reader, 1)[0]
    rows = slice(0, CANDIDATES)
    names = ("time", "radius", "temperature")
    n = len(reader.rows(block, "time")[rows])
    times, radius, temperature = (reader.rows(block, name)[rows].reshape(n, -1) for name in names)
    inputs = np.stack([reader.rows(block, name)[rows] for name in INPUTS])
    usable = np.all(np.isfinite(radius * temperature) & (radius > 0) & (times > 0), axis=1)
    if not reader.layout.tables:
        usable &= ~reader.rows(block, "weird")[rows].reshape(n, -1).any(axis=1)
    by_radius = np.flatnonzero(usable)[np.argsort(inputs[0, usable], kind="stable")]
    chosen = by_radius[np.unique(np.linspace(0, by_radius.size, count + 2)[1:-1].astype(int))] if by_radius.size else []
    return DropletGroup(inputs[:, chosen], times[chosen], radius[chosen], temperature[chosen])


def read_config(reader: Reader) -> SolveConfig:
    """Read the physics of a store; where it is unknown, defaults are assumed, which is reported."""
    if not origin.is_physics_known(origin.stored_config(reader)):
        say("the physics of the data is unknown: critical radii and trajectories assume generate's default constants")
    return origin.rebuild(SolveConfig, reader)
