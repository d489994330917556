"""Two datasets side by side, or one beside its distribution, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scimill.bench.kernels.similarity import SimilarityPart, overall
from scimill.bench.pictures.trace_plots import COLOURS, draw_parts
from scimill.bench.similarity.samples import NAMES, DatasetSample
from scimill.pictures import SIZE, STYLE, make_folder, save

Named = tuple[str, DatasetSample]
FEW = 12  # distinct values that get a bar each
SPREAD = 1000.0  # ratio of the largest to the median value from which on an axis is logarithmic


def plot_pair(a: Named, b: Named, parts: Mapping[str, SimilarityPart], path: Path) -> None:
    """Draw two datasets and the parts of their similarity.

    Raises
    ------
    StorageError : the picture cannot be written.

    """
    with mpl.rc_context(STYLE):
        figure = Figure(SIZE)
        panels = figure.subplots(2, 4).flat
        value = overall(list(parts.values()))
        figure.suptitle(f"{a[0]} and {b[0]}. Similarity {value:.3f} (scimill's metric)")
        draw_parts(panels[0], parts)
        draw_sizes(panels[1], panels[2], (a, b))
        fields = [name for name in a[1].fields if name in b[1].fields]
        places = np.unique(np.linspace(0, len(fields) - 1, 5).round().astype(int)) if fields else ()
        chosen = [fields[i] for i in places]
        for axes, name in zip(panels[3:], chosen, strict=False):
            draw_field(axes, name, (a, b))
        for axes in panels[3 + len(chosen) :]:
            axes.set_axis_off()
        save(figure, path)


def plot_data(data: Named, reference: Named, folder: Path) -> list[Path]:
    """Draw a dataset beside its distribution: sizes.png and values.png.

    Raises
    ------
    StorageError : the folder is missing, or cannot be written.

    """
    make_folder(folder)
    with mpl.rc_context(STYLE):
        sizes = Figure(SIZE)
        sizes.suptitle(f"Sizes: {data[0]} ({data[1].form}) beside {reference[0]}")
        left, right = sizes.subplots(1, 2)
        draw_sizes(left, right, (data, reference))
        pictures = {"sizes.png": sizes, "values.png": draw_values(data, reference)}
        for name, figure in pictures.items():
            save(figure, folder / name)
    return [folder / name for name in pictures]


def draw_values(data: Named, reference: Named) -> Figure:
    """Histograms of all fields."""
    names = list(data[1].fields)
    rows, columns = (5, 8) if len(names) == len(NAMES) else (2, -(-len(names) // 2))
    figure = Figure(SIZE)
    figure.suptitle(f"Values: {data[0]} ({data[1].form}) beside {reference[0]}")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, name in zip(panels.flat, names, strict=False):
        draw_field(axes, name, (data, reference), is_small=rows > 2)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    shown = panels.flat[0].patches[:2]
    figure.legend(shown, [data[0], reference[0]], loc="outside lower center", ncols=2)
    return figure


def draw_sizes(files: Axes, records: Axes, pair: Sequence[Named]) -> None:
    """Histograms of the bytes of files and of records."""
    _draw(files, [np.concatenate(list(sample.sizes.values())) for _, sample in pair], is_logarithmic=True)
    _draw(records, [sample.records for _, sample in pair], is_logarithmic=False)
    files.set(xlabel="bytes of a file", ylabel="share")
    records.set(xlabel="bytes of a record", ylabel="share")
    files.legend([name for name, _ in pair])


def draw_field(axes: Axes, name: str, pair: Sequence[Named], *, is_small: bool = False) -> None:
    """Histogram of one field, or a bar for each of a few values."""
    values = [sample.fields[name] for _, sample in pair if name in sample.fields]
    present = [value[~np.isnan(value)] for value in values]
    missing = [1 - len(some) / len(every) for some, every in zip(present, values, strict=True)]
    everything = np.concatenate(present).astype(float)
    middle = np.median(np.abs(everything)) if everything.size else 0
    is_logarithmic = bool(everything.size and everything.min() >= 0 and everything.max() > SPREAD * max(1.0, middle))
    _draw(axes, [np.maximum(some, 1) if is_logarithmic else some for some in present], is_logarithmic=is_logarithmic)
    text = f"{name}, missing {missing[0]:.0%}" if missing[0] else name
    axes.set_title(text, fontsize=8) if is_small else axes.set_xlabel(text)
    axes.set_yticks([])
    if is_small:
        axes.tick_params(labelsize=7)
        axes.xaxis.get_offset_text().set_fontsize(7)


def _draw(axes: Axes, samples: Sequence[NDArray[Any]], *, is_logarithmic: bool) -> None:
    """Steps of shares, the second sample over the first, filled one."""
    everything = np.concatenate(samples)
    if not everything.size:
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center")
        return
    bins = _bins(everything, is_logarithmic)
    for sample, colour, is_filled in zip(samples, COLOURS, (True, False), strict=False):
        share = np.histogram(sample, bins)[0] / max(1, len(sample))
        axes.stairs(share, bins, color=colour, fill=is_filled, alpha=0.6 if is_filled else 1, linewidth=1.5)
    if is_logarithmic:
        axes.set_xscale("log")
    axes.set_ylim(0, None)


def _bins(values: NDArray[Any], is_logarithmic: bool) -> NDArray[np.float64]:
    """Edges of bins: around each value where they are few, else evenly over their range."""
    values = values.astype(float)
    distinct = np.unique(values[:100_000])
    if is_logarithmic:
        return np.geomspace(max(values.min(), 0.5) / 1.3, values.max() * 1.3 + 1, 49)
    if len(distinct) <= FEW:
        steps = np.diff(distinct).min() if len(distinct) > 1 else max(1.0, abs(float(distinct[0])) / 10)
        edges = np.concatenate([distinct - 0.4 * steps, distinct + 0.4 * steps])
        return np.unique(np.concatenate([edges, [values.min() - steps, values.max() + steps]]))
    return np.linspace(values.min(), values.max(), 49)
