"""Sweeps: their combinations and ranges, mistakes in them, and trials that are trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mpi import scimill as run_command
from scimill.cli import scimill
from scimill.droplets.generate import generate
from scimill.droplets.params import DropletsGenerateConfig
from scimill.errors import ConfigError
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.training.sweep import combinations, read_trial

LARGEST = 4096
"""Maximum bytes of a message: it must fit a screen."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, configure: Callable[..., DropletsGenerateConfig]) -> Path:
    path = tmp_path_factory.mktemp("store") / "droplets.h5"
    generate(configure(count=256, block_size=64, tolerance=1e-4), Output(path), World(None))
    return path


@pytest.fixture(autouse=True)
def outside_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_ARRAY_TASK_ID", "PBS_ARRAY_INDEX"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def to_file(text: str) -> Path:
        path = tmp_path / "sweep.yaml"
        path.write_text(text, "utf-8")
        return path

    return to_file


SWEEP = "learning_rate: [0.01, 0.02]\nhidden: [[4], [4, 3], [5]]\nepochs: 1\nbatch_size: 50\n"
TRIALS = [
    {"learning_rate": rate, "hidden": widths, "epochs": 1, "batch_size": 50}
    for rate in (0.01, 0.02)
    for widths in ([4], [4, 3], [5])
]


def train(*args: object) -> Any:
    """Run the training command in this process."""
    return scimill.main(["droplets", "train", *map(str, args)], prog_name="scimill", standalone_mode=False)


def configuration(run: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((run / "config.yaml").read_text("utf-8")))


# ---- combinations and ranges ------------------------------------------------------------------------------------


def test_every_combination_is_one_trial_and_the_last_key_changes_first(write: Callable[[str], Path]) -> None:
    path = write(SWEEP)
    assert [read_trial(path, trial).values for trial in range(6)] == TRIALS


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("{low: 1, high: 2, points: 5}", [1, 1.25, 1.5, 1.75, 2]),
        ("{low: 1e-4, high: 1e-2, points: 3, spacing: logarithmic}", [1e-4, 1e-3, 1e-2]),
        ("{low: 1e-2, high: 1e-4, points: 3, spacing: logarithmic}", [1e-2, 1e-3, 1e-4]),
        ("{low: 0.25, high: 7, points: 1}", [0.25]),
        ("[0.3, 0.1, 0.2]", [0.3, 0.1, 0.2]),
        ("0.5", [0.5]),
    ],
)
def test_a_range_is_its_points(text: str, values: list[float]) -> None:
    trials = list(combinations({"weight_decay": yaml.safe_load(text)}, "here"))
    assert [trial["weight_decay"] for trial in trials] == pytest.approx(values, rel=1e-14)


def test_the_ends_of_a_range_are_exact() -> None:
    """So a trial has exactly the requested values, and the largest allowed value may be an end."""
    for spacing in ("linear", "logarithmic"):
        asked = {"low": 3e-4, "high": 0.07, "points": 7, "spacing": spacing}
        values = [trial["x"] for trial in combinations({"x": asked}, "here")]
        assert (values[0], values[-1]) == (3e-4, 0.07)


# ---- what is wrong ----------------------------------------------------------------------------------------------

WRONG_SWEEPS = {
    "an empty list": "epochs: []",
    "an empty range": "epochs: {}",
    "a range without an end": "learning_rate: {low: 1, points: 3}",
    "a range of no points": "learning_rate: {low: 1, high: 2, points: 0}",
    "a range of half a point": "learning_rate: {low: 1, high: 2, points: 1.5}",
    "a range of too many points": "learning_rate: {low: 1, high: 2, points: 1000000}",
    "an unknown spacing": "learning_rate: {low: 1, high: 2, points: 3, spacing: square}",
    "an unknown word": "learning_rate: {low: 1, high: 2, points: 3, steps: 3}",
    "a logarithm of zero": "learning_rate: {low: 0, high: 2, points: 3, spacing: logarithmic}",
    "logarithms through zero": "learning_rate: {low: -1, high: 2, points: 3, spacing: logarithmic}",
    "an endless range": "learning_rate: {low: 0, high: .inf, points: 3}",
    "a text for a number": "learning_rate: {low: a, high: b, points: 3}",
    "an unknown parameter": "learning_rat: [1, 2]",
    "a value that is not allowed": "learning_rate: [-1, 2]",
    "a fraction of an epoch": "epochs: {low: 1.5, high: 2, points: 2}",
    "no mapping": "- 1\n- 2",
    "no YAML": "epochs: [1, 2",
    "no text": "\0",
}


