"""Maps of a network's errors over radius, time and humidity."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scimill.droplets.learning.errors import Errors
from scimill.droplets.learning.formulas import MODEL_INPUTS
from scimill.pictures import SIZE, STYLE, save

PLANES = (("initial_radius", "time"), ("initial_radius", "relative_humidity"), ("time", "relative_humidity"))
LABELS = {"initial_radius": "initial radius (m)", "time": "time (s)", "relative_humidity": "relative humidity"}
LOGARITHMIC = ("initial_radius", "time")
BINS = 48
FEWEST = 4  # droplets; cells with fewer are left blank


def plot(errors: Errors, folder: Path) -> Path:
    """Draw error-maps.png: the RMSE of log10 of the radius, and of the temperature, over three planes."""
    path = folder / "error-maps.png"
    with mpl.rc_context(STYLE):
        save(draw(errors), path)
    return path


def draw(errors: Errors) -> Figure:
    """Draw the error maps as a figure."""
    figure = Figure(SIZE)
    rows = (("RMSE of log10 of the radius", errors.radius), ("RMSE of the temperature (K)", errors.temperature))
    axes = figure.subplots(2, len(PLANES), squeeze=False)
    for row, (title, values) in enumerate(rows):
        maps = [rms_map(errors, values, plane) for plane in PLANES]
        cells = np.concatenate([cell[np.isfinite(cell) & (cell > 0)] for _, _, cell in maps])
        low, high = np.quantile(cells, (0.02, 0.998)) if cells.size else (1e-3, 1.0)
        for column, (plane, (x, y, cell)) in enumerate(zip(PLANES, maps, strict=True)):
            panel = axes[row, column]
            norm = LogNorm(low, max(high, 1.01 * low))
            mesh = panel.pcolormesh(x, y, cell.T, norm=norm, cmap="magma_r")
            panel.set(xlabel=LABELS[plane[0]], ylabel=LABELS[plane[1]])
            panel.set_xscale("log" if plane[0] in LOGARITHMIC else "linear")
            panel.set_yscale("log" if plane[1] in LOGARITHMIC else "linear")
        figure.colorbar(mesh, ax=axes[row, :], label=title, extend="both")
    figure.suptitle(f"Network errors: {errors.content} (droplets: {len(errors.radius):,})")
    return figure


def rms_map(
    errors: Errors, values: NDArray[np.float32], plane: tuple[str, str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the cell edges along both axes, and the RMS of the values per cell; NaN if there are too few."""
    x, y = (errors.inputs[:, MODEL_INPUTS.index(name)].astype(np.float64) for name in plane)
    edges = [_edges(plane[0], x), _edges(plane[1], y)]
    total, *_ = np.histogram2d(x, y, bins=edges, weights=values.astype(np.float64) ** 2)
    count, *_ = np.histogram2d(x, y, bins=edges)
    with np.errstate(invalid="ignore", divide="ignore"):
        return edges[0], edges[1], np.where(count >= FEWEST, np.sqrt(total / count), np.nan)


def _edges(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = 0.99 * low, 1.01 * high
    space = np.geomspace if name in LOGARITHMIC else np.linspace
    result: NDArray[np.float64] = space(low, high, BINS + 1)
    result[0], result[-1] = low, high
    return result
