"""Pictures of roll-outs: how errors and water of networks develop along the steps, and the sizes at the end."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scimill.droplets.learning.rollout import BASE, UNCHANGED, ContenderOutcome, Rollout, size_edges
from scimill.pictures import SIZE, STYLE, save

CURVES = {"radius_rmse": "RMSE of log10 r", "temperature_rmse": "RMSE of T (K)", "water": "water over exact"}
LINEAR = 0.1  # water ratios nearer to 1 than this are shown on a linear axis
MOST_ROWS = 4  # time steps of one picture
COLORS = mpl.color_sequences["tab10"]


def plot(rollouts: Sequence[Rollout], path: Path) -> Path:
    """Draw the roll-outs of a case, one row per time step."""
    with mpl.rc_context(STYLE):
        save(draw(rollouts), path)
    return path


def draw(rollouts: Sequence[Rollout]) -> Figure:
    """Draw the roll-outs of a case as a figure; of many time steps, only the first ones."""
    shown = rollouts[:MOST_ROWS]
    figure = Figure(SIZE)
    axes = figure.subplots(len(shown), len(CURVES) + 1, squeeze=False)
    for row, (rollout, panels) in enumerate(zip(shown, axes, strict=True)):
        for panel, (measure, label) in zip(panels, CURVES.items(), strict=False):
            _draw_curves(panel, rollout, measure)
            panel.set(title=label if row == 0 else "", xlabel="step" if row == len(shown) - 1 else "")
        _draw_sizes(panels[-1], rollout)
        panels[-1].set(title="sizes at the end" if row == 0 else "")
        panels[-1].set_xlabel("radius (m)" if row == len(shown) - 1 else "")
        panels[0].set_ylabel(f"dt = {rollout.dt:g} s")
    lines, labels = axes[0, -1].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=len(lines))
    droplets, steps = len(shown[0].radius), int(shown[0].steps[-1])
    omitted = f"; the first {len(shown)} of {len(rollouts)} time steps" if len(shown) < len(rollouts) else ""
    figure.suptitle(f"{shown[0].case}: {droplets:,} droplets carried through {steps:,} steps{omitted}")
    return figure


def _draw_curves(panel: Axes, rollout: Rollout, measure: str) -> None:
    for outcome, style in styled(rollout):
        panel.plot(rollout.steps, outcome.curves[measure], **style)
    values = [float(value) for outcome in rollout.outcomes for value in outcome.curves[measure]]
    is_wide = max(values) > 0
    if measure == "water":
        panel.axhline(1, color="black", linewidth=2, zorder=0)
        is_wide &= min(values) < 1 - LINEAR or max(values) > 1 + LINEAR
    if is_wide:
        panel.set_yscale("log", nonpositive="mask")


def _draw_sizes(panel: Axes, rollout: Rollout) -> None:
    edges = size_edges(rollout).tolist()
    panel.hist(rollout.radius, edges, color="lightgrey", label="exact")
    for outcome, style in styled(rollout):
        panel.hist(outcome.radius, edges, histtype="step", **style)
    panel.set_xscale("log")
    panel.set_ylabel("droplets")


def styled(rollout: Rollout) -> list[tuple[ContenderOutcome, dict[str, Any]]]:
    """Return the outcomes with their line styles: a colour per network, its base dotted, no change dashed grey."""
    networks = list(dict.fromkeys(outcome.rival for outcome in rollout.outcomes if outcome.kind != UNCHANGED))
    return [(outcome, _style(outcome, networks)) for outcome in rollout.outcomes]


def _style(outcome: ContenderOutcome, networks: list[str]) -> dict[str, Any]:
    if outcome.kind == UNCHANGED:
        return {"color": "grey", "linestyle": "--", "label": outcome.name}
    line = ":" if outcome.kind == BASE else "-"
    return {"color": COLORS[networks.index(outcome.rival) % len(COLORS)], "linestyle": line, "label": outcome.name}