@pytest.mark.parametrize("name", WRONG_SWEEPS)
def test_a_wrong_sweep_is_refused_with_a_short_message(name: str, write: Callable[[str], Path]) -> None:
    path = write(WRONG_SWEEPS[name])
    with pytest.raises(ConfigError) as caught:
        train("droplets.h5", "--output", path.parent / "runs", "--sweep", path, "--trial", 0)
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) < LARGEST
    assert str(path) in str(caught.value)
    assert not (path.parent / "runs").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--trial", 6), "the sweep has no trial 6"),
        (("--trial", -1), "-1 is not in the range x>=0"),
        (("--trial", "two"), "'two' is not a valid integer"),
        ((), "--sweep needs --trial"),
    ],
)
def test_a_trial_that_is_not_there_is_refused(
    args: tuple[object, ...], message: str, write: Callable[[str], Path]
) -> None:
    path = write(SWEEP)
    with pytest.raises(ConfigError, match=message) as caught:
        train("droplets.h5", "--output", path.parent / "runs", "--sweep", path, *args)
    assert caught.value.exit_code == 2
    assert not (path.parent / "runs").exists()


def test_a_trial_of_no_sweep_is_refused(store: Path, tmp_path: Path) -> None:
    """It would not train what was requested."""
    with pytest.raises(ConfigError, match="--trial") as caught:
        train(store, "--output", tmp_path / "runs", "--trial", 1, "--epochs", 1, "--batch-size", 50)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "runs").exists()


def test_the_command_exits_with_2_and_one_message(tmp_path: Path) -> None:
    output = tmp_path / "runs"
    result = run_command("droplets", "train", "a.h5", "--output", output, "--sweep", tmp_path / "none", "--trial", 0)
    assert (result.returncode, len(result.errors), result.tracebacks) == (2, 1, 0), result
    assert "no such file" in result.stderr
    assert not output.exists()


# ---- trials -----------------------------------------------------------------------------------------------------


def test_a_trial_trains_with_its_values_in_its_own_directory(store: Path, write: Callable[[str], Path]) -> None:
    path = write(SWEEP)
    runs = path.parent / "runs"
    for trial in (1, 4):
        train(store, "--output", runs, "--sweep", path, "--trial", trial, "--epochs", 7, "--seed", 9)
    assert sorted(entry.name for entry in runs.iterdir()) == ["trial-0001", "trial-0004"]
    for trial in (1, 4):
        run = runs / f"trial-{trial:04d}"
        assert {name: configuration(run)[name] for name in TRIALS[trial]} == TRIALS[trial]
        assert configuration(run)["seed"] == 9
        assert (run / "result.json").exists()
        assert (run / "model.pt").exists()


@pytest.mark.parametrize("variable", ["SLURM_ARRAY_TASK_ID", "PBS_ARRAY_INDEX"])
def test_the_array_index_of_the_job_is_the_trial(
    variable: str, store: Path, write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(SWEEP)
    monkeypatch.setenv(variable, "5")
    train(store, "--output", path.parent / "runs", "--sweep", path)
    assert configuration(path.parent / "runs" / "trial-0005")["hidden"] == [5]
    train(store, "--output", path.parent / "runs", "--sweep", path, "--trial", 3)
    assert configuration(path.parent / "runs" / "trial-0003")["hidden"] == [4]


def test_an_array_job_without_a_sweep_is_one_run(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "5")
    train(store, "--output", tmp_path / "run", "--epochs", 1, "--batch-size", 50)
    assert (tmp_path / "run" / "result.json").exists()
