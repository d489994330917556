"""Pictures of roll-outs show the curves and sizes that were measured."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scimill import pictures
from scimill.droplets.learning.rollout import BASE, MEASURES, NETWORK, UNCHANGED, ContenderOutcome, Rollout
from scimill.droplets.pictures import rollouts


def make_rollout(dt: float = 0.1, steps: int = 30, scale: float = 1.0) -> Rollout:
    stream, points = np.random.default_rng(7), np.arange(1, steps + 1)

    def outcome(name: str, kind: str, rival: str) -> ContenderOutcome:
        curves = {measure: scale * stream.random(steps) for measure in MEASURES}
        return ContenderOutcome(name, kind, rival, curves, {}, stream.lognormal(-12, 0.5, 50), 0.0, {})

    outcomes = [
        outcome("a", NETWORK, "a"), outcome("base of a", BASE, "a"), outcome("no change", UNCHANGED, UNCHANGED)
    ]  # fmt: skip
    return Rollout("fog", dt, points, np.ones(steps), np.zeros(steps), stream.lognormal(-12, 0.5, 50), outcomes)


@pytest.fixture(autouse=True)
def low_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "DPI", 40)


def test_picture_shows_the_curves_and_sizes() -> None:
    found = [make_rollout(0.1), make_rollout(1.0)]
    panels = rollouts.draw(found).axes
    assert len(panels) == 2 * 4
    for row, one in enumerate(found):
        for column, measure in enumerate(rollouts.CURVES):
            lines = {line.get_label(): line for line in panels[4 * row + column].lines}
            for outcome in one.outcomes:
                x, y = lines[outcome.name].get_data()
                assert np.array_equal(x, one.steps)
                assert np.array_equal(y, outcome.curves[measure])
        assert sum(bar.get_height() for bar in panels[4 * row + 3].containers[0]) == len(one.radius)
        assert panels[4 * row].get_ylabel() == f"dt = {one.dt:g} s"


@pytest.mark.parametrize(
    "found",
    [[make_rollout(steps=1)], [make_rollout(scale=0.0)]],
    ids=["one step", "all zero"],
)
def test_odd_rollouts_are_drawn(found: list[Rollout], tmp_path: Path) -> None:
    with Image.open(rollouts.plot(found, tmp_path / "a.png")) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (533, 300))


def test_time_steps_that_are_not_shown_are_announced() -> None:
    figure = rollouts.draw([make_rollout(dt) for dt in range(1, 8)])
    assert len(figure.axes) == 4 * rollouts.MOST_ROWS
    assert "the first 4 of 7 time steps" in figure.get_suptitle()
