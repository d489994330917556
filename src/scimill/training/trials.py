"""The finished trials of a sweep, ranked."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scimill.config import read_yaml
from scimill.errors import InputError
from scimill.training.files import CONFIG, RESULT


class Trial(NamedTuple):
    """A finished trial."""

    path: Path
    loss: float
    """best validation loss"""
    epoch: int
    """epoch of the best loss"""
    steps: int
    values: Mapping[str, Any]
    """the parameters in which the trials differ"""

    @property
    def label(self) -> str:
        """Its name and values, for a picture."""
        return f"{self.path.name}  " + ", ".join(f"{name} {_short(value)}" for name, value in self.values.items())


def read_trials(folder: Path) -> tuple[list[Trial], int]:
    """Read the finished trials of a sweep, best first, and the number of unfinished ones.

    Raises
    ------
    InputError : no trial is finished, or some lack a validation loss.
    """
    runs = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    finished = [run for run in runs if (run / RESULT).exists()]
    if not finished:
        raise InputError(f"no finished trials ({len(runs)} started)", where=str(folder), remedy="train with --sweep")
    configs = [read_yaml(run / CONFIG).values for run in finished]
    varied = [name for name in configs[0] if any(config.get(name) != configs[0][name] for config in configs)]
    trials = [
        _trial(run, {name: config.get(name) for name in varied}) for run, config in zip(finished, configs, strict=True)
    ]
    if not all(math.isfinite(trial.loss) for trial in trials):
        remedy = "train with a --validation-share above 0"
        raise InputError("trials without validation have no loss to rank them by", where=str(folder), remedy=remedy)
    return sorted(trials, key=lambda trial: trial.loss), len(runs) - len(finished)


def _trial(run: Path, values: Mapping[str, Any]) -> Trial:
    try:
        result = json.loads((run / RESULT).read_text("utf-8"))
        return Trial(
            run,
            float("nan" if result["best_loss"] is None else result["best_loss"]),
            int(result["best_epoch"]),
            int(result["step"]),
            values,
        )
    except (ValueError, KeyError, TypeError):
        raise InputError("the result is damaged", where=str(run / RESULT)) from None


def describe_trials(trials: Sequence[Trial]) -> str:
    """Format the trials as a table, one line each."""
    header = ("trial", "loss", "epoch", "steps", *trials[0].values)
    rows = [
        (trial.path.name, f"{trial.loss:.6g}", str(trial.epoch), str(trial.steps), *map(_short, trial.values.values()))
        for trial in trials
    ]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]
    )


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
