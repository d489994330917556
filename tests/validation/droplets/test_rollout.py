"""Roll-outs by the real command: a trained network, its baselines, files and pictures, refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mpi import scimill, succeed
from scimill.config import Layer, build
from scimill.droplets.generate import generate
from scimill.droplets.learning.models import load_model
from scimill.droplets.learning.network import predict
from scimill.droplets.learning.rollout import draw_air, draw_population, shared_physics
from scimill.droplets.learning.train import train_network
from scimill.droplets.params import DropletsGenerateConfig, DropletsRolloutConfig, DropletsTrainConfig
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.training.directory import RunDirectory

BRIEF = ("--droplets", 40, "--steps", 25, "--dt", "0.1,1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, configure: Callable[..., DropletsGenerateConfig]) -> Path:
    """Train two small networks of the same physics, and one of other physics; return the folder."""
    folder = tmp_path_factory.mktemp("rollout")
    for store, values in (("data", {}), ("other", {"latent_heat": 2.5e6})):
        config = configure(count=20_000, block_size=1024, **values)
        generate(config, Output(folder / f"{store}.h5"), World(None))
    for name, store, seed in (("first", "data", 1), ("second", "data", 2), ("foreign", "other", 1)):
        brief = {"epochs": 1, "batch_size": 512, "warmup_steps": 5, "hidden": [8, 6], "seed": seed}
        config = build(DropletsTrainConfig, [Layer("test", brief)])
        try:
            train_network(config, folder / f"{store}.h5", RunDirectory(folder / name), World(None))
        finally:
            torch.set_flush_denormal(False)
    return folder


@pytest.fixture(scope="module")
def result(runs: Path) -> tuple[str, Path]:
    """Roll out two networks in two cases; return what is printed, and the folder of the results."""
    done = succeed(
        "droplets", "score", runs / "first", "--against", runs / "second", "--rollout", "chamber,fog", *BRIEF,
        "--output", runs / "score",
    )  # fmt: skip
    return done.stdout, runs / "score"


def test_files_and_pictures(result: tuple[str, Path]) -> None:
    _, folder = result
    assert sorted(path.name for path in folder.iterdir()) == ["rollout-chamber.png", "rollout-fog.png", "rollout.json"]
    for picture in folder.glob("*.png"):
        with Image.open(picture) as image:
            image.load()
            assert (image.format, image.size) == ("PNG", (2400, 1350))


def test_errors_equal_those_of_a_loop_written_out_here(runs: Path, result: tuple[str, Path]) -> None:
    """Compare water over that of droplets that do not change: the exact water cancels."""
    stored = json.loads((result[1] / "rollout.json").read_text())["chamber"]
    config = DropletsRolloutConfig(droplets=40, steps=25, dt=(0.1, 1.0))
    model, _ = load_model(runs / "first")
    start = draw_population(config, shared_physics({"a": model}))
    for one in stored["rollouts"]:
        state, n = start.state.T, len(start.radius)
        for _, air in zip(range(25), draw_air(config, one["dt"]), strict=False):
            columns = (*state.T, start.solute / 0.6, air.temperature, air.humidity, np.full(n, 1.2), np.full(n, air.dt))
            state = predict(model, np.stack(columns, 1))
        network, unchanged = one["outcomes"][0], one["outcomes"][-1]
        water = network["water"] / unchanged["water"]
        assert water == pytest.approx(np.sum(state[:, 0] ** 3) / np.sum(start.radius**3), rel=1e-9)
        assert sum(network["sizes"]) == n


def test_contenders_are_printed_and_judged(result: tuple[str, Path]) -> None:
    text, folder = result
    stored = json.loads((folder / "rollout.json").read_text())
    errors = ("radius_rmse", "temperature_rmse")
    for case, content in stored.items():
        assert f"{case}: 40 droplets, 25 steps" in text
        assert content["config"]["steps"] == 25
        for one in content["rollouts"]:
            names = [outcome["name"] for outcome in one["outcomes"]]
            assert names == ["first", "base of first", "second", "base of second", "no change"]
            assert all(outcome["curves"]["water"][-1] == outcome["water"] for outcome in one["outcomes"])
    worse = [
        (case, one["dt"]) for case, content in stored.items() for one in content["rollouts"]
        if any(one["outcomes"][0][name] > 1.001 * one["outcomes"][-1][name] for name in errors)
    ]  # fmt: skip
    judged = text[text.index("\n\nfirst is ") :]
    if worse:  # one epoch of so small a network
        judged = judged[: judged.index("than its base")]
        assert f"after the last step of {len(worse)} of 4 roll-outs" in judged
        assert all(f"{case}, dt {dt:g} s" in judged for case, dt in worse)
    else:
        assert "first is at least as good as no change" in judged


def test_the_same_seed_gives_the_same_result(runs: Path, result: tuple[str, Path], tmp_path: Path) -> None:
    succeed("droplets", "score", runs / "second", "--rollout", "fog", *BRIEF, "--output", tmp_path / "a")
    again, before = (json.loads((path / "rollout.json").read_text())["fog"] for path in (tmp_path / "a", result[1]))
    for one, other in zip(again["rollouts"], before["rollouts"], strict=True):
        assert one["exact"]["activated"] == other["exact"]["activated"]
        assert one["outcomes"][0] | {"sizes": 0} == other["outcomes"][2] | {"sizes": 0}  # edges depend on all


def test_a_store_and_a_roll_out_in_one_call(runs: Path, tmp_path: Path) -> None:
    done = succeed("droplets", "score", runs / "first", runs / "data.h5", "--rollout", "marine", *BRIEF)
    assert "baseline: no change" in done.stdout
    assert "marine: 40 droplets" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "nothing to score with"),
        (("--rollout", "mist"), 2, "unknown case mist"),
        (("--steps", 5), 2, "need --rollout"),
        (("--against", "second"), 2, "need --rollout"),
        (("--rollout", "fog", "--steps", 0), 2, "out of range"),
        (("--rollout", "fog", "--against", "missing"), 3, "missing"),
        (("--rollout", "fog", "--against", "foreign"), 3, "different physical constants"),
    ],
)
def test_refusals_are_short(words: tuple[object, ...], code: int, message: str, runs: Path) -> None:
    result = scimill("droplets", "score", "first", *words, cwd=runs)
    assert (result.returncode, len(result.errors), result.tracebacks) == (code, 1, 0), result
    assert message in result.stderr
    assert len(result.stderr.splitlines()) <= 4, result
