"""Figures of turbulence from arrays: fields, time traces, spectra, an animation. Each picture fits a slide."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from scimill.errors import ConfigError
from scimill.files import replacing
from scimill.pictures import SIZE

Array = NDArray[np.floating]

SIGNED = "RdBu_r"
LINES = ("#31688e", "#d1495b", "#edae49", "#66a182", "#8d96a3")
FAINT = "#dddddd"
COLOUR_QUANTILE = 0.998  # share of the points within the colour scale, so a few peaks do not make the rest pale
FRAME_SIZE, FRAME_DPI = (12.0, 4.1), 80  # inches, dots per inch of an animation
FRAMES_PER_SECOND = 12
DECADES = 1e3
"""Ratio of values above which the axis of a time trace is logarithmic."""

LABELS = {
    "density": "density n",
    "vorticity": "vorticity ω = ∇²φ",
    "potential": "potential φ",
    "density_correction": "correction of n",
    "vorticity_correction": "correction of ω",
}


@dataclasses.dataclass(frozen=True)
class FieldFrame:
    """Fields at one time, each of shape (x, y)."""

    time: float
    fields: Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line of a diagram, with its range of variation if it has one."""

    label: str
    x: Array
    y: Array
    low: Array | None = None
    high: Array | None = None
    is_reference: bool = False


def half_range(values: Iterable[Array]) -> float:
    """Return half the range of a signed colour scale; 1 if all values are zero."""
    sizes = np.concatenate([np.abs(array).ravel() for array in values])
    return float(np.quantile(sizes, COLOUR_QUANTILE)) or 1.0


def _show(axes: Axes, field: Array, box: float, half: float) -> AxesImage:
    """Draw a field with x to the right and y upwards."""
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)
    return axes.imshow(
        field.T,
        origin="lower",
        extent=(0, box, 0, box),
        cmap=SIGNED,
        norm=CenteredNorm(halfrange=half),
        interpolation="antialiased",
    )


def draw_fields(frames: Sequence[FieldFrame], box: float, title: str) -> Figure:
    """Draw fields in rows and times in columns; each row has one colour scale."""
    figure = Figure(SIZE)
    figure.suptitle(title)
    names = list(frames[0].fields)
    panels = figure.subplots(len(names), len(frames), squeeze=False, sharex=True, sharey=True)
    for row, name in zip(panels, names, strict=True):
        half = half_range(frame.fields[name] for frame in frames)
        for axes, frame in zip(row, frames, strict=True):
            image = _show(axes, frame.fields[name], box, half)
        row[0].set_ylabel("y / ρs")
        figure.colorbar(image, ax=row.tolist(), label=LABELS[name], extend="both", aspect=12, pad=0.015)
    for axes, frame in zip(panels[0], frames, strict=True):
        axes.set_title(f"t = {frame.time:.6g} Lₙ/cs")
    for axes in panels[-1]:
        axes.set_xlabel("x / ρs")
    return figure


def draw_traces(panels: Mapping[str, Sequence[Curve]], title: str) -> Figure:
    """Draw quantities over time, one panel below the other; the names in `panels` are the axis labels."""
    figure = Figure(SIZE)
    figure.suptitle(title)
    for axes, (label, curves) in zip(
        np.atleast_1d(figure.subplots(len(panels), 1, sharex=True)), panels.items(), strict=True
    ):
        _draw_curves(axes, curves)
        axes.set_ylabel(label)
        if (bottom := _bottom_of_decades(curves)) is not None:
            axes.set(yscale="log", ylim=(bottom, None))
        axes.margins(x=0)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))  # outside the axes, so it hides no line
    axes.set_xlabel("time / (Lₙ/cs)")
    return figure


