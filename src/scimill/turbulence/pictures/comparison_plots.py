"""Pictures of a comparison of runs: errors over time, fluxes and spectra."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from scimill.parallel.report import describe_count
from scimill.pictures import STYLE, save
from scimill.turbulence.kernels.spectral import highest_mode
from scimill.turbulence.learning.comparison import Comparison
from scimill.turbulence.pictures.drawing import Curve, draw_spectra, draw_traces

ROUNDING = 1e-12
"""Shells below this share of the largest one contain only rounding errors."""
MEASURES = ("relative error of n", "relative error of ω", "correlation of ω")


def plot(found: Comparison, folder: Path) -> None:
    """Draw errors.png and, if there are statistics, flux.png and spectra.png.

    Raises
    ------
    StorageError : a picture cannot be written.
    """
    with mpl.rc_context(STYLE):
        starts = len(found.starts)
        from_starts = f"{describe_count(starts, 'start')}"
        title = f"Runs compared with the truth filtered to {found.spec.points}², {from_starts}"
        save(
            draw_traces({name: _errors(found, number) for number, name in enumerate(MEASURES)}, title),
            folder / "errors.png",
        )
        if found.averaged:
            members = len(found.averaged["truth"])
            title = f"Fluxes and spectra, mean over {describe_count(members, 'member')}"
            save(draw_traces({"particle flux Γn": _fluxes(found)}, title), folder / "flux.png")
            k = 2 * np.pi / found.spec.box
            limits = {"smallest corrected": k * found.spec.band[0], "2/3 cutoff": k * highest_mode(found.spec.points)}
            save(draw_spectra({"enstrophy ½⟨ω²⟩ per shell": _spectra(found)}, title, limits), folder / "spectra.png")


def _label(found: Comparison, run: str) -> str:
    return run if run == "truth" else f"{run}, {found.points[run]}²"


def _errors(found: Comparison, measure: int) -> list[Curve]:
    """Return the mean over the starts of each run, with the range of the middle half of them."""
    curves = []
    for run in found.followed:
        values = found.measures(run)[:, :, measure]
        label = f"{_label(found, run)}, {found.cost(run):.2g} CPU s per Lₙ/cs"
        low, high = np.quantile(values, [0.25, 0.75], axis=0)
        curves.append(Curve(label, found.times, values.mean(0), low, high))
    if measure == len(MEASURES) - 1:
        level = np.full(len(found.times), found.threshold)
        curves.append(Curve(f"end of horizon, {found.threshold:g}", found.times, level, is_reference=True))
    return curves


def _fluxes(found: Comparison) -> list[Curve]:
    curves = []
    for run, members in found.averaged.items():
        values = np.array([each.flux for each in members])
        times = found.interval * np.arange(1, values.shape[1] + 1)
        label = f"{_label(found, run)}, mean {values.mean():.3f}"
        curves.append(Curve(label, times, values.mean(0), is_reference=run == "truth"))
    return curves


def _spectra(found: Comparison) -> list[Curve]:
    curves = []
    for run, members in found.averaged.items():
        values = np.mean([each.spectrum for each in members], axis=0)
        k = 2 * np.pi / found.spec.box * np.arange(len(values))
        shells = values > ROUNDING * values.max()
        curves.append(Curve(_label(found, run), k[shells], values[shells], is_reference=run == "truth"))
    return curves
