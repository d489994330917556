"""Pictures of droplets as PNG files: what a store holds, and one droplet along time.

Each picture is a slide. The first part of this module reads a store, however large, within bounded memory; the second
computes what is drawn, as functions of arrays; the third draws.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from scimill import config as configuration
from scimill.droplets import arguments, solver
from scimill.droplets.fields import UNITS
from scimill.droplets.params import SolveConfig
from scimill.droplets.sampling import INPUTS
from scimill.droplets.solve import Trajectory, critical_humidity, critical_radius, facts
from scimill.droplets.weird import BITS, CLASSES
from scimill.errors import InputError
from scimill.store.hdf5 import storage_errors
from scimill.store.layout import DONE
from scimill.store.reader import Reader
from scimill.store.writer import check_directory

MOST_RECORDS = 500_000  # drawn of a store
MOST_BLOCKS = 256  # read of a store
DRAWN_INPUTS = (*INPUTS, "time")
LOGARITHMIC = {"initial_radius", "salinity", "time", "radius"}
PLANES = (("initial_radius", "relative_humidity"), ("initial_radius", "salinity"))

LINES = 12  # trajectories in a picture
CANDIDATES = 4096  # droplets among which they are chosen
LINE_TIMES = 600
DECADES_BEFORE = 3  # of time that are drawn before the first stored point

SIZE, DPI = (40 / 3, 7.5), 180  # inches, dots per inch: 2400 x 1350 pixels
ACCEPTED, WEIRD, REFERENCE, FAINT = "#31688e", "#d1495b", "#666666", "#dddddd"
SHARE, SIGNED, ORDERED = "magma_r", "coolwarm", "viridis"  # perceptually uniform colour maps
STYLE: Any = {
    "font.size": 11, "axes.titlesize": 11.5, "axes.labelsize": 11, "figure.titlesize": 15, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08, "figure.constrained_layout.w_pad": 0.08,
}  # fmt: skip

Values = Mapping[str, NDArray[Any]]
Array = NDArray[np.float64]


# ---- reading ----------------------------------------------------------------------------------------------------


class Population(NamedTuple):
    """Records of one kind: accepted, or weird."""

    values: Values
    """every field and ``classes``; one value per record, inputs repeated for a droplet with several times"""
    weight: float
    """how many of the droplets drawn in the blocks read stand behind each record"""

    @property
    def droplets(self) -> float:
        """How many of the droplets drawn in the blocks read are of this kind."""
        return self.weight * len(self.values["time"])


class Sample(NamedTuple):
    """What is drawn of a store."""

    accepted: Population
    weird: Population
    content: str
    """how many droplets of how many these are, in words"""


class Group(NamedTuple):
    """Some droplets of a store, each with all its stored points."""

    inputs: NDArray[np.float32]
    """as `solver.solve` takes them, shape (6, n)"""
    times: NDArray[np.float32]
    """s, shape (n, samples); so are radius (m) and temperature (K)"""
    radius: NDArray[np.float32]
    temperature: NDArray[np.float32]


def read_sample(reader: Reader, most: int = MOST_RECORDS) -> Sample:
    """Read about `most` records, evenly over the finished blocks; which ones is random, but the same each time.

    Records that have no place on logarithmic axes, or no finite state, are left out, which `content` then says.
    """
    blocks = finished_blocks(reader)
    rows = sum(reader.layout.rows_in(block) for block in blocks)
    samples = int(np.prod(reader.layout.fields[-1].shape, dtype=int))
    share = min(1.0, most / (rows * samples))
    read = _joined(_sample_rows(reader, block, share) for block in blocks)
    drawn = _drawable(read)
    weight, flagged = rows / max(1, drawn["classes"].size), drawn["classes"] != 0
    accepted, weird = Population(_select(drawn, ~flagged), weight), Population(_select(drawn, flagged), weight)
    if reader.layout.tables:
        weird = _read_replaced(reader, blocks, rows, share)
    content = f"{read['time'].size // samples:,} of {reader.layout.rows:,} droplets"
    content += f", {samples} times each" if samples > 1 else ""
    missing = read["time"].size - drawn["time"].size
    return Sample(accepted, weird, content + (f", without {missing:,} records that are not finite" if missing else ""))


def finished_blocks(reader: Reader, most: int = MOST_BLOCKS) -> list[int]:
    """Choose at most so many finished blocks, evenly over the store; also of one that is still being written.

    Raises
    ------
    InputError : there is none.

    """
    done = np.flatnonzero(reader.column("state") == DONE)
    if not done.size:
        raise InputError("the store has no finished block yet", where=str(reader.path))
    places = np.linspace(0, done.size - 1, min(most, done.size)).round().astype(int)
    return [int(block) for block in done[places]]


def _sample_rows(reader: Reader, block: int, share: float) -> Values:
    """A share of a block's records. At random, as every k-th point of a Sobol sequence would be no fair sample."""
    n = reader.layout.rows_in(block)
    rows = _choose(n, share, block)
    values = {name: reader.rows(block, name)[rows] for name in UNITS}
    shape = values["time"].shape
    values["classes"] = np.zeros(shape, np.uint16) if reader.layout.tables else reader.rows(block, "weird")[rows]
    per_row = values["time"].size // max(1, shape[0])
    return {name: np.repeat(v, per_row) if v.shape != shape else v.reshape(-1) for name, v in values.items()}


