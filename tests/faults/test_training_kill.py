"""kill -9 of training at any instant: existing files load, and resuming gives the bits of an undisturbed run."""

import random
import signal
import time
from pathlib import Path

import pytest

from faults.test_training_restart import assert_same_end, assert_whole, load, losses, train
from mpi import scimill, start_forked

SEED = 20_260_301
ARGS = (
    "--batch-size",
    64,
    "--epochs",
    2,
    "--checkpoint-steps",
    3,
    "--log-steps",
    2,
    "--hidden",
    "8,8",
    "--device",
    "cpu",
)
STEPS = 38
KILLED = -signal.SIGKILL
DISK_LIMIT = -signal.SIGXFSZ
TARGETS = {
    "before-anything": "write config.yaml.part 1",
    "half-of-the-configuration-written": "half config.yaml.part 100 1",
    "before-the-configuration-has-its-name": "rename config.yaml.part config.yaml 1",
    "before-the-record-has-its-name": "rename run.json.part run.json 1",
    "before-the-metrics": "write metrics.csv 1",
    "before-the-first-step": "step 1",
    "nothing-of-the-first-checkpoint-written": "half checkpoint.pt.part 0 1",
    "half-of-the-first-checkpoint-written": "half checkpoint.pt.part 6000 1",
    "half-of-a-later-checkpoint-written": "half checkpoint.pt.part 5000 5",
    "row-without-checkpoint": "write checkpoint.pt.part 5",
    "before-the-last-becomes-the-previous": "rename checkpoint.pt checkpoint-previous.pt 4",
    "between-the-renames": "rename checkpoint.pt.part checkpoint.pt 5",
    "first-epoch-without-model": "write model.pt.part 1",
    "half-of-the-first-model-written": "half model.pt.part 3000 1",
    "last-epoch-without-model": "write model.pt.part 2",
    "half-of-the-last-model-written": "half model.pt.part 3000 2",
    "before-the-last-model-has-its-name": "rename model.pt.part model.pt 2",
    "all-but-the-result": "write result.json.part 1",
    "half-of-the-result-written": "half result.json.part 10 1",
    "before-the-result-has-its-name": "rename result.json.part result.json 1",
}


Whole = tuple[Path, float]


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An undisturbed run of one process, and its duration in seconds."""
    run = tmp_path_factory.mktemp("whole") / "run"
    result = scimill(*train(store, run, *ARGS))
    assert result.returncode == 0, result
    return run, result.seconds


def assert_loads(run: Path) -> None:
    """Check that every file with its final name is intact, and the checkpoints are in order."""
    steps = [load(path)["position"]["step"] for path in sorted(run.glob("checkpoint*.pt"))]
    assert steps == sorted(steps)  # checkpoint-previous.pt comes before checkpoint.pt
    for path in run.glob("model.pt"):
        assert load(path)["state"]


def assert_same(run: Path, whole: Path) -> None:
    assert_same_end(run, whole)
    assert losses(run) == losses(whole)
    assert_whole(run)
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}


def resume(store: Path, run: Path) -> None:
    result = scimill(*train(store, run, *ARGS, "--resume"))
    assert (result.returncode, result.tracebacks) == (0, 0), result


# ---- chosen instants --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_at_a_chosen_instant(store: Path, tmp_path: Path, whole: Whole, name: str) -> None:
    run = tmp_path / "run"
    killed = scimill(*train(store, run, *ARGS), instant=TARGETS[name])
    assert killed.returncode in (KILLED, DISK_LIMIT), killed
    assert_loads(run)
    resume(store, run)
    assert_same(run, whole[0])


@pytest.mark.parametrize("number", range(1, 8))
def test_while_a_run_is_overwritten(store: Path, tmp_path: Path, whole: Whole, number: int) -> None:
    """Killed between the removals of the old files: nothing of the old run may enter the new one."""
    run = tmp_path / "run"
    old = scimill(*train(store, run, *ARGS, "--seed", 9))
    assert old.returncode == 0, old
    killed = scimill(*train(store, run, *ARGS, "--overwrite"), instant=f"event {number}")
    assert killed.returncode == KILLED, killed
    assert_loads(run)
    again = scimill(*train(store, run, *ARGS, "--overwrite"), instant="step 2")  # before it has a checkpoint
    assert again.returncode == KILLED, again
    resume(store, run)
    assert_same(run, whole[0])


@pytest.mark.parametrize("number", range(1, 8))
def test_resumed_after_an_overwriting_was_killed(store: Path, tmp_path: Path, whole: Whole, number: int) -> None:
    """Either the old run's configuration still exists and is reported, or the new run starts; never a mixture."""
    run = tmp_path / "run"
    old = scimill(*train(store, run, *ARGS, "--seed", 9))
    assert old.returncode == 0, old
    killed = scimill(*train(store, run, *ARGS, "--overwrite"), instant=f"event {number}")
    assert killed.returncode == KILLED, killed
    begun = scimill(*train(store, run, *ARGS, "--resume"), instant="step 2")
    if begun.returncode == 2:
        assert "seed was 9, is 1" in begun.stderr, begun
        return
    assert begun.returncode == KILLED, begun
    resume(store, run)
    assert_same(run, whole[0])


# ---- random instants --------------------------------------------------------------------------------------------


def test_at_random_instants(store: Path, tmp_path: Path, whole: Whole) -> None:
    """At a file operation, a step or a time; half of the runs are killed again when resumed."""
    dice = random.Random(SEED)
    counts = tmp_path / "events"
    assert scimill(*train(store, tmp_path / "counted", *ARGS), instant=f"count {counts}").returncode == 0
    events = counts.stat().st_size
    assert events > 50
    for number in range(16):
        run = tmp_path / f"run-{number}"
        for _ in range(1 + number % 2):
            kind = dice.choice(["event", "step", "clock"])
            if kind == "clock":
                job = start_forked(*train(store, run, *ARGS, "--resume"))
                time.sleep(dice.uniform(0.0, whole[1]))
                job.kill(signal.SIGKILL)
                killed = job.wait()
            else:
                instant = f"{kind} {dice.randint(1, events if kind == 'event' else STEPS)}"
                killed = scimill(*train(store, run, *ARGS, "--resume"), instant=instant)
            assert killed.returncode in (KILLED, 0), killed  # it may have finished first
            assert_loads(run)
        resume(store, run)
        assert_same(run, whole[0])


# ---- two ranks --------------------------------------------------------------------------------------------------

OF_TWO = [(0, "half checkpoint.pt.part 6000 2"), (0, "rename checkpoint.pt.part checkpoint.pt 2")]


def test_one_rank_of_two(store: Path, tmp_path: Path) -> None:
    """One run that is killed and resumed several times."""
    run, whole, dice = tmp_path / "run", tmp_path / "whole", random.Random(SEED)
    steps = [0]
    for rank, instant in [*OF_TWO, *((rank, f"step {dice.randint(1, 8)}") for rank in (1, 1))]:
        args = train(store, run, *ARGS, "--resume")
        killed = scimill(*args, ranks=2, instant=instant, dying_rank=rank)
        assert killed.returncode != 0, killed
        assert_loads(run)
        steps.append(max([0, *(load(path)["position"]["step"] for path in run.glob("checkpoint*.pt"))]))
    assert steps == sorted(steps)
    assert steps[-1] > 0
    for folder in (run, whole):
        result = scimill(*train(store, folder, *ARGS, "--resume"), ranks=2)
        assert (result.returncode, result.tracebacks) == (0, 0), result
    assert_same(run, whole)
