"""Outcomes of droplets, from arrays: growth, activation, maps over two inputs, trajectories."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scimill.droplets.kernels import lanes, solver
from scimill.droplets.kernels.koehler import critical_humidity, critical_radius
from scimill.droplets.kernels.weird import BITS
from scimill.droplets.pictures.population import LOGARITHMIC, DropletGroup, DropletSample, Values, select

PLANES = (("initial_radius", "relative_humidity"), ("initial_radius", "salinity"))
LINE_TIMES = 600
DECADES_BEFORE = 3  # decades of time to plot before the first stored point

Array = NDArray[np.float64]


class Outcome(NamedTuple):
    """One outcome for all records; NaN for records that are not eligible."""

    title: str
    values: Array
    is_share: bool
    """whether the values are 0 or 1, shown by their mean; otherwise they are shown by their median"""


def compute_outcomes(values: Values, settings: solver.SolverSettings) -> list[Outcome]:
    """Compute the outcomes of each record: growth, evaporation, activation, temperature relative to the air."""
    before, after = values["initial_radius"].astype(float), values["radius"].astype(float)
    ratio = after / before
    warming = values["temperature"].astype(float) - values["air_temperature"]
    below, passed = activation(values, settings)
    activated = np.where(below, passed, np.nan)
    return [
        Outcome("growth, log₁₀(r/r₀)", np.log10(ratio), is_share=False),
        Outcome("evaporates below r₀/10", (ratio < 0.1).astype(float), is_share=True),
        Outcome("grows beyond 10 r₀", (ratio > 10).astype(float), is_share=True),
        Outcome("passes the critical radius", activated, is_share=True),
        Outcome("temperature above air (K)", warming, is_share=False),
    ]


def activation(values: Values, settings: solver.SolverSettings) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find the droplets that can activate, and those that end above their critical radius.

    A droplet can activate if it starts below its critical radius in air above its critical humidity. Both come from the
    Köhler curve at the air's temperature.
    """
    S = settings.solute_per_salinity * values["salinity"].astype(float)
    air = values["air_temperature"].astype(float)
    with np.errstate(divide="ignore", over="ignore"):
        radius = critical_radius(S, air, settings.constants)
        humidity = critical_humidity(radius, S, air, settings.constants)
    below = (values["relative_humidity"] > humidity) & (values["initial_radius"] < radius)
    return below, values["radius"] > radius