def _read_replaced(reader: Reader, blocks: Sequence[int], rows: int, share: float) -> Population:
    """Read a share of the weird records of a store in which weird droplets were drawn again."""
    table = reader.layout.tables[0]
    pieces = []
    for block in blocks:
        classes = reader.table_rows(block, table, "classes")
        chosen = _choose(len(classes), share, block)
        piece = {name: reader.table_rows(block, table, name)[chosen] for name in UNITS}
        pieces.append(piece | {"classes": classes[chosen]})
    values = _drawable(_joined(pieces))
    drawn_again = int(reader.column("attempts")[blocks].sum(dtype=np.int64)) - rows
    return Population(values, drawn_again / max(1, values["time"].size))


def _choose(n: int, share: float, seed: int) -> NDArray[np.int64]:
    """Choose a share of n rows; at least one if there is any."""
    count = min(n, max(1, round(share * n)))
    return np.sort(np.random.default_rng(seed).choice(n, count, replace=False)) if n else np.empty(0, np.int64)


def _joined(pieces: Iterable[Values]) -> Values:
    pieces = list(pieces)
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _select(values: Values, where: NDArray[Any]) -> Values:
    return {name: column[where] for name, column in values.items()}


def _drawable(values: Values) -> Values:
    usable = np.ones(values["time"].size, dtype=bool)
    for name in UNITS:
        usable &= np.isfinite(values[name]) & ((values[name] > 0) | (name not in LOGARITHMIC))
    return _select(values, usable)


def read_group(reader: Reader, count: int = LINES) -> Group:
    """Read some accepted droplets, evenly over the initial radius."""
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
    return Group(inputs[:, chosen], times[chosen], radius[chosen], temperature[chosen])


def read_config(reader: Reader) -> SolveConfig:
    """The physics of a store; an import does not know its own, and is taken to have the defaults."""
    stored = configuration.parse_yaml(str(reader.provenance["config"]), "the stored configuration")
    known = configuration.declared(SolveConfig)
    values = {name: value for name, value in stored.values.items() if name in known}
    return configuration.build(SolveConfig, [configuration.Layer(stored.source, values)])


# ---- computing --------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """One thing that may become of a droplet, for all records; not a number where the question does not arise."""

    title: str
    values: Array
    is_share: bool
    """whether the values are 0 or 1, of which the mean is shown; else the median"""


def outcomes(values: Values, model: solver.Model) -> list[Outcome]:
    """What became of each record: growth, evaporation, activation, and its temperature beside that of the air."""
    before, after = values["initial_radius"].astype(float), values["radius"].astype(float)
    ratio = after / before
    warmth = values["temperature"].astype(float) - values["air_temperature"]
    below, passed = activation(values, model)
    activated = np.where(below, passed, np.nan)
    return [
        Outcome("growth, log₁₀(r/r₀)", np.log10(ratio), is_share=False),
        Outcome("evaporates below r₀/10", (ratio < 0.1).astype(float), is_share=True),
        Outcome("grows beyond 10 r₀", (ratio > 10).astype(float), is_share=True),
        Outcome("passes the critical radius", activated, is_share=True),
        Outcome("warmer than the air by (K)", warmth, is_share=False),
    ]


