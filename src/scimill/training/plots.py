"""Pictures of training: the losses and the learning rate of a run, and the trials of a sweep."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from scimill.pictures import SIZE, STYLE, make_folder, save
from scimill.training.metrics import Curves, read_curves
from scimill.training.trials import Trial

COLORS = {"train": "#31688e", "validation": "#d1495b"}
MOST_CURVES = 12  # trials with a curve


def plot_run(run: Path, folder: Path) -> Path:
    """Draw training.png: the loss, its terms and the learning rate of a run, finished or not.

    Raises
    ------
    InputError : the metrics are missing.
    StorageError : it cannot be written.

    """
    curves = read_curves(run)
    make_folder(folder)
    with mpl.rc_context(STYLE):
        save(draw_run(curves, run.name), folder / "training.png")
    return folder / "training.png"


def draw_run(curves: Curves, name: str) -> Figure:
    """Make the figure: one panel for the loss, one for its terms, one below for the learning rate."""
    figure = Figure(SIZE)
    total, terms, rate = figure.subplot_mosaic([["loss", "terms"], ["rate", "rate"]], height_ratios=[2, 1]).values()
    for split, color in COLORS.items():
        if split in curves:
            columns = curves[split]
            marker = "o" if split == "validation" else ""
            total.plot(columns["step"], columns["loss"], color=color, marker=marker, markersize=3, label=split)
            _draw_terms(terms, columns, split, named=split == "validation" or len(curves) == 1)
    total.set(title="Loss", ylabel="mean loss per sample")
    terms.set(title="Terms of the loss (thin lines: training)", ylabel="mean per sample")
    for axes in (total, terms):
        axes.set(xlabel="step", yscale="log")
        axes.legend()
    train = curves.get("train") or curves["validation"]
    rate.plot(train["step"], train["learning_rate"], color="#666666")
    rate.set(title="Learning rate", xlabel="step", ylabel="learning rate")
    figure.suptitle(f"Training of {name}")
    return figure


def _draw_terms(axes: Axes, columns: dict[str, NDArray[np.float64]], split: str, *, named: bool) -> None:
    names = [name for name in columns if name.startswith("loss_")]
    for number, name in enumerate(names):
        style: Any = {"alpha": 0.4, "lw": 0.8} if split == "train" else {"marker": "o", "ms": 3}
        label = f"{name.removeprefix('loss_')}, {split}" if named else None
        axes.plot(columns["step"], columns[name], color=f"C{number}", label=label, **style)


def plot_trials(trials: Sequence[Trial], path: Path) -> None:
    """Draw the trials of a sweep, best first: their losses, and their validation loss by epoch."""
    with mpl.rc_context(STYLE):
        save(draw_trials(trials), path)


def draw_trials(trials: Sequence[Trial]) -> Figure:
    """Make the figure."""
    figure = Figure(SIZE)
    ranking, curves = figure.subplots(1, 2)
    ranking.barh(range(len(trials)), [trial.loss for trial in trials], color=COLORS["train"])
    ranking.set_yticks(range(len(trials)), [trial.label for trial in trials])
    ranking.invert_yaxis()
    ranking.set(xscale="log", xlabel="best validation loss", title="Finished trials")
    for trial in trials[:MOST_CURVES]:
        columns = read_curves(trial.path).get("validation")
        if columns is not None:
            curves.plot(columns["epoch"] + 1, columns["loss"], marker="o", markersize=3, label=trial.path.name)
    curves.set(
        xlabel="epoch", ylabel="validation loss", yscale="log", title=f"Best trials by epoch (at most {MOST_CURVES})"
    )
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    curves.legend()
    return figure
