"""A stopped and resumed run gives the bits of an uninterrupted one, on the same number of ranks."""

import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from mpi import Forked, Job, Result, forking_program, kill, scimill, start, start_forked, wait_until

STOPPED, STORAGE = 75, 4
STEPS = 152  # of an epoch of LONG: 19 blocks for training, 64 samples each, 8 of them per step
EPOCHS = 4
LONG = (
    "--batch-size", 8, "--epochs", EPOCHS, "--checkpoint-steps", 20, "--warmup-steps", 30, "--hidden", "8,8",
    "--log-steps", 7, "--device", "cpu",
)  # fmt: skip
SHORT = ("--batch-size", 64, "--epochs", 2, "--checkpoint-steps", 5, "--log-steps", 1000, "--hidden", "8,8")
OVER_AT_ONCE = ("--walltime", "1s", "--walltime-margin", "0.999s")
FILES = {
    "config.yaml", "run.json", "metrics.csv", "checkpoint.pt", "checkpoint-previous.pt", "model.pt", "result.json",
    "tensorboard",
}  # fmt: skip
VARIANTS: dict[str, tuple[object, ...]] = {
    "plain": (),
    "float64": ("--precision", "float64"),
    "bfloat16": ("--precision", "bfloat16"),
    "accumulation": ("--accumulation", 3),
    "lars": ("--optimizer", "lars", "--weight-decay", 1e-4, "--schedule", "constant", "--clip-norm", 1.0),
    "adamw-in-memory": ("--optimizer", "adamw", "--weight-decay", 1e-2, "--schedule", "step", "--in-memory"),
    "no-validation": ("--validation-share", 0),
    "patience": ("--patience", 1, "--learning-rate", 1.0, "--schedule", "constant"),
}