def activation(values: Values, model: solver.Model) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which droplets begin below their critical radius in air beyond their critical humidity, and which end above it.

    The Köhler curve is taken at the air's temperature.
    """
    S = model.solute_per_salinity * values["salinity"].astype(float)
    air = values["air_temperature"].astype(float)
    with np.errstate(divide="ignore", over="ignore"):
        radius = critical_radius(S, air, model.constants)
        humidity = critical_humidity(radius, air, model.constants)
    below = (values["relative_humidity"] > humidity) & (values["initial_radius"] < radius)
    return below, values["radius"] > radius


class Grid(NamedTuple):
    """The cells of a map."""

    x: Array
    y: Array
    """edges, ascending"""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells along y and x."""
        return len(self.y) - 1, len(self.x) - 1

    def cells(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.int64]:
        """Cell of each point, numbered row after row; points on the last edge are in the last cell."""
        columns = np.clip(np.searchsorted(self.x, x, "right") - 1, 0, self.shape[1] - 1)
        rows = np.clip(np.searchsorted(self.y, y, "right") - 1, 0, self.shape[0] - 1)
        cells: NDArray[np.int64] = rows * self.shape[1] + columns
        return cells

    def counts(self, x: NDArray[Any], y: NDArray[Any]) -> Array:
        """Number of points in each cell, of the grid's shape."""
        return np.bincount(self.cells(x, y), minlength=self.shape[0] * self.shape[1]).reshape(self.shape).astype(float)


def edges(name: str, columns: Sequence[NDArray[Any]], count: int) -> Array:
    """Edges of `count` intervals over all values of a field, equal on the field's axis."""
    values = np.concatenate([column.astype(float) for column in columns])
    low, high = (values.min(), values.max()) if values.size else (1.0, 2.0)
    if low == high:
        low, high = 0.99 * low, 1.01 * high
    spaced: Array = (np.geomspace if name in LOGARITHMIC else np.linspace)(low, high, count + 1)
    spaced[0], spaced[-1] = low, high
    return spaced


def relative_density(values: NDArray[Any], bins: Array) -> Array:
    """Share of the values in each bin, times the number of bins: 1 throughout where all bins hold the same."""
    density: Array = np.histogram(values, bins)[0] * (len(bins) - 1) / max(1, values.size)
    return density


def resolution(records: int, per_cell: int = 200, coarsest: int = 8, finest: int = 48) -> int:
    """Cells along a map's axis, such that most cells hold many records."""
    return int(np.clip(np.sqrt(records / per_cell), coarsest, finest))


def mean_by_cell(cells: NDArray[np.int64], values: Array, count: int) -> Array:
    """Mean of the values in each of `count` cells; not a number in empty ones."""
    totals, numbers = np.bincount(cells, values, minlength=count), np.bincount(cells, minlength=count)
    with np.errstate(invalid="ignore"):
        mean: Array = totals / numbers
    return mean


