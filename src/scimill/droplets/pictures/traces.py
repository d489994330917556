"""Draw a network's deviations along traces."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from scimill.droplets.learning.trace_errors import TraceErrors, regions
from scimill.pictures import SIZE, STYLE, save

COLOURS = {"network": "#d1495b", "exact": "#31688e", "unchanged": "#999999"}
NAMES = {"network": "network", "exact": "exact integrator", "unchanged": "no change"}
TITLES = ("deviation in log10 of the radius", "deviation in the temperature (K)")
ELAPSED = "time since the start of the piece (s)"
QUANTILES = "solid: median, dotted: 90th percentile"
BINS = 60
FLOORS = (1e-7, 1e-5)  # smallest deviations shown: float32's rounding of log10 r, and of the temperature in K


def plot(errors: TraceErrors, folder: Path) -> Path:
    """Draw traces.png."""
    path = folder / "traces.png"
    with mpl.rc_context(STYLE):
        save(draw(errors), path)
    return path


def draw(errors: TraceErrors) -> Figure:
    """Draw deviations over time, change points, and errors by region as a figure."""
    figure = Figure(SIZE)
    panels = figure.subplots(2, 2)
    elapsed = errors.pieces.elapsed()
    edges = time_edges(elapsed)
    for column, panel in enumerate(panels[0]):
        for name in NAMES:
            _draw_deviation(panel, edges, elapsed, np.abs(getattr(errors, name)[:, column]), name, FLOORS[column])
        panel.set(xscale="log", yscale="log", xlabel=ELAPSED, ylabel=TITLES[column])
        panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, title=QUANTILES)
    _draw_changes(panels[1, 0], edges, elapsed, errors.changes)
    _draw_regions(panels[1, 1], errors)
    figure.suptitle(f"Network along traces: {errors.content}")
    return figure


def time_edges(elapsed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the edges of bins over the elapsed time, evenly spaced in its logarithm."""
    low, high = float(elapsed.min()), float(elapsed.max())
    edges: NDArray[np.float64] = np.geomspace(0.999 * low, 1.001 * high, BINS + 1)
    return edges


def _draw_deviation(
    panel: Axes, edges: NDArray[np.float64], elapsed: NDArray[np.float64], size: NDArray[np.float64], name: str,
    floor: float,
) -> None:  # fmt: skip
    """Draw median and 90th percentile of absolute deviations over time."""
    which = np.digitize(elapsed, edges) - 1
    used = np.unique(which)
    middle = np.sqrt(edges[used] * edges[used + 1])
    for share, style, label in ((0.5, "-", NAMES[name]), (0.9, ":", None)):
        values = [np.quantile(np.minimum(size[which == bin_], 1e6), share) for bin_ in used]
        panel.plot(middle, np.maximum(values, floor), style, color=COLOURS[name], label=label)


def _draw_changes(
    panel: Axes, edges: NDArray[np.float64], elapsed: NDArray[np.float64], changes: NDArray[np.bool_]
) -> None:
    """Draw the change points per thousand steps over time."""
    steps, _ = np.histogram(elapsed, edges)
    for column, (name, colour) in enumerate((("radius", "#31688e"), ("temperature", "#d1495b"))):
        found, _ = np.histogram(elapsed[changes[:, column]], edges)
        label = f"{name}: {changes[:, column].sum():,}"
        panel.stairs(1000 * found / np.maximum(steps, 1), edges, color=colour, label=label)
    panel.set(xscale="log", xlabel=ELAPSED, ylabel="change points per 1000 steps")
    panel.legend(title="change points")


def _draw_regions(panel: Axes, errors: TraceErrors) -> None:
    """Draw the RMSE of log10 of the radius by region."""
    rows = regions(errors)
    places = np.arange(len(rows))
    for key, marker, colour, label in (
        ("one_step_radius_rmse", "o", "#999999", "one step"), ("radius_rmse", "D", "#d1495b", "along traces"),
    ):  # fmt: skip
        panel.plot([max(row[key], FLOORS[0]) for row in rows], places, marker, color=colour, label=label)
    panel.set_yticks(places, [f"{row['region']} ({row['steps']:,})" for row in rows])
    panel.set(xscale="log", xlabel="RMSE of log10 of the radius, network", ylim=(len(rows) - 0.4, -0.6))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(axis="y", color="#dddddd")
    panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