# ---- looking into a run, without scimill ------------------------------------------------------------------------


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def bits(value: Any) -> Any:
    """Make a nested value comparable bit by bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), bytes(value.reshape(-1).view(torch.uint8).tolist())
    if isinstance(value, dict):
        return {name: bits(part) for name, part in value.items()}
    return [bits(part) for part in value] if isinstance(value, list | tuple) else repr(value)


def end(run: Path) -> dict[str, Any]:
    """The whole result of training: parameters, optimizer, best model, position, result."""
    checkpoint, model = load(run / "checkpoint.pt"), load(run / "model.pt")
    parts = {name: checkpoint[name] for name in ("model", "optimizer", "best", "position")}
    result = json.loads((run / "result.json").read_text())
    del result["crc32c"], result["crc32c_of_files"]  # those files also name times and hosts
    return bits(parts | {"model.pt": model["state"], "result.json": result})


def assert_same_end(run: Path, whole: Path) -> None:
    found, expected = end(run), end(whole)
    assert [name for name in expected if found[name] != expected[name]] == []


def metrics(run: Path, split: str | None = None) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if split in (None, row["split"])]


def assert_whole(run: Path) -> None:
    """Check that no row is repeated, steps are in order, and only the documented files exist."""
    rows = [(int(row["step"]), row["split"]) for row in metrics(run)]
    assert len(set(rows)) == len(rows)
    assert rows == sorted(rows)
    assert {path.name for path in run.iterdir()} <= FILES


def losses(run: Path) -> list[tuple[str, ...]]:
    """Validation losses as written."""
    return [(row["step"], row["loss"], row["loss_radius"]) for row in metrics(run, "validation")]


def assert_stopped(result: Result, reason: str) -> None:
    """Check the exit code, and a message of two lines: what happened, what to do."""
    assert (result.returncode, result.tracebacks, result.errors) == (STOPPED, 0, []), result
    lines = [line for line in result.stderr.splitlines() if line.startswith("scimill: stopped")]
    assert lines == [f"scimill: stopped by {reason}; a checkpoint was written"], result
    assert "run the same command with --resume" in result.stderr, result


def train(store: Path, run: Path, *args: object) -> tuple[object, ...]:
    return ("droplets", "train", store, "--output", run, *args)


# ---- one process ------------------------------------------------------------------------------------------------


def written(run: Path) -> int:
    """When the checkpoint was written; 0 if there is none."""
    try:
        return (run / "checkpoint.pt").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def stop_midway(job: Job | Forked, run: Path, before: int, number: int, rank: int | None = None) -> Result:
    """Send a signal once this run has written a checkpoint."""
    wait_until(lambda: written(run) != before, "a checkpoint")
    if isinstance(job, Job):
        job.kill(rank or 0, number)
    else:
        job.kill(number)
    return job.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2], ids=lambda number: number.name)
def test_a_signal_to_one_process(store: Path, tmp_path: Path, number: signal.Signals) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    result = stop_midway(start_forked(*train(store, run, *LONG)), run, 0, number)
    assert_stopped(result, f"signal {number.name}")
    position = load(run / "checkpoint.pt")["position"]
    assert position["step"] == position["epoch"] * STEPS + position["epoch_step"]
    assert 20 <= position["step"] < EPOCHS * STEPS
    for folder, resume in ((run, ("--resume",)), (whole, ())):
        result = scimill(*train(store, folder, *LONG, *resume))
        assert result.returncode == 0, result
        assert_whole(folder)
    assert_same_end(run, whole)
    assert losses(run) == losses(whole)
    assert len(losses(run)) == EPOCHS


@pytest.mark.parametrize("name", VARIANTS)
def test_every_step_may_be_the_last_before_a_restart(store: Path, tmp_path: Path, name: str) -> None:
    run, whole, args = tmp_path / "run", tmp_path / "whole", (*SHORT, *VARIANTS[name])
    stops = range(9) if name == "plain" else (1, 4, 8, 8, 8)
    for stop in stops:  # the last ones are killed in the second epoch
        walltime = OVER_AT_ONCE if stop % 2 else ("--checkpoint-steps", 1 + stop)
        result = scimill(*train(store, run, *args, *walltime, "--resume"), instant=f"step {stop + 2}")
        assert result.returncode == (STOPPED if stop % 2 else -signal.SIGKILL), result
    for folder in (run, whole):
        result = scimill(*train(store, folder, *args, "--resume"))
        assert result.returncode == 0, result
        assert_whole(folder)
    assert_same_end(run, whole)
    assert losses(run) == losses(whole)


def test_the_walltime_stops_one_process(store: Path, tmp_path: Path) -> None:
    result = scimill(
        *train(store, tmp_path / "run", *LONG, "--epochs", 10**6, "--walltime", "5s", "--walltime-margin", "0.5s")
    )
    assert_stopped(result, "the walltime")
    assert result.seconds < 60, result
    assert load(tmp_path / "run" / "checkpoint.pt")["position"]["step"] > 0


# ---- many ranks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranks", "stops"),
    [
        (2, [(1, signal.SIGTERM), (0, signal.SIGINT), (None, signal.SIGUSR2), OVER_AT_ONCE]),
        (3, [(2, signal.SIGTERM)]),
    ],
    ids=["2-ranks", "3-ranks"],
)
def test_a_signal_to_any_rank_stops_all_after_the_same_step(
    store: Path, tmp_path: Path, ranks: int, stops: list[Any]
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    steps = [0]
    for stop in stops:
        if stop is OVER_AT_ONCE:
            result, reason = scimill(*train(store, run, *LONG, *stop, "--resume"), ranks=ranks), "the walltime"
        else:
            (rank, number), reason = stop, f"signal {stop[1].name}"
            before = written(run)
            with start(*train(store, run, *LONG, "--resume"), ranks=ranks, program=forking_program()) as job:
                if rank is None:  # to mpirun, which passes on this one
                    wait_until(lambda before=before: written(run) != before, "a checkpoint")
                    kill(job.process.pid, number)
                    result = job.wait()
                else:
                    result = stop_midway(job, run, before, number, rank)
        assert_stopped(result, reason)
        steps.append(load(run / "checkpoint.pt")["position"]["step"])
        assert steps[-2] < steps[-1] < EPOCHS * STEPS
    for folder in (run, whole):
        result = scimill(*train(store, folder, *LONG, "--resume"), ranks=ranks)
        assert result.returncode == 0, result
        assert_whole(folder)
    assert_same_end(run, whole)
    assert losses(run) == losses(whole)


# ---- the directory of a run -------------------------------------------------------------------------------------


def content(run: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in run.iterdir() if path.is_file())
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_finished_run_is_left_as_it_is(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert scimill(*train(store, run, *SHORT)).returncode == 0
    before = content(run)
    assert {*before, "tensorboard"} == FILES
    again = scimill(*train(store, run, *SHORT, "--resume"))
    assert again.returncode == 0, again
    assert "was already finished" in again.stderr
    assert content(run) == before
    refused = scimill(*train(store, run, *SHORT))
    assert (refused.returncode, len(refused.errors), refused.tracebacks) == (STORAGE, 1, 0), refused
    assert "already holds a run" in refused.stderr
    assert content(run) == before


def test_a_finished_run_has_no_other_configuration(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert scimill(*train(store, run, *SHORT)).returncode == 0
    before = content(run)
    result = scimill(*train(store, run, *SHORT, "--epochs", 9, "--resume"))
    assert (result.returncode, len(result.errors), result.tracebacks) == (2, 1, 0), result
    assert "epochs was 2, is 9" in result.stderr
    assert content(run) == before


@pytest.mark.parametrize("is_finished", [True, False], ids=["finished", "stopped"])
def test_overwriting_begins_anew(store: Path, tmp_path: Path, is_finished: bool) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    args = (*SHORT, "--seed", 5)
    instant = "never" if is_finished else "step 23"
    first = scimill(*train(store, run, *args, "--epochs", 3), instant=instant)
    assert (first.returncode == 0) == is_finished, first
    if not is_finished:
        assert scimill(*train(store, run, *args)).returncode == STORAGE
    for folder, overwrite in ((run, ("--overwrite",)), (whole, ())):
        result = scimill(*train(store, folder, *args, *overwrite))
        assert result.returncode == 0, result
        assert_whole(folder)
    assert_same_end(run, whole)
    assert [row["step"] for row in metrics(run)] == [row["step"] for row in metrics(whole)]


def test_checkpoints_are_written_at_the_steps_that_are_asked_for(store: Path, tmp_path: Path) -> None:
    """Each checkpoint has a row of metrics; no other rows are due here."""
    run = tmp_path / "run"
    result = scimill(*train(store, run, *SHORT, "--checkpoint-interval", "1h"))
    assert result.returncode == 0, result
    saved = [int(row["step"]) for row in metrics(run, "train")]
    assert saved == [5, 10, 15, 19, 24, 29, 34, 38]  # an epoch has 19 steps, and one at its end
    last, previous = (load(run / name)["position"]["step"] for name in ("checkpoint.pt", "checkpoint-previous.pt"))
    assert (last, previous) == (38, 34)


def test_checkpoints_are_written_at_intervals_of_time(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = (*SHORT, "--epochs", 1, "--checkpoint-steps", 10**6)
    result = scimill(*train(store, run, *args, "--checkpoint-interval", "0.001s"))
    assert result.returncode == 0, result
    saved = [int(row["step"]) for row in metrics(run, "train")]
    assert len(saved) > 3
    assert saved == sorted(set(saved))