class Grid(NamedTuple):
    """The cells of a map."""

    x: Array
    y: Array
    """edges, ascending"""

    @property
    def shape(self) -> tuple[int, int]:
        """Return the number of cells along y and x."""
        return len(self.y) - 1, len(self.x) - 1

    def cells(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the cell of each point, numbered row by row; points on the last edge are in the last cell."""
        columns = np.clip(np.searchsorted(self.x, x, "right") - 1, 0, self.shape[1] - 1)
        rows = np.clip(np.searchsorted(self.y, y, "right") - 1, 0, self.shape[0] - 1)
        cells: NDArray[np.int64] = rows * self.shape[1] + columns
        return cells

    def counts(self, x: NDArray[Any], y: NDArray[Any]) -> Array:
        """Count the points in each cell; the result has the shape of the grid."""
        return np.bincount(self.cells(x, y), minlength=self.shape[0] * self.shape[1]).reshape(self.shape).astype(float)


def edges(name: str, columns: Sequence[NDArray[Any]], count: int) -> Array:
    """Return the edges of `count` intervals over all values of a field, evenly spaced on the field's axis."""
    values = np.concatenate([column.astype(float) for column in columns])
    low, high = (values.min(), values.max()) if values.size else (1.0, 2.0)
    if low == high:
        low, high = 0.99 * low, 1.01 * high
    spaced: Array = (np.geomspace if name in LOGARITHMIC else np.linspace)(low, high, count + 1)
    spaced[0], spaced[-1] = low, high
    return spaced


def relative_density(values: NDArray[Any], bins: Array) -> Array:
    """Return the density of values in each bin, relative to the mean over all bins."""
    density: Array = np.histogram(values, bins)[0] * (len(bins) - 1) / max(1, values.size)
    return density


def resolution(records: int, per_cell: int = 200, coarsest: int = 8, finest: int = 48) -> int:
    """Choose the number of cells along each axis of a map, so that most cells hold many records."""
    return int(np.clip(np.sqrt(records / per_cell), coarsest, finest))


def mean_by_cell(cells: NDArray[np.int64], values: Array, count: int) -> Array:
    """Return the mean of the values in each of `count` cells; NaN in empty cells."""
    totals, numbers = np.bincount(cells, values, minlength=count), np.bincount(cells, minlength=count)
    with np.errstate(invalid="ignore"):
        mean: Array = totals / numbers
    return mean


def median_by_cell(cells: NDArray[np.int64], values: Array, count: int) -> Array:
    """Return the median of the values in each of `count` cells; NaN in empty cells."""
    values = values[np.lexsort((values, cells))]
    numbers = np.bincount(cells, minlength=count)
    first = np.cumsum(numbers) - numbers
    middle = np.full(count, np.nan)
    filled = numbers > 0
    low, high = (first + (numbers - 1) // 2)[filled], (first + numbers // 2)[filled]
    middle[filled] = 0.5 * (values[low] + values[high])
    return middle


def map_outcome(outcome: Outcome, cells: NDArray[np.int64], shape: tuple[int, int]) -> Array:
    """Compute the share or median of an outcome in each cell, as an array of the given shape."""
    eligible = np.isfinite(outcome.values)
    statistic = mean_by_cell if outcome.is_share else median_by_cell
    return statistic(cells[eligible], outcome.values[eligible], shape[0] * shape[1]).reshape(shape)


def describe_outcome(outcome: Outcome) -> str:
    """Describe an outcome over all eligible records."""
    values = outcome.values[np.isfinite(outcome.values)]
    if not values.size:
        return "none eligible"
    if not outcome.is_share:
        low, high = np.quantile(values, (0.1, 0.9))
        return f"80% between {low:.2g} and {high:.2g}"
    is_partial = values.size < outcome.values.size
    eligible = f" of eligible ({values.size / outcome.values.size:.1%} of all)" if is_partial else ""
    return f"{values.mean():.1%}{eligible}"


def share_of_class(sample: DropletSample, grid: Grid, plane: tuple[str, str], name: str) -> Array:
    """Return the share of sampled droplets that belong to a class, per cell of a plane; NaN in empty cells."""
    accepted, weird = (
        population.weight * grid.counts(*(population.values[axis] for axis in plane))
        for population in (sample.accepted, sample.weird)
    )
    of_class = select(sample.weird.values, (sample.weird.values["classes"] & BITS[name]) != 0)
    with np.errstate(invalid="ignore"):
        share: Array = sample.weird.weight * grid.counts(*(of_class[axis] for axis in plane)) / (accepted + weird)
    return share


class RecomputedTrajectories(NamedTuple):
    """Recomputed trajectories of droplets of a store."""

    times: NDArray[np.float32]
    """s, ascending, shape (n, m), as for radius (m) and temperature (K), which are NaN after drying"""
    radius: NDArray[np.float32]
    temperature: NDArray[np.float32]
    radius_deviation: float
    """largest relative deviation of a recomputed radius from the stored one"""
    temperature_deviation: float


def recompute_trajectories(
    settings: solver.SolverSettings, group: DropletGroup, count: int = LINE_TIMES
) -> RecomputedTrajectories:
    """Integrate droplets again, at `count` logarithmically spaced times and at the stored times."""
    first, last = group.times.min() / 10**DECADES_BEFORE, group.times.max()
    common = np.broadcast_to(np.geomspace(first, last, count).astype(np.float32), (len(group.times), count))
    times = np.concatenate([group.times, common], axis=1)
    order = np.argsort(times, axis=1, kind="stable")
    times = np.take_along_axis(times, order, axis=1)
    stored = np.argsort(order, axis=1)[:, : group.times.shape[1]]
    extended = settings._replace(max_steps=settings.max_steps + count)
    radius, temperature, status = solver.solve(extended, group.inputs, times)
    recomputed = np.take_along_axis(radius, stored, axis=1), np.take_along_axis(temperature, stored, axis=1)
    dry = status == lanes.DRIED
    radius[dry], temperature[dry] = np.nan, np.nan
    return RecomputedTrajectories(
        times, radius, temperature,
        deviation(recomputed[0], group.radius), deviation(recomputed[1], group.temperature),
    )  # fmt: skip


def deviation(values: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest relative deviation."""
    return float(np.abs(values.astype(float) / expected - 1).max())