def draw_spectra(panels: Mapping[str, Sequence[Curve]], title: str, limits: Mapping[str, float]) -> Figure:
    """Draw spectra over the wavenumber, side by side.

    Parameters
    ----------
    panels : curves by the label of their axis.
    title : title of the picture.
    limits : wavenumbers to mark, by their meaning.
    """
    figure = Figure(SIZE)
    figure.suptitle(title)
    for axes, (label, curves) in zip(
        np.atleast_1d(figure.subplots(1, len(panels), sharex=True)), panels.items(), strict=True
    ):
        _draw_curves(axes, curves)
        is_signed = any(curve.y.size and curve.y.min() < -1e-3 * curve.y.max() for curve in curves)
        axes.set(xscale="log", xlabel="wavenumber k · ρs", ylabel=label)
        for (meaning, k), style in zip(limits.items(), ("--", ":", "-.", "-"), strict=False):
            axes.axvline(k, color="#666666", linestyle=style, linewidth=1.2, label=meaning)
        if not is_signed:
            axes.set_yscale("log")
            _leave_out_rounding(axes, curves)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)  # outside the axes, so it hides no line
    return figure


def _draw_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    axes.grid(color=FAINT, linewidth=0.6)
    coloured = iter(LINES * (1 + len(curves) // len(LINES)))
    for curve in curves:
        colour, style = ("#333333", "--") if curve.is_reference else (next(coloured), "-")
        axes.plot(curve.x, curve.y, color=colour, linestyle=style, linewidth=1.9, label=curve.label)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)


def _bottom_of_decades(curves: Sequence[Curve]) -> float | None:
    """Return the bottom of a logarithmic axis, or None if a linear axis shows the values well enough.

    Outliers far below all other values, such as the first value of a run, are ignored.
    """
    values = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in curves])
    if not values.size or values.min() <= 0:
        return None
    low = float(np.quantile(values, 0.01))
    return 0.5 * low if values.max() > DECADES * low else None


def _leave_out_rounding(axes: Axes, curves: Sequence[Curve]) -> None:
    """Limit a logarithmic axis so that a spectrum that falls to rounding level does not stretch it."""
    tops = [float(curve.y.max()) for curve in curves if curve.y.size and curve.y.max() > 0]
    if tops:
        axes.set_ylim(bottom=max(axes.get_ylim()[0], max(tops) * 1e-14))


def check_animation(kind: str) -> None:
    """Refuse an animation that cannot be made here.

    Raises
    ------
    ConfigError : an MP4 is asked for, and ffmpeg is missing.
    """
    if kind == "mp4" and not FFMpegWriter.isAvailable():
        raise ConfigError(
            "an MP4 needs ffmpeg, which is not on PATH",
            where="flag --animation",
            remedy="install ffmpeg, or use --animation gif",
        )


def animate(frames: Iterable[FieldFrame], halves: Mapping[str, float], box: float, path: Path) -> None:
    """Write an animation of the fields over time; the suffix of the file determines its format.

    Parameters
    ----------
    frames : in order of time, read one by one; all have the same fields.
    halves : half the range of the colour scale of each field.
    box : side of the box.
    path : ends in .gif or .mp4.

    Raises
    ------
    StorageError : the animation cannot be written.
    """
    figure = Figure(FRAME_SIZE)
    panels = figure.subplots(1, len(halves), squeeze=False)[0]
    images = {}
    for axes, (name, half) in zip(panels, halves.items(), strict=True):
        images[name] = _show(axes, np.zeros((2, 2)), box, half)
        axes.set(title=LABELS[name], xticks=[], yticks=[])
        figure.colorbar(ScalarMappable(CenteredNorm(halfrange=half), SIGNED), ax=axes, shrink=0.8, extend="both")
    heading = figure.suptitle("t = 0 Lₙ/cs")
    with replacing(path, "animation") as part, _named(part, path.suffix) as working:
        writer = _writer(path.suffix)
        with writer.saving(figure, str(working), FRAME_DPI):
            for frame in frames:
                for name, image in images.items():
                    image.set_data(frame.fields[name].T)
                heading.set_text(f"t = {frame.time:.2f} Lₙ/cs")
                writer.grab_frame()


@contextlib.contextmanager
def _named(part: Path, suffix: str) -> Iterator[Path]:
    """Yield a path with the suffix that tells a writer its format; then rename that file to `part`."""
    working = part.with_name(part.name + suffix)
    try:
        yield working
        working.replace(part)
    finally:
        working.unlink(missing_ok=True)


def _writer(suffix: str) -> AbstractMovieWriter:
    if suffix == ".mp4":
        return FFMpegWriter(FRAMES_PER_SECOND, bitrate=4000)
    return PillowWriter(FRAMES_PER_SECOND)
