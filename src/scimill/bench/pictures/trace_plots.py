"""A picture of two I/O traces, as a PNG file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scimill.bench.kernels.similarity import SimilarityPart, Trace, extents, localities, overall_similarity
from scimill.pictures import SIZE, STYLE, save

COLOURS = ("#31688e", "#d1495b")
NamedTrace = tuple[str, Trace]


def plot_traces(a: NamedTrace, b: NamedTrace, parts: Mapping[str, SimilarityPart], path: Path) -> None:
    """Draw both traces and the parts of their similarity.

    Raises
    ------
    StorageError : the picture cannot be written.

    """
    with mpl.rc_context(STYLE):
        save(draw_traces(a, b, parts), path)


def draw_traces(a: NamedTrace, b: NamedTrace, parts: Mapping[str, SimilarityPart]) -> Figure:
    """Draw the quantities that each part compares, for A and B."""
    traces = [trace for _, trace in (a, b)]
    figure = Figure(SIZE)
    panels = figure.subplots(2, 4)
    names = [Path(name).name for name, _ in (a, b)]
    value = overall_similarity(list(parts.values()))
    figure.suptitle(f"A: {names[0]}, B: {names[1]} (similarity {value:.3f} by scimill's own metric)")
    draw_parts(panels[0, 0], parts)
    draw_shares(panels[0, 1], [trace.counts() for trace in traces], "operations")
    panels[0, 1].legend(loc="lower right")
    draw_shares(panels[1, 1], [localities(trace) for trace in traces], "transfers, by start")
    draw_steps(panels[0, 2], [_concatenate(trace.sizes()) for trace in traces], "transfer size (bytes)")
    draw_steps(panels[1, 2], [extents(trace) for trace in traces], "extent accessed in a file (bytes)")
    draw_steps(panels[0, 3], [trace.gaps() / 1e9 for trace in traces], "time between operations (s)")
    draw_steps(panels[1, 3], [_concatenate(trace.durations()) / 1e9 for trace in traces], "duration (s)")
    draw_rate(panels[1, 0], traces)
    return figure


def _concatenate(of_kinds: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *of_kinds.values()])


def draw_parts(axes: Axes, parts: Mapping[str, SimilarityPart]) -> None:
    """Draw a bar for each part; a part that only one side records has none."""
    names = list(parts)[::-1]
    values = [parts[name].value for name in names]
    axes.barh(names, [value or 0.0 for value in values], color="#888888", height=0.6)
    for row, value in enumerate(values):
        axes.text(0.02, row, "not compared" if value is None else f"{value:.3f}", va="center")
    axes.set(xlim=(0, 1), xlabel="similarity")


def draw_shares(axes: Axes, counts: Sequence[Mapping[str, int]], what: str) -> None:
    """Draw bars of shares by name, A above B."""
    names = sorted(set().union(*counts), key=lambda name: max(side.get(name, 0) for side in counts))
    for shift, side, colour, label in zip((0.2, -0.2), counts, COLOURS, "AB", strict=True):
        total = max(1, sum(side.values()))
        axes.barh(
            np.arange(len(names)) + shift, [side.get(name, 0) / total for name in names], 0.4, color=colour, label=label
        )
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set(xlabel=f"share of {what}", xlim=(0, 1))


def draw_steps(axes: Axes, samples: Sequence[NDArray[Any]], what: str) -> None:
    """Draw histograms on a logarithmic axis, each as shares of its sample."""
    positive = [values[values > 0] for values in samples]
    everything = np.concatenate(positive)
    low, high = (everything.min(), everything.max()) if everything.size else (1.0, 10.0)
    bins = np.geomspace(low / 1.2, high * 1.2, 61)
    for values, colour, label in zip(positive, COLOURS, "AB", strict=True):
        if values.size:
            axes.stairs(np.histogram(values, bins)[0] / values.size, bins, color=colour, label=label, linewidth=2)
    axes.set(xscale="log", xlabel=what, ylabel="share", ylim=(0, None))
    if not everything.size:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center")


def draw_rate(axes: Axes, traces: Sequence[Trace]) -> None:
    """Draw the share of bytes transferred over the share of the trace's duration."""
    for trace, colour in zip(traces, COLOURS, strict=True):
        size = np.where(trace.transfers(), trace.size, 0)
        done = np.cumsum(size) / max(1, size.sum())
        since = (trace.start - trace.start[0]) / max(1, trace.start[-1] - trace.start[0])
        step = max(1, len(trace) // 2000)
        axes.plot(since[::step], done[::step], color=colour, linewidth=2)
    axes.set(xlabel="share of the duration", ylabel="share of the bytes transferred", xlim=(0, 1), ylim=(0, 1))
