"""Draw the pairs of a store."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from scimill.errors import InputError
from scimill.parallel.report import describe_count
from scimill.pictures import SIZE, STYLE, make_folder, save
from scimill.sky import fields
from scimill.sky.exchange.nodes import write_time
from scimill.sky.exchange.stored import PairRows, open_pairs, pick_rows, read_rows
from scimill.sky.kernels import celsius

SHEET = (5, 4)  # rows and columns of pairs


def plot_store(store: Path, folder: Path) -> Path:
    """Draw pairs.png: pairs spread evenly over the store, their two images side by side.

    Raises
    ------
    InputError : the store does not exist, or has no undamaged pair.
    StorageError : the picture cannot be written.

    """
    with open_pairs(store) as reader:
        wanted = pick_rows(reader, SHEET[0] * SHEET[1]) if reader.layout.rows else np.empty(0, np.int64)
        if not wanted.size:
            raise InputError("the store has no undamaged pair", where=str(store))
        rows, total = read_rows(reader, wanted), reader.layout.rows
        moments = fields.thermal_moments(reader)
    make_folder(folder)
    with mpl.rc_context(STYLE):
        title = (
            f"{store.name}: {len(wanted)} of {describe_count(total, 'pair')}; "
            f"temperature {moments.mean:.1f} ± {moments.deviation:.1f} °C"
        )
        save(draw_sheet(rows, title), folder / "pairs.png")
    return folder / "pairs.png"


def draw_sheet(rows: PairRows, title: str) -> Figure:
    """Draw the pairs in a grid; all thermal images share one colour scale."""
    figure = Figure(SIZE)
    grid = figure.subplots(*SHEET, squeeze=False)
    degrees = celsius.stored_to_celsius(rows["thermal"])
    low, high = np.quantile(degrees, (0.005, 0.995))
    height, width = degrees.shape[1:]
    shown = None
    for axes in grid.ravel():
        axes.set_axis_off()
    for number, axes in enumerate(grid.ravel()[: len(degrees)]):
        axes.imshow(rows["rgb"][number], extent=(0, width, height, 0))
        shown = axes.imshow(degrees[number], extent=(width, 2 * width, height, 0), cmap="inferno", vmin=low, vmax=high)
        axes.set(xlim=(0, 2 * width), ylim=(height, 0))
        axes.set_title(_caption(rows, number), fontsize=9, loc="left", pad=3)
    if shown is not None:
        figure.colorbar(shown, ax=grid, label="temperature (°C)", shrink=0.8, aspect=40)
    figure.suptitle(title)
    return figure


def _caption(rows: PairRows, number: int) -> str:
    """Describe a pair by node, pointing, time and elevation of the sun."""
    date = write_time(int(rows["time"][number]))[:16].replace("T", " ")
    place = f"{rows['node'][number].decode()} {rows['pointing'][number].decode()}".strip()
    return f"{place}   {date}   sun {rows['sun_elevation'][number]:+.0f}°"
