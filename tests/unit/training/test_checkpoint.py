"""Files of tensors: intact or refused, the newest intact one is read, and nothing in them is executed."""

import os
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from scimill.errors import InputError, StorageError
from scimill.training.checkpoint import (
    LAST,
    MODEL,
    PREVIOUS,
    load_checkpoint,
    read_tensors,
    save_checkpoint,
    save_model,
)
from scimill.training.metrics import MetricsLog

SEED = 3
DAMAGES = 200


def state(step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    return {
        "position": {"step": step, "best_loss": float("inf")},
        "model": {"weight": torch.randn(7, 5, generator=generator), "scale": torch.tensor(0.1, dtype=torch.float64)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "best": {},
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, state(1))
    assert names(tmp_path) == [LAST]
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert same({name: loaded[name] for name in state(1)}, state(1))


def test_the_previous_checkpoint_is_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, state(step))
    assert names(tmp_path) == sorted([LAST, PREVIOUS])
    steps = [torch.load(tmp_path / name, weights_only=True)["position"]["step"] for name in (LAST, PREVIOUS)]
    assert steps == [3, 2]


@pytest.mark.parametrize("left", ["", "nothing of it"])
def test_a_stale_temporary_file_is_replaced(tmp_path: Path, left: str) -> None:
    for name in (LAST, MODEL):
        (tmp_path / f"{name}.part").write_text(left)
    save_checkpoint(tmp_path, state(1))
    save_model(tmp_path, state(1))
    assert names(tmp_path) == sorted([LAST, MODEL])


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped", "text", "a model"])
def test_the_previous_one_is_loaded_where_the_last_one_is_not_whole(tmp_path: Path, damage: str) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step))
    spoil(tmp_path / LAST, damage)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded["position"]["step"] == 1


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text", "a model"])
def test_two_damaged_ones_are_refused_and_not_ignored(tmp_path: Path, damage: str) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step))
    for name in (LAST, PREVIOUS):
        spoil(tmp_path / name, damage)
    with pytest.raises(InputError) as refusal:
        load_checkpoint(tmp_path)
    assert refusal.value.where == str(tmp_path / LAST)


def weight(step: int) -> bytes:
    """Return the bytes of a tensor of a state, as in its file."""
    value: torch.Tensor = state(step)["model"]["weight"]
    return value.numpy().tobytes()


def spoil(path: Path, damage: str) -> None:
    raw = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "a model":
        save_model(path.parent, state(9))
        (path.parent / MODEL).rename(path)
    else:
        middle = max(raw.find(weight(step)) for step in (1, 2)) + 17
        path.write_bytes({
            "empty": b"", "cut": raw[:middle], "text": b"a letter",
            "flipped": raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :],
        }[damage])  # fmt: skip


def test_a_damaged_file_is_refused_or_holds_what_was_written(tmp_path: Path) -> None:
    """Some bytes of a zip archive have no meaning; a change of any other must be found."""
    path, dice = tmp_path / LAST, random.Random(SEED)
    save_checkpoint(tmp_path, state(1))
    clean, expected, refused = path.read_bytes(), read_tensors(path, "checkpoint"), 0
    for _ in range(DAMAGES):
        damaged = bytearray(clean)
        kind = dice.random()
        if kind < 0.6:
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        elif kind < 0.8:
            del damaged[dice.randrange(len(damaged)) :]
        else:
            place = dice.randrange(len(damaged))
            damaged[place : place + 64] = bytes(len(damaged[place : place + 64]))
        path.write_bytes(damaged)
        try:
            assert same(read_tensors(path, "checkpoint"), expected)
        except InputError as error:
            assert len(str(error).splitlines()) <= 4
            refused += 1
    assert refused > DAMAGES / 3


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    torch.save({"scimill": "checkpoint", "version": 1, "model": Attack(victim)}, tmp_path / LAST)
    with pytest.raises(InputError):
        read_tensors(tmp_path / LAST, "checkpoint")
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "expected_text"),
    [
        ({"scimill": "model", "version": 1}, "not a checkpoint of scimill"),
        ({"scimill": "checkpoint", "version": 99}, "version 99"),
        ({"scimill": "checkpoint"}, "checkpoint"),
        ({"weight": torch.zeros(3)}, "not a checkpoint of scimill"),
        ([1, 2], "not a checkpoint of scimill"),
    ],
    ids=["a-model", "later-version", "no-version", "foreign", "a-list"],
)
def test_another_file_of_tensors_is_refused(tmp_path: Path, content: Any, expected_text: str) -> None:
    torch.save(content, tmp_path / LAST)
    with pytest.raises(InputError, match=expected_text):
        read_tensors(tmp_path / LAST, "checkpoint")


@pytest.mark.parametrize("kind", ["missing", "a folder", "another archive"])
def test_what_is_no_file_of_tensors_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / LAST
    if kind == "a folder":
        path.mkdir()
    elif kind == "another archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("letter.txt", "a letter")
    with pytest.raises(InputError):
        read_tensors(path, "checkpoint")


def test_what_cannot_be_written_leaves_what_is_there(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step))
    (tmp_path / f"{LAST}.part").mkdir()  # in the way of the temporary file, also for root
    with pytest.raises(StorageError, match="writing the checkpoint"):
        save_checkpoint(tmp_path, state(3))
    (tmp_path / f"{LAST}.part").rmdir()
    steps = [read_tensors(tmp_path / name, "checkpoint")["position"]["step"] for name in (LAST, PREVIOUS)]
    assert steps == [2, 1]


# ---- metrics ----------------------------------------------------------------------------------------------------


def rows(log: MetricsLog, *steps: int) -> None:
    for step in steps:
        log.add({"step": step, "epoch": 0, "split": "train", "loss": 1 / step})


def test_metrics_go_on_where_the_checkpoint_was_written(tmp_path: Path) -> None:
    """Rows written after it are truncated, also half a row."""
    log = MetricsLog(tmp_path, ["radius"], 0, 0)
    rows(log, 1, 2)
    size = log.size()
    rows(log, 3)
    log.close()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4,0,tra")
    log = MetricsLog(tmp_path, ["radius"], size, 2)
    rows(log, 3, 4)
    log.close()
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "1", "2", "3", "4"]
    assert len({line.count(",") for line in lines}) == 1


def test_metrics_begin_anew_without_a_checkpoint(tmp_path: Path) -> None:
    for _ in range(2):
        log = MetricsLog(tmp_path, ["radius"], 0, 0)
        rows(log, 1)
        log.close()
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2
