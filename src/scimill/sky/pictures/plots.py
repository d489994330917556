"""Pictures of a store of pairs."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from scimill.errors import InputError
from scimill.pictures import SIZE, STYLE, make_folder, save
from scimill.sky import fields
from scimill.sky.exchange.nodes import write_time
from scimill.sky.exchange.stored import PairRows, open_pairs, read_rows, pick_rows
from scimill.sky.kernels import celsius

SHEET = (5, 4)  # rows and columns of pairs


def plot_store(store: Path, folder: Path) -> Path:
    """Draw pairs.png: pairs from all over the store, both images side by side on the same field of view.

    Raises
    ------
    InputError : no such store, or no whole pair in it.
    StorageError : it cannot be written.

    """
    with open_pairs(store) as reader:
        wanted = pick_rows(reader, SHEET[0] * SHEET[1]) if reader.layout.rows else np.empty(0, np.int64)
        if not wanted.size:
            raise InputError("no pair of the store is whole", where=str(store))
        rows, total = read_rows(reader, wanted), reader.layout.rows
        moments = fields.thermal_moments(reader)
    make_folder(folder)
    with mpl.rc_context(STYLE):
        title = (
            f"{store.name}: {len(wanted)} of {total:,} pairs; thermal {moments.mean:.1f} ± {moments.deviation:.1f} °C"
        )
        save(draw_sheet(rows, title), folder / "pairs.png")
    return folder / "pairs.png"


def draw_sheet(rows: PairRows, title: str) -> Figure:
    """Make the figure; all thermal images have one scale of colours."""
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
        figure.colorbar(shown, ax=grid, label="°C", shrink=0.8, aspect=40)
    figure.suptitle(title)
    return figure


def _caption(rows: PairRows, number: int) -> str:
    """Node, pointing, time and the sun's elevation of a pair."""
    date = write_time(int(rows["time"][number]))[:16].replace("T", " ")
    place = f"{rows['node'][number].decode()} {rows['pointing'][number].decode()}".strip()
    return f"{place}   {date}   sun {rows['sun_elevation'][number]:+.0f}°"
