"""Two I/O traces side by side, as a PNG file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scimill.bench.kernels.similarity import SimilarityPart, Trace, extents, localities, overall
from scimill.pictures import SIZE, STYLE, save

COLOURS = ("#31688e", "#d1495b")
Named = tuple[str, Trace]


def plot_traces(a: Named, b: Named, parts: Mapping[str, SimilarityPart], path: Path) -> None:
    """Draw both traces and the parts of their similarity.

    Raises
    ------
    StorageError : the picture cannot be written.

    """
    with mpl.rc_context(STYLE):
        save(draw_traces(a, b, parts), path)


def draw_traces(a: Named, b: Named, parts: Mapping[str, SimilarityPart]) -> Figure:
    """Draw what each part compares, A beside B."""
    traces = [trace for _, trace in (a, b)]
    figure = Figure(SIZE)
    panels = figure.subplots(2, 4)
    names = [Path(name).name for name, _ in (a, b)]
    figure.suptitle(f"A: {names[0]}, B: {names[1]}. Similarity {overall(list(parts.values())):.3f} (scimill's metric)")
    draw_parts(panels[0, 0], parts)
    draw_shares(panels[0, 1], [trace.counts() for trace in traces], "operations")
    draw_shares(panels[1, 1], [localities(trace) for trace in traces], "where transfers begin")
    draw_steps(panels[0, 2], [_joined(trace.sizes()) for trace in traces], "bytes of a transfer")
    draw_steps(panels[1, 2], [extents(trace) for trace in traces], "bytes touched of a file")
    draw_steps(panels[0, 3], [trace.gaps() / 1e9 for trace in traces], "gap between operations (s)")
    draw_steps(panels[1, 3], [_joined(trace.durations()) / 1e9 for trace in traces], "duration (s)")
    draw_rate(panels[1, 0], traces)
    return figure


def _joined(of_kinds: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *of_kinds.values()])


def draw_parts(axes: Axes, parts: Mapping[str, SimilarityPart]) -> None:
    """Bars of the parts; a part that only one side records has none."""
    names = list(parts)[::-1]
    values = [parts[name].value for name in names]
    axes.barh(names, [value or 0.0 for value in values], color="#888888", height=0.6)
    for row, value in enumerate(values):
        axes.text(0.02, row, "not recorded by both" if value is None else f"{value:.3f}", va="center")
    axes.set(xlim=(0, 1), xlabel="similarity of each part")


def draw_shares(axes: Axes, counts: Sequence[Mapping[str, int]], what: str) -> None:
    """Bars of shares by name, A above B."""
    names = sorted(set().union(*counts), key=lambda name: max(side.get(name, 0) for side in counts))
    for shift, side, colour, label in zip((0.2, -0.2), counts, COLOURS, "AB", strict=True):
        total = max(1, sum(side.values()))
        axes.barh(
            np.arange(len(names)) + shift, [side.get(name, 0) / total for name in names], 0.4, color=colour, label=label
        )
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set(xlabel=f"{what} (share)", xlim=(0, 1))
    axes.legend(loc="lower right")


def draw_steps(axes: Axes, samples: Sequence[NDArray[Any]], what: str) -> None:
    """Histograms on a logarithmic axis, each as a share of its sample."""
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
    """Bytes that have been moved until each share of the trace's time."""
    for trace, colour in zip(traces, COLOURS, strict=True):
        size = np.where(trace.transfers(), trace.size, 0)
        done = np.cumsum(size) / max(1, size.sum())
        since = (trace.start - trace.start[0]) / max(1, trace.start[-1] - trace.start[0])
        step = max(1, len(trace) // 2000)
        axes.plot(since[::step], done[::step], color=colour, linewidth=2)
    axes.set(xlabel="share of the time", ylabel="share of the bytes moved", xlim=(0, 1), ylim=(0, 1))
