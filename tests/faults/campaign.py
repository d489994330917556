"""Kill ranks at seeded instants, resume on another number of ranks, and check that nothing was lost.

Usage: campaign.py [--kills N] [--clock N] [--seed S]; scripts/fault_campaign.sh runs it, test_kill.py with few kills.
"""

import argparse
import itertools
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpi import Hang, Result, block_contents, dataset_hashes, scimill, start
from mpi import kill as signal_process
from scimill.errors import ScimillError
from scimill.parallel.world import World
from scimill.store.verify import verify

CONFIG = ("--count", 20_000, "--block-size", 512, "--tolerance", 1e-4)
BLOCKS = 40
PHASES = ("creation", "opening", "data", "ledger", "rename")
CLOCK = "any time"
VICTIMS = ((2, 0), (2, 1), (1, 0))
"""(ranks of the run, rank that is killed)"""
PLACES = [
    (phase, ranks, rank)
    for phase in PHASES
    for ranks, rank in VICTIMS
    if rank == 0 or phase != "creation"  # only rank 0 creates
]


@dataclass(frozen=True)
class Kill:
    """One instant: the k-th line of a phase, or some seconds after the start."""

    phase: str
    ranks: int
    rank: int
    line: int = 0
    seconds: float = 0.0
    resume_ranks: int = 1


@dataclass(frozen=True)
class Outcome:
    kill: Kill
    done: int
    """blocks marked done by the killed run"""
    same_bytes: bool
    lost: int
    """blocks marked done whose data or ledger differ after resuming"""
    faults: tuple[str, ...]

    @property
    def good(self) -> bool:
        return self.same_bytes and not self.lost and not self.faults


class Campaign:
    """Kills in a scratch folder, compared with the bytes of a run that was never killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._expected, self.seconds = self._undisturbed()
        self._lines = {ranks: self._count_lines(ranks) for ranks in (1, 2)}

    def _undisturbed(self) -> tuple[dict[str, str], float]:
        path = self.folder / "undisturbed.h5"
        with start("droplets", "generate", path, *CONFIG, ranks=2) as job:  # as `_kill` does, for the same duration
            result = job.wait()
        assert result.returncode == 0, result
        return dataset_hashes(path), result.seconds

    def _count_lines(self, ranks: int) -> list[dict[str, int]]:
        """Count the lines that each rank executes in each phase."""
        counts = self.folder / f"lines-of-{ranks}"
        path = self.folder / f"counted-{ranks}.h5"
        result = scimill("droplets", "generate", path, *CONFIG, ranks=ranks, instant=f"lines {counts}", dying_rank=None)
        assert result.returncode == 0, result
        return [json.loads(Path(f"{counts}.{rank}").read_text()) for rank in range(ranks)]

    def draw(self, phase: str, ranks: int, rank: int, dice: random.Random) -> Kill:
        """Draw an instant."""
        resume_ranks = dice.choice([n for n in (1, 2, 3) if n != ranks])
        if phase == CLOCK:
            return Kill(phase, ranks, rank, seconds=dice.uniform(0.0, self.seconds), resume_ranks=resume_ranks)
        line = dice.randint(1, self._lines[ranks][rank][phase])
        return Kill(phase, ranks, rank, line=line, resume_ranks=resume_ranks)

    def run(self, kill: Kill, name: str) -> Outcome:
        """Kill, verify, resume, compare."""
        folder = self.folder / name
        folder.mkdir()
        output = folder / "droplets.h5"
        faults = [self._kill(kill, output)]
        left = next((path for path in (output, output.with_name("droplets.h5.part")) if path.exists()), None)
        before = block_contents(left) if left else {}
        if left:
            faults.append(_damage("what was left", left))
        resumed = scimill("droplets", "generate", output, *CONFIG, "--resume", ranks=kill.resume_ranks)
        faults.append(_fault("resume", resumed))
        if not output.exists():
            return Outcome(kill, len(before), False, len(before), tuple(filter(None, faults)))
        faults.append(_damage("the resumed file", output))
        faults += [f"left over: {path.name}" for path in folder.iterdir() if path != output]
        after = block_contents(output)
        lost = sum(after.get(block) != content for block, content in before.items())
        same = dataset_hashes(output) == self._expected
        return Outcome(kill, len(before), same, lost, tuple(filter(None, faults)))

    def _kill(self, kill: Kill, output: Path) -> str:
        args = ("droplets", "generate", output, *CONFIG)
        if kill.phase == CLOCK:
            with start(*args, ranks=kill.ranks) as job:
                victim = job.rank(kill.rank)
                time.sleep(kill.seconds)
                signal_process(victim, signal.SIGKILL)
                job.wait()
            return ""  # it may have finished first
        instant = f"line {kill.phase} {kill.line}"
        result = scimill(*args, ranks=kill.ranks, instant=instant, dying_rank=kill.rank)
        return "" if result.returncode else f"nobody was killed: {result}"


def _fault(what: str, result: Result) -> str:
    return f"{what}: {result}" if result.returncode else ""


def _damage(what: str, path: Path) -> str:
    try:
        problems = verify(path, World(None)).problems
    except ScimillError as error:
        return f"{what}: {error}"
    return f"{what}: {problems}" if problems else ""


# ---- the campaign as a command ----------------------------------------------------------------------------------


def instants(campaign: Campaign, kills: int, clock: int, seed: int) -> Iterator[Kill]:
    """Yield seeded instants: `kills` at lines, cycling through phases and ranks, then `clock` at any time."""
    dice = random.Random(seed)
    for phase, ranks, rank in itertools.islice(itertools.cycle(PLACES), kills):
        yield campaign.draw(phase, ranks, rank, dice)
    for ranks, rank in itertools.islice(itertools.cycle(VICTIMS), clock):
        yield campaign.draw(CLOCK, ranks, rank, dice)


def attempt(campaign: Campaign, kill: Kill, name: str) -> Outcome:
    """Run one kill; a hang is an outcome too."""
    try:
        outcome = campaign.run(kill, name)
    except Hang as hang:
        outcome = Outcome(kill, 0, False, 0, (str(hang),))
    if not outcome.good:
        print(f"{outcome.kill}: same bytes {outcome.same_bytes}, lost {outcome.lost}", *outcome.faults, sep="\n  ")
    return outcome


def table(outcomes: list[Outcome]) -> Iterator[str]:
    """Yield one row per phase."""
    yield f"{'phase':<10} {'kills':>6} {'blocks done before':>19} {'resumed, same bytes':>20} {'done blocks lost':>17}"
    for phase in (*PHASES, CLOCK, "all"):
        rows = [outcome for outcome in outcomes if phase in (outcome.kill.phase, "all")]
        done, same, lost = (sum(getattr(row, name) for row in rows) for name in ("done", "same_bytes", "lost"))
        yield f"{phase:<10} {len(rows):>6} {done:>19} {same:>20} {lost:>17}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill ranks at seeded instants, resume, and compare the bytes.")
    parser.add_argument("--kills", type=int, default=70, help="kills at lines of the store")
    parser.add_argument("--clock", type=int, default=24, help="kills at any time")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder))
        kills = instants(campaign, args.kills, args.clock, args.seed)
        outcomes = [attempt(campaign, kill, f"kill-{n}") for n, kill in enumerate(kills)]
    print(*table(outcomes), sep="\n")
    bad = sum(not outcome.good for outcome in outcomes)
    print(f"{len(outcomes)} kills with seed {args.seed}, {bad} of them not made good")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