def median_by_cell(cells: NDArray[np.int64], values: Array, count: int) -> Array:
    """Median of the values in each of `count` cells; not a number in empty ones."""
    values = values[np.lexsort((values, cells))]
    numbers = np.bincount(cells, minlength=count)
    first = np.cumsum(numbers) - numbers
    middle = np.full(count, np.nan)
    filled = numbers > 0
    low, high = (first + (numbers - 1) // 2)[filled], (first + numbers // 2)[filled]
    middle[filled] = 0.5 * (values[low] + values[high])
    return middle


def map_outcome(outcome: Outcome, cells: NDArray[np.int64], shape: tuple[int, int]) -> Array:
    """Share or median of an outcome in each cell, of the given shape."""
    asked = np.isfinite(outcome.values)
    statistic = mean_by_cell if outcome.is_share else median_by_cell
    return statistic(cells[asked], outcome.values[asked], shape[0] * shape[1]).reshape(shape)


def summary(outcome: Outcome) -> str:
    """What an outcome is over all records, in words."""
    asked = outcome.values[np.isfinite(outcome.values)]
    if not asked.size:
        return "of none"
    if not outcome.is_share:
        low, high = np.quantile(asked, (0.1, 0.9))
        return f"80% within {low:.2g} … {high:.2g}"
    of = f" of the {asked.size / outcome.values.size:.1%} that can" if asked.size < outcome.values.size else ""
    return f"{asked.mean():.1%}{of}"


def share_of_class(sample: Sample, grid: Grid, plane: tuple[str, str], name: str) -> Array:
    """Share of the droplets drawn in each cell of a plane that are of a class; not a number in empty cells."""
    accepted, weird = (
        population.weight * grid.counts(*(population.values[axis] for axis in plane))
        for population in (sample.accepted, sample.weird)
    )
    of_class = _select(sample.weird.values, (sample.weird.values["classes"] & BITS[name]) != 0)
    with np.errstate(invalid="ignore"):
        share: Array = sample.weird.weight * grid.counts(*(of_class[axis] for axis in plane)) / (accepted + weird)
    return share


class Redrawn(NamedTuple):
    """Droplets of a store integrated again along time."""

    times: NDArray[np.float32]
    """s, ascending, shape (n, m); so are radius (m) and temperature (K), not numbers once it has dried"""
    radius: NDArray[np.float32]
    temperature: NDArray[np.float32]
    radius_deviation: float
    """largest relative deviation of a stored point from the line through it"""
    temperature_deviation: float


def redraw(model: solver.Model, group: Group, count: int = LINE_TIMES) -> Redrawn:
    """Integrate droplets at logarithmic times, and at their stored ones, which need not be the only ones."""
    first, last = group.times.min() / 10**DECADES_BEFORE, group.times.max()
    common = np.broadcast_to(np.geomspace(first, last, count).astype(np.float32), (len(group.times), count))
    times = np.concatenate([group.times, common], axis=1)
    order = np.argsort(times, axis=1, kind="stable")
    times = np.take_along_axis(times, order, axis=1)
    stored = np.argsort(order, axis=1)[:, : group.times.shape[1]]
    radius, temperature, _ = solver.solve(model._replace(max_steps=model.max_steps + count), group.inputs, times)
    again = np.take_along_axis(radius, stored, axis=1), np.take_along_axis(temperature, stored, axis=1)
    dry = radius <= model.dry_radius
    radius[dry], temperature[dry] = np.nan, np.nan
    return Redrawn(
        times, radius, temperature, deviation(again[0], group.radius), deviation(again[1], group.temperature)
    )


def deviation(values: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest relative deviation."""
    return float(np.abs(values.astype(float) / expected - 1).max())


# ---- drawing ----------------------------------------------------------------------------------------------------


def plot_store(store: Path, folder: Path) -> list[Path]:
    """Draw a store of droplets.

    Parameters
    ----------
    store : a store, complete or still being written.
    folder : where the pictures go; it is made if the directory that it lies in exists.

    Returns
    -------
    The files: inputs.png, outcomes.png, weird.png and trajectories.png.

    Raises
    ------
    InputError : no store of droplets, or nothing in it.
    StorageError : the folder is missing, or cannot be written.

    """
    with Reader.open(store) as reader:
        if reader.provenance["campaign"] != "droplets":
            raise InputError("not a store of droplets", where=str(store))
        _prepare(folder)
        labels, model = axis_labels(reader), arguments.model(read_config(reader))
        counts = reader.column("weird_by_class").sum(axis=0, dtype=np.int64)
        drawn = int(reader.column("attempts").sum(dtype=np.int64))
        sample, group = read_sample(reader), read_group(reader)
    with mpl.rc_context(STYLE):
        figures = {
            "inputs.png": draw_inputs(sample, labels),
            "outcomes.png": draw_outcomes(sample, labels, model),
            "weird.png": draw_weird(sample, labels, counts, drawn),
            "trajectories.png": draw_trajectories(group, model, labels),
        }
        for name, figure in figures.items():
            _save(figure, folder / name)
    return [folder / name for name in figures]


def plot_trajectory(trajectory: Trajectory, path: Path) -> None:
    """Draw one droplet along time, with what theory says of it.

    Raises
    ------
    StorageError : the directory is missing, or cannot be written.

    """
    check_directory(path)
    with mpl.rc_context(STYLE):
        _save(draw_trajectory(trajectory), path)


def _prepare(folder: Path) -> None:
    if not folder.exists():
        check_directory(folder)
        with storage_errors(folder, "making the folder"):
            folder.mkdir()
    check_directory(folder / "inputs.png")


def _save(figure: Figure, path: Path) -> None:
    """Write a picture, so that a reader never sees half of it."""
    part = path.with_name(path.name + ".part")
    try:
        with storage_errors(path, "writing the picture"):
            figure.savefig(part, format="png", dpi=DPI)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def axis_labels(reader: Reader) -> dict[str, str]:
    """Names of the fields with the units that the store states."""
    kind = configuration.parse_yaml(str(reader.provenance["config"]), "the stored configuration").values
    names = {name: name.replace("_", " ") for name in UNITS}
    names["salinity"] = {"salt-mass": "salt mass", "solute-term": "solute term"}.get(str(kind.get("salinity_kind")), "")
    units = {field.name: field.units.replace("m3", "m³") for field in reader.layout.fields}
    return {name: names[name] + (f" ({units[name]})" if units[name] != "1" else "") for name in UNITS}


def _scale(axes: Axes, x: str, y: str = "") -> None:
    """Give an axis decades where its field spans them."""
    if x in LOGARITHMIC:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_minor_locator(NullLocator())
    if y in LOGARITHMIC:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=8))
        axes.yaxis.set_minor_locator(NullLocator())


def draw_inputs(sample: Sample, labels: Mapping[str, str]) -> Figure:
    """Histograms of the inputs and of time, accepted and weird."""
    figure = Figure(SIZE)
    figure.suptitle(f"What was drawn: {sample.content}")
    panels = figure.subplots(2, 4)
    kinds = {"accepted": (sample.accepted, ACCEPTED, True), "weird": (sample.weird, WEIRD, False)}
    for name, axes in zip(DRAWN_INPUTS, panels.flat, strict=False):
        bins = edges(name, [sample.accepted.values[name], sample.weird.values[name]], 60)
        for population, colour, is_filled in kinds.values():
            density = relative_density(population.values[name], bins)
            axes.stairs(density, bins, color=colour, fill=is_filled, baseline=0 if is_filled else None,
                        alpha=0.6 if is_filled else 1, linewidth=2)  # fmt: skip
        _scale(axes, name)
        axes.set(xlabel=labels[name], ylim=(0, None), xlim=(bins[0], bins[-1]))
    for axes in panels[:, 0]:
        axes.set_ylabel("density (1: even on this axis)")
    drawn = max(1.0, sample.accepted.droplets + sample.weird.droplets)
    patches = [
        Patch(facecolor=colour, alpha=0.6 if is_filled else 1, label=f"{name}: {population.droplets / drawn:.2%}")
        for name, (population, colour, is_filled) in kinds.items()
    ]
    panels[1, 3].set_axis_off()
    panels[1, 3].legend(handles=patches, loc="center", fontsize=13, title="of the droplets drawn")
    return figure


def draw_outcomes(sample: Sample, labels: Mapping[str, str], model: solver.Model) -> Figure:
    """Maps of what becomes of the accepted droplets, over the initial radius, the humidity and the salinity."""
    figure, values = Figure(SIZE), sample.accepted.values
    figure.suptitle(f"What became of them: {sample.content}, accepted ones (hatched: none)")
    drawn = outcomes(values, model)
    panels = figure.subplots(len(PLANES), len(drawn), sharex=True, sharey="row")
    grids = [plane_grid(sample, plane) for plane in PLANES]
    for column, outcome in zip(panels.T, drawn, strict=True):
        maps = [
            map_outcome(outcome, grid.cells(*(values[axis] for axis in plane)), grid.shape)
            for grid, plane in zip(grids, PLANES, strict=True)
        ]
        norm = Normalize(0, 1) if outcome.is_share else CenteredNorm(halfrange=_reach(maps))
        for axes, grid, plane, cells in zip(column, grids, PLANES, maps, strict=True):
            mesh = _draw_map(axes, grid, plane, cells, norm, SHARE if outcome.is_share else SIGNED)
        column[0].set_title(f"{outcome.title}\n{summary(outcome)}")
        column[-1].set_xlabel(labels["initial_radius"])
        bar = figure.colorbar(mesh, ax=column.tolist(), location="bottom", aspect=16, pad=0.02,
                              extend="neither" if outcome.is_share else "both")  # fmt: skip
        if outcome.is_share:
            bar.ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for row, (_, y) in zip(panels, PLANES, strict=True):
        row[0].set_ylabel(labels[y])
    return figure


def plane_grid(sample: Sample, plane: tuple[str, str]) -> Grid:
    """The cells of a map of all records, accepted and weird."""
    kinds = (sample.accepted.values, sample.weird.values)
    count = resolution(len(sample.accepted.values["time"]))
    return Grid(*(edges(axis, [values[axis] for values in kinds], count) for axis in plane))


def _reach(maps: Sequence[Array]) -> float:
    """Half range of a colour scale that leaves out the outermost cells, which noise would otherwise set."""
    sizes = np.abs(np.concatenate([cells[np.isfinite(cells)] for cells in maps]))
    return float(np.quantile(sizes, 0.98)) or 1.0 if sizes.size else 1.0


def _draw_map(
    axes: Axes, grid: Grid, plane: tuple[str, str], cells: Array, norm: Normalize, colours: str
) -> ScalarMappable:
    axes.patch.set(facecolor="white", edgecolor=FAINT, hatch="////")  # seen where a cell is empty
    mesh = axes.pcolormesh(grid.x, grid.y, cells, norm=norm, cmap=colours)
    _scale(axes, *plane)
    return mesh


def draw_weird(sample: Sample, labels: Mapping[str, str], counts: NDArray[np.int64], drawn: int) -> Figure:
    """Counts of the classes in the whole store, and where the two most frequent ones lie."""
    figure = Figure(SIZE)
    share = sample.weird.droplets / max(1.0, sample.accepted.droplets + sample.weird.droplets)
    figure.suptitle(f"Weird: {share:.2%} of {drawn:,} droplets drawn\nmaps of those drawn for {sample.content}")
    bars, maps = cast(Any, figure.subfigures(1, 2, width_ratios=(2, 3)))
    _draw_classes(bars.subplots(), counts, drawn)
    frequent = [int(i) for i in np.argsort(-counts, kind="stable")[:2] if counts[i]]
    if frequent:
        panels = maps.subplots(len(frequent), 2, squeeze=False, sharex=True, sharey="col")
        _draw_weird_maps(panels, sample, labels, [CLASSES[i] for i in frequent])
    return figure


def _draw_classes(axes: Axes, counts: NDArray[np.int64], drawn: int) -> None:
    """A bar for each class, on a logarithmic axis on which a single droplet can be seen."""
    shares, lowest = counts / max(1, drawn), 0.5 / max(1, drawn)
    names = [name.split("-")[-1].replace("_", " ") for name in CLASSES]
    axes.barh(names, np.maximum(shares - lowest, 0), left=lowest, color=WEIRD, height=0.6)
    axes.set(xscale="log", xlim=(lowest, 1), xlabel="share of the droplets drawn")
    axes.invert_yaxis()
    texts = [f"{n:,}  ({share:.2%})" if n else "none" for n, share in zip(counts, shares, strict=True)]
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(range(len(texts)), labels=texts)
    beside.tick_params(length=0)


def _draw_weird_maps(panels: Any, sample: Sample, labels: Mapping[str, str], names: Sequence[str]) -> None:
    for row, name in zip(panels, names, strict=True):
        grids = [plane_grid(sample, plane) for plane in PLANES]
        maps = [share_of_class(sample, grid, plane, name) for grid, plane in zip(grids, PLANES, strict=True)]
        norm = Normalize(0, max(np.nanmax(cells) for cells in maps))
        for axes, grid, plane, cells in zip(row, grids, PLANES, maps, strict=True):
            mesh = _draw_map(axes, grid, plane, cells, norm, SHARE)
            axes.set(ylabel=labels[plane[1]], title=name.split("-")[-1].replace("_", " "))
        bar = row[0].figure.colorbar(mesh, ax=row.tolist(), label="share of the droplets drawn here")
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes, plane in zip(panels[-1], PLANES, strict=True):
        axes.set_xlabel(labels[plane[0]])


def draw_trajectories(group: Group, model: solver.Model, labels: Mapping[str, str]) -> Figure:
    """Droplets of a store along time, integrated again, with their stored points."""
    figure = Figure(SIZE)
    if not len(group.times):
        figure.suptitle("No accepted droplets to integrate again")
        return figure
    again = redraw(model, group)
    figure.suptitle(
        f"{len(group.times)} droplets integrated again, with their stored points (circles)\n"
        f"largest relative deviation: radius {again.radius_deviation:.1g}, "
        f"temperature {again.temperature_deviation:.1g}"
    )
    panels, norm = figure.subplots(1, 2), _norm(group.inputs[0])
    colours = mpl.colormaps[ORDERED](norm(group.inputs[0]))
    pairs = {"radius": (again.radius, group.radius), "temperature": (again.temperature, group.temperature)}
    for axes, (name, (lines, points)) in zip(panels, pairs.items(), strict=True):
        for i, colour in enumerate(colours):
            axes.plot(again.times[i], lines[i], color=colour, linewidth=1.8)
            axes.plot(
                group.times[i], points[i], "o", color=colour, markeredgecolor="black", markersize=7, clip_on=False
            )
        _scale(axes, "time", name)
        axes.set(xlabel=labels["time"], ylabel=labels[name])
        axes.margins(x=0)
        axes.grid(color=FAINT, linewidth=0.6)
    figure.colorbar(ScalarMappable(norm, ORDERED), ax=panels.tolist(), label=labels["initial_radius"], pad=0.02)
    return figure


def _norm(radii: NDArray[np.float32]) -> Normalize:
    low, high = float(radii.min()), float(radii.max())
    return LogNorm(low, high if high > low else 1.01 * low)


def draw_trajectory(trajectory: Trajectory) -> Figure:
    """One droplet along time, with the radii and temperatures that theory knows."""
    figure, theory, known = Figure(SIZE), trajectory.theory, facts(trajectory)
    figure.suptitle(f"Droplet of {known['droplet']}\nin air of {known['air']}: {known['ending']}")
    radius, temperature = figure.subplots(1, 2)
    radius.plot(trajectory.times, trajectory.radius, color=ACCEPTED, linewidth=2.5)
    _reference(radius, theory.equilibrium_radius, "equilibrium radius", "--")
    _reference(radius, theory.critical_radius, "critical radius", ":")
    temperature.plot(trajectory.times, trajectory.temperature, color=WEIRD, linewidth=2.5)
    _reference(temperature, theory.wet_bulb, "wet-bulb temperature", "--")
    _reference(temperature, trajectory.config.air_temperature, "air temperature", ":")
    for axes, name, label in ((radius, "radius", "radius (m)"), (temperature, "temperature", "temperature (K)")):
        _scale(axes, "time", name)
        axes.set(xlabel="time (s)", ylabel=label)
        axes.margins(x=0)
        axes.grid(color=FAINT, linewidth=0.6)
        axes.axvline(theory.conduction_time, color=FAINT, linewidth=6, zorder=0, label="conduction time")
        axes.legend(frameon=True, framealpha=0.9, edgecolor="none")
    return figure


def _reference(axes: Axes, value: float | None, label: str, style: str) -> None:
    if value is not None:
        axes.axhline(value, color=REFERENCE, linestyle=style, label=label)
