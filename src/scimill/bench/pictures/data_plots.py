"""Pictures of two datasets, or of a dataset and the distribution it should have, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scimill.bench.kernels.similarity import SimilarityPart, overall_similarity
from scimill.bench.pictures.trace_plots import COLOURS, draw_parts
from scimill.bench.similarity.samples import COLUMNS, DatasetSample
from scimill.pictures import SIZE, STYLE, make_folder, save

NamedSample = tuple[str, DatasetSample]
MOST_BARS = 12  # with no more distinct values than this, each gets a bar
LOG_SCALE_RATIO = 1000.0  # an axis is logarithmic if the largest value exceeds the median by this ratio


def plot_pair(a: NamedSample, b: NamedSample, parts: Mapping[str, SimilarityPart], path: Path) -> None:
    """Draw two datasets and the parts of their similarity.

    Raises
    ------
    StorageError : the picture cannot be written.

    """
    with mpl.rc_context(STYLE):
        figure = Figure(SIZE)
        panels = figure.subplots(2, 4).flat
        value = overall_similarity(list(parts.values()))
        figure.suptitle(f"{a[0]} and {b[0]} (similarity {value:.3f} by scimill's own metric)")
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


def plot_data(data: NamedSample, reference: NamedSample, folder: Path) -> list[Path]:
    """Draw a dataset and the distribution it should have: sizes.png and values.png.

    Raises
    ------
    StorageError : the folder is missing, or cannot be written.

    """
    make_folder(folder)
    with mpl.rc_context(STYLE):
        sizes = Figure(SIZE)
        sizes.suptitle(f"File and record sizes of {data[0]} ({data[1].form}) compared with {reference[0]}")
        left, right = sizes.subplots(1, 2)
        draw_sizes(left, right, (data, reference))
        pictures = {"sizes.png": sizes, "values.png": draw_values(data, reference)}
        for name, figure in pictures.items():
            save(figure, folder / name)
    return [folder / name for name in pictures]


def draw_values(data: NamedSample, reference: NamedSample) -> Figure:
    """Draw histograms of all fields."""
    names = list(data[1].fields)
    rows, columns = (5, 8) if len(names) == len(COLUMNS) else (2, -(-len(names) // 2))
    figure = Figure(SIZE)
    figure.suptitle(f"Values of {data[0]} ({data[1].form}) compared with {reference[0]}")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, name in zip(panels.flat, names, strict=False):
        draw_field(axes, name, (data, reference), is_small=rows > 2)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    shown = panels.flat[0].patches[:2]
    figure.legend(shown, [data[0], reference[0]], loc="outside lower center", ncols=2)
    return figure


def draw_sizes(files: Axes, records: Axes, pair: Sequence[NamedSample]) -> None:
    """Draw histograms of the sizes of files and of records."""
    _draw_histograms(files, [np.concatenate(list(sample.sizes.values())) for _, sample in pair], is_logarithmic=True)
    _draw_histograms(records, [sample.records for _, sample in pair], is_logarithmic=False)
    files.set(xlabel="file size (bytes)", ylabel="share of files")
    records.set(xlabel="record size (bytes)", ylabel="share of records")
    files.legend([name for name, _ in pair])


def draw_field(axes: Axes, name: str, pair: Sequence[NamedSample], *, is_small: bool = False) -> None:
    """Draw histograms of one field, with a bar per value if there are few distinct values."""
    values = [sample.fields[name] for _, sample in pair if name in sample.fields]
    present = [value[~np.isnan(value)] for value in values]
    missing = [1 - len(some) / len(every) for some, every in zip(present, values, strict=True)]
    everything = np.concatenate(present).astype(float)
    middle = np.median(np.abs(everything)) if everything.size else 0
    is_logarithmic = bool(
        everything.size and everything.min() >= 0 and everything.max() > LOG_SCALE_RATIO * max(1.0, middle)
    )
    _draw_histograms(
        axes, [np.maximum(some, 1) if is_logarithmic else some for some in present], is_logarithmic=is_logarithmic
    )
    text = f"{name} ({missing[0]:.0%} missing)" if missing[0] else name
    axes.set_title(text, fontsize=8) if is_small else axes.set_xlabel(text)
    axes.set_yticks([])
    if is_small:
        axes.tick_params(labelsize=7)
        axes.xaxis.get_offset_text().set_fontsize(7)


def _draw_histograms(axes: Axes, samples: Sequence[NDArray[Any]], *, is_logarithmic: bool) -> None:
    """Draw histograms of shares: the first sample filled, the second as a line over it."""
    everything = np.concatenate(samples)
    if not everything.size:
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center")
        return
    bins = _bin_edges(everything, is_logarithmic)
    for sample, colour, is_filled in zip(samples, COLOURS, (True, False), strict=False):
        share = np.histogram(sample, bins)[0] / max(1, len(sample))
        axes.stairs(share, bins, color=colour, fill=is_filled, alpha=0.6 if is_filled else 1, linewidth=1.5)
    if is_logarithmic:
        axes.set_xscale("log")
    axes.set_ylim(0, None)


def _bin_edges(values: NDArray[Any], is_logarithmic: bool) -> NDArray[np.float64]:
    """Return bin edges: around each value if there are few, else evenly over their range."""
    values = values.astype(float)
    distinct = np.unique(values[:100_000])
    if is_logarithmic:
        return np.geomspace(max(values.min(), 0.5) / 1.3, values.max() * 1.3 + 1, 49)
    if len(distinct) <= MOST_BARS:
        steps = np.diff(distinct).min() if len(distinct) > 1 else max(1.0, abs(float(distinct[0])) / 10)
        edges = np.concatenate([distinct - 0.4 * steps, distinct + 0.4 * steps])
        return np.unique(np.concatenate([edges, [values.min() - steps, values.max() + steps]]))
    return np.linspace(values.min(), values.max(), 49)
