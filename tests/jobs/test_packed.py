"""A packed job, run here: its steps are plain scripts, without a scheduler and without `scimill` inside."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from mpi import Result, scimill, start, wait_until
from scimill.jobs.parts import Part
from scimill.jobs.state import ChainState, StepState, Unit, write_state

MEET = """
touch {own}; for i in $(seq 200); do [ -e {other} ] && exit 0; sleep 0.1; done; exit 9
"""
"""Succeeds only if the other script runs at the same time."""


class Chain:
    """A chain whose steps are scripts."""

    def __init__(self, folder: Path, scheduler: str = "") -> None:
        self.folder, self.state, self.parts = folder, ChainState(scheduler=scheduler), list[Part]()

    def add(self, name: str, text: str, after: str = "", nodes: int = 1, cores: int = 1, seconds: int = 60) -> None:
        self.state.steps[name] = StepState({name: Unit(script="pack.sh", job="1")}, after.split(), [])
        self.parts.append(Part(name, f"{name}.sh", nodes, cores, 0, 0, seconds, 0))
        records = self.folder / "scimill-jobs"
        records.mkdir(exist_ok=True)
        (records / f"{name}.sh").write_text(text)

    def words(self, nodes: int, cores: int, *flags: str, left: float = 600.0) -> tuple[object, ...]:
        folder = self.folder / "scimill-jobs" / "chain"
        folder.mkdir(exist_ok=True)
        write_state(folder, self.state)
        each = f"cores={cores},gpus=0,memory=0"
        return ("jobs", "pack", "chain", *self.parts, "--job", 1, "--end", time.time() + left, "--nodes", nodes,
                "--each", each, *flags)  # fmt: skip

    def run(self, nodes: int = 1, cores: int = 2, *flags: str, left: float = 600.0, **env: str) -> Result:
        return scimill(*self.words(nodes, cores, *flags, left=left), cwd=self.folder, env=env)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def test_independent_steps_that_fit_run_at_the_same_time(chain: Chain) -> None:
    chain.add("a", MEET.format(own="a", other="b"))
    chain.add("b", MEET.format(own="b", other="a"))
    chain.add("last", "ls a b", after="a b")
    ended = chain.run(1, 2, "--shared")
    assert ended.returncode == 0, ended
    assert (chain.folder / "last-1.log").read_text() == "a\nb\n"


def test_steps_that_do_not_fit_run_one_after_the_other(chain: Chain) -> None:
    for name in "abc":
        chain.add(name, "mkdir busy && sleep 0.3 && rmdir busy", cores=2)
    ended = chain.run(1, 2, "--shared")
    assert ended.returncode == 0, ended


def test_a_failed_step_stops_only_what_waits_for_it(chain: Chain) -> None:
    chain.add("a", "echo why >&2; exit 7")
    chain.add("b", "sleep 0.5; touch b")
    chain.add("c", "touch c", after="a")
    chain.add("d", "touch d", after="b")
    ended = chain.run(1, 2, "--shared")
    assert ended.returncode == 7, ended
    assert (chain.folder / "a-1.log").read_text() == "why\n"
    assert [name for name in "bcd" if (chain.folder / name).exists()] == ["b", "d"]
    assert "a: ended with exit code 7" in str(ended)
    assert "c: not started" in str(ended)


def test_a_step_that_stops_lets_the_others_end(chain: Chain) -> None:
    chain.add("a", "exit 75")
    chain.add("b", "sleep 0.5; touch b")
    chain.add("c", "touch c", after="b")
    ended = chain.run(1, 2, "--shared")
    assert ended.returncode == 75, ended
    assert [name for name in "bc" if (chain.folder / name).exists()] == ["b"]


def test_a_step_that_may_not_end_in_time_is_left_to_the_next_job(chain: Chain) -> None:
    chain.add("a", "touch a", cores=2)
    chain.add("b", "touch b", cores=2, seconds=3600)
    ended = chain.run(1, 2, "--shared", left=120)
    assert ended.returncode == 75, ended
    assert [name for name in "ab" if (chain.folder / name).exists()] == ["a"]


def test_each_step_gets_whole_nodes_of_its_own_where_the_launcher_shares_none(tmp_path: Path) -> None:
    """Of a list of nodes like that of PBS, with a line for each rank."""
    chain = Chain(tmp_path, "pbs")
    chain.add("wide", 'cat "$PBS_NODEFILE"; exit 7', nodes=2)
    for own, other in ("ab", "ba"):
        chain.add(own, f'cat "$PBS_NODEFILE"; echo $SCIMILL_HOSTS; ({MEET.format(own=own, other=other)})')
    (tmp_path / "nodes").write_text("n1\nn1\nn2\nn2\n")
    ended = chain.run(2, 64, PBS_NODEFILE=str(tmp_path / "nodes"))
    assert ended.returncode == 7, ended
    assert (tmp_path / "wide-1.log").read_text() == "n1\nn1\nn2\nn2\n"
    assert [(tmp_path / f"{name}-1.log").read_text() for name in "ab"] == ["n1\nn1\nn1\n", "n2\nn2\nn2\n"]


def test_where_the_nodes_are_one_host_steps_run_one_after_the_other(tmp_path: Path) -> None:
    chain = Chain(tmp_path, "pbs")
    for name in "ab":
        chain.add(name, "mkdir busy && sleep 0.3 && rmdir busy")
    (tmp_path / "nodes").write_text("here\nhere\n")
    ended = chain.run(2, 64, PBS_NODEFILE=str(tmp_path / "nodes"))
    assert ended.returncode == 0, ended


def test_after_a_signal_nothing_starts_but_what_runs_ends(chain: Chain) -> None:
    """The scheduler signals every process itself."""
    chain.add("a", "touch a; sleep 1; exit 0", cores=2)
    chain.add("b", "touch b", cores=2)
    with start(*chain.words(1, 2, "--shared"), cwd=chain.folder) as running:
        wait_until((chain.folder / "a").exists, "the first step", 30)
        os.kill(running.process.pid, signal.SIGTERM)
        ended = running.wait(30)
    assert ended.returncode == 75, ended
    assert not (chain.folder / "b").exists()


def test_the_state_is_that_of_the_chain(chain: Chain) -> None:
    """A step whose predecessor was complete before this job starts at once."""
    chain.add("before", "exit 9")
    chain.state.steps["before"].units["before"].code = 0
    chain.parts.clear()
    chain.add("after", "touch after", after="before")
    assert chain.run(1, 2).returncode == 0
    assert json.loads((chain.folder / "scimill-jobs/chain/state.json").read_text())["steps"]["after"]["after"] == [
        "before"
    ]
