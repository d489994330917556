"""Score networks by roll-outs: run the cases, describe the results in a table and in words, write and draw them."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scimill.config import plain
from scimill.droplets.learning.models import load_model
from scimill.droplets.learning.network import DropletNetwork
from scimill.droplets.learning.rollout import (
    BASE,
    NETWORK,
    UNCHANGED,
    ContenderOutcome,
    Rollout,
    make_contenders,
    roll_out,
    shared_physics,
    size_edges,
)
from scimill.droplets.params import DropletsRolloutConfig
from scimill.files import replacing
from scimill.parallel.report import Progress, describe_count
from scimill.pictures import make_folder
from scimill.training.threads import one_thread

QUANTITIES = {"radius_rmse": ("log10 r", ""), "temperature_rmse": ("T", " K")}
TIE = 1.001  # an error larger by less than this factor is as good: it prints as the same number
HEADER = ("dt (s)", "", "RMSE log10 r: largest", "last", "RMSE T (K): largest", "last", "water", "activated",
          "diverged", "outside ranges")  # fmt: skip


def score_rollouts(
    paths: Sequence[Path], cases: Mapping[str, DropletsRolloutConfig], folder: Path | None, *, progress: bool = False
) -> str:
    """Run the roll-outs of all cases with some networks.

    Parameters
    ----------
    paths : run directories or model files; the networks to compare.
    cases : configurations by name.
    folder : if given, folder for rollout.json and a picture per case.
    progress : whether to report progress on standard error.

    Returns
    -------
    Tables and verdicts as text.

    Raises
    ------
    InputError : not a model, or trained with different physics.
    NumericalError : the exact integrator failed.
    StorageError : the folder cannot be written.

    """
    models = {label: load_model(path)[0] for label, path in zip(short_labels(paths), paths, strict=True)}
    if folder:
        make_folder(folder)
    rollouts = run_cases(models, cases, progress=progress)
    if folder:
        _write(rollouts, cases, folder)
    tables = [describe_case(name, cases[name], found) for name, found in rollouts.items()]
    return "\n\n".join([*tables, "\n".join(verdicts([run for found in rollouts.values() for run in found]))])


def run_cases(
    models: Mapping[str, DropletNetwork], cases: Mapping[str, DropletsRolloutConfig], *, progress: bool = False
) -> dict[str, list[Rollout]]:
    """Run all cases; return one roll-out for each of their time steps, by case.

    Raises
    ------
    InputError : the networks were trained with different physics.
    NumericalError : the exact integrator failed.

    """
    physics, make = shared_physics(models), partial(make_contenders, models)
    total = sum(config.steps * len(config.dt) for config in cases.values())
    bar = Progress(total, unit="steps", what="roll-outs", enabled=progress)
    found: dict[str, list[Rollout]] = {name: [] for name in cases}
    before = 0
    with one_thread():
        for name, config in cases.items():
            for dt in config.dt:
                found[name].append(roll_out(name, config, dt, physics, make, partial(_report, bar, before)))
                before += config.steps
    bar.close()
    return found


def _report(bar: Progress, before: int, step: int) -> None:
    if bar.due():
        bar.update(before + step)


def short_labels(paths: Sequence[Path]) -> list[str]:
    """Name networks by their run directories or files; by the whole paths if two would be the same."""
    names = [path.parent.name if path.name == "model.pt" and path.parent.name else path.name for path in paths]
    return names if len(set(names)) == len(names) else [f"{path} ({i + 1})" for i, path in enumerate(paths)]


# ---- text -------------------------------------------------------------------------------------------------------


def describe_case(name: str, config: DropletsRolloutConfig, rollouts: Sequence[Rollout]) -> str:
    """Describe the roll-outs of a case: its air, and a table with a row per time step and contender."""
    title = (
        f"{name}: {describe_count(config.droplets, 'droplet')}, {describe_count(config.steps, 'step')}; air "
        f"{config.mean_air_temperature:g} ± {config.air_temperature_deviation:g} K, humidity {config.mean_humidity:g} "
        f"± {config.humidity_deviation:g}, correlation time {config.correlation_time:g} s"
    )
    rows = [HEADER, *(row for rollout in rollouts for row in _rows(rollout))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join([title, *lines])


def _rows(rollout: Rollout) -> list[tuple[str, ...]]:
    rows = [(f"{rollout.dt:g}", outcome.name, *_cells(outcome)) for outcome in rollout.outcomes]
    exact = (f"{rollout.dt:g}", "exact", "0", "0", "0", "0", "x1", f"{rollout.activated[-1]:.1%}", "", "")
    return [*rows, exact]


def _cells(outcome: ContenderOutcome) -> tuple[str, ...]:
    last = {measure: curve[-1] for measure, curve in outcome.curves.items()}
    return (
        f"{outcome.largest['radius_rmse']:.5f}", f"{last['radius_rmse']:.5f}",
        f"{outcome.largest['temperature_rmse']:.4f}", f"{last['temperature_rmse']:.4f}",
        f"x{last['water']:.4g}", f"{last['activated']:.1%}",
        f"{outcome.diverged:.1%}" if outcome.kind != UNCHANGED else "",
        f"{outcome.outside['any']:.1%}" if outcome.outside else "",
    )  # fmt: skip


def verdicts(rollouts: Sequence[Rollout]) -> list[str]:
    """Say in words where a network is worse than no change, and where it is worse than its base."""
    names = [outcome.name for outcome in rollouts[0].outcomes if outcome.kind == NETWORK]
    return [
        line
        for name in names
        for baseline, kind in (("no change", UNCHANGED), ("its base (all weights zero)", BASE))
        for line in _compare(name, baseline, kind, rollouts)
    ]


def _compare(name: str, baseline: str, kind: str, rollouts: Sequence[Rollout]) -> list[str]:
    lost = [text for rollout in rollouts if (text := _losses(rollout, name, kind))]
    count = describe_count(len(rollouts), "roll-out")
    if not lost:
        return [f"{name} is at least as good as {baseline} after the last step of {count}."]
    return [f"{name} is worse than {baseline} after the last step of {len(lost)} of {count}; RMSE:",
            *(f"  {text}" for text in lost)]  # fmt: skip


def _losses(rollout: Rollout, name: str, kind: str) -> str:
    """Describe the quantities in which a network ends worse than a baseline; empty if there are none."""
    network, other = find_outcome(rollout, name, NETWORK), find_outcome(rollout, name, kind)
    lost = [
        f"{words} {ours:.4g}{unit} instead of {theirs:.4g}{unit}"
        for measure, (words, unit) in QUANTITIES.items()
        if (ours := network.curves[measure][-1]) > TIE * (theirs := other.curves[measure][-1])
    ]
    return f"{rollout.case}, dt {rollout.dt:g} s: {', '.join(lost)}" if lost else ""


def find_outcome(rollout: Rollout, name: str, kind: str) -> ContenderOutcome:
    """Find the outcome of a network, of its base, or of no change."""
    rival = UNCHANGED if kind == UNCHANGED else name
    return next(outcome for outcome in rollout.outcomes if (outcome.kind, outcome.rival) == (kind, rival))


# ---- files ------------------------------------------------------------------------------------------------------


def _write(rollouts: Mapping[str, list[Rollout]], cases: Mapping[str, DropletsRolloutConfig], folder: Path) -> None:
    from scimill.droplets.pictures.rollouts import plot

    for name, found in rollouts.items():
        plot(found, folder / f"rollout-{name}.png")
    content = {
        name: {"config": plain(cases[name]), "rollouts": [to_dict(one) for one in found]}
        for name, found in rollouts.items()
    }
    with replacing(folder / "rollout.json", "scores of roll-outs") as part:
        part.write_text(json.dumps(content, indent=1), "utf-8")


def to_dict(rollout: Rollout) -> dict[str, Any]:
    """Convert a roll-out to plain numbers and strings: measures, curves, and size distributions at the end."""
    edges = size_edges(rollout)

    def sizes(radius: np.ndarray[Any, np.dtype[np.float64]]) -> list[int]:
        counts: list[int] = np.histogram(radius, edges)[0].tolist()
        return counts

    return {
        "dt": rollout.dt,
        "step": rollout.steps.tolist(),
        "size_edges": edges.tolist(),
        "exact": {
            "water_over_initial": rollout.water.tolist(),
            "activated": rollout.activated.tolist(),
            "sizes": sizes(rollout.radius),
        },
        "outcomes": [{**measures(outcome, rollout), "sizes": sizes(outcome.radius)} for outcome in rollout.outcomes],
    }


def measures(outcome: ContenderOutcome, rollout: Rollout) -> dict[str, Any]:
    """Return the measures of a contender by name, with curves."""
    return {
        "name": outcome.name,
        "kind": outcome.kind,
        **{f"{name}_largest": value for name, value in outcome.largest.items()},
        **{name: float(curve[-1]) for name, curve in outcome.curves.items()},
        "activated_over_exact": _ratio(outcome.curves["activated"][-1], rollout.activated[-1]),
        "diverged": outcome.diverged,
        "outside_ranges": dict(outcome.outside),
        "curves": {name: curve.tolist() for name, curve in outcome.curves.items()},
    }


def _ratio(value: float, exact: float) -> float | None:
    """Return value over exact; None if the exact one is 0, since JSON has no infinity."""
    return float(value / exact) if exact else None
