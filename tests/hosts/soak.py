#!/usr/bin/env python3
"""Run random failures on two hosts, and count how the runs end. It needs what tests/hosts needs.

    tests/hosts/soak.py --runs 208 --seed 1
    tests/hosts/soak.py --seed 1 --only 17 33     replay some runs

A run ends right if its file has the bytes of one process, at once or after --resume. It ends wrong if it reports
success for another file, or publishes one that is not finished. A block is lost if it was done and sound, and differs
after --resume. Exits with 1 after a wrong end or a lost block, with 2 if a run could not be resumed.
"""

import argparse
import contextlib
import itertools
import random
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from hosts import cluster, rooms  # noqa: E402
from hosts.cluster import Hosts  # noqa: E402
from hosts.guest import MOUNTS, Guest  # noqa: E402
from hosts.runs import REFERENCE, REFUSED, Run, make_reference  # noqa: E402
from mpi import Hang, Result, block_contents  # noqa: E402
from scimill.store.reader import Reader  # noqa: E402
from scimill.store.verify import block_damage  # noqa: E402

COLUMNS = ("runs", "success", "refused", "failed", "resumed", "done", "damaged", "lost", "stuck", "wrong")
"""What is counted, for each failure and kind of mount: runs; how their commands ended; runs that had to be resumed;
blocks marked as done by then; those that caches had overwritten, which --resume made again; those that it lost; runs
that it did not finish; runs that ended wrong."""
NOTICED = 120.0  # s; a job that lost a host ends within this time
LONGEST_OUTAGE = 20.0  # s
ATTEMPTS = 3  # to resume: a mount reports once more that its server was away, and scimill says "run it again"
LATE = 8.0  # s after the first run at which a second one starts, at most
LINES = {"creation": 1250, "opening": 250, "data": 11900, "ledger": 1300, "rename": 1300}
"""How many lines of the store a rank executes, by phase (`faults.phases`)."""
PHASES = tuple(LINES)  # the first is that of rank 0 alone


class Soak:
    """One run with a failure at a random instant, all of it from the seed and the run's number."""

    def __init__(self, hosts: Hosts, seed: int, number: int, scratch: Path) -> None:
        self.random = random.Random(f"{seed} {number}")
        self.failure, self.kind = CASES[number % len(CASES)]
        self.rank = self.random.randrange(2)
        self.victim, self.other = hosts.clients[self.rank], hosts.clients[1 - self.rank]
        self.hosts = hosts
        self.run = Run(hosts, self.kind, scratch)
        self.counts = Counter(runs=1)
        self.log: list[str] = []

    def play(self, reference: dict[str, str]) -> None:
        """Run to the failure and to the end, resume if needed, and count what came out."""
        results = FAILURES[self.failure](self)
        self.hosts.end_runs()
        for result in results:
            self._count(result)
        if self.run.is_published():
            self._judge(reference)
        elif any(result.returncode == 0 for result in results):
            self.counts["wrong"] += 1
        else:
            self._resume(reference)

    def _count(self, result: Result) -> None:
        self.log.append(str(result))
        self.counts[{0: "success", REFUSED: "refused"}.get(result.returncode, "failed")] += 1

    def _judge(self, reference: dict[str, str]) -> None:
        fault = self.run.find_fault(reference)
        self.log.append(fault)
        self.counts["wrong"] += bool(fault)

    def _resume(self, reference: dict[str, str]) -> None:
        sound = self._sound_blocks() if self.run.has_begun() else {}
        host = self.random.choice(self.hosts.clients)
        for _ in range(ATTEMPTS):
            result = self.run.resume(host, *self._permission(host))
            self.hosts.end_runs()
            self.log.append(str(result))
            if result.returncode != REFUSED:
                break
        if result.returncode:
            self.counts["stuck"] += 1
            return
        self.counts["resumed"] += 1
        self._judge(reference)
        after = block_contents(self.run.fetch(self.run.name))
        self.counts["lost"] += sum(after.get(block) != content for block, content in sound.items())

    def _sound_blocks(self) -> dict[int, str]:
        """Return the hashes of the blocks that are done and have their checksum."""
        part = self.run.fetch(f"{self.run.name}.part")
        done = block_contents(part)
        with Reader.open(part, check=False) as reader:
            sound = {block: content for block, content in done.items() if not block_damage(reader, block)}
        self.counts.update(done=len(done), damaged=len(done) - len(sound))
        return sound

    def _permission(self, host: Guest) -> tuple[str, ...]:
        """Return the option that spares a host the wait for another one's lease; all runs have ended."""
        lock = f"{self.run.name}.lock"
        held = self.run.fetch(lock).read_text() if lock in self.hosts.srv.names() else ""
        return ("--break-lock",) if held and f'"host": "{host.name}"' not in held else ()

    def instant(self, what: str) -> str:
        """Draw a line of the store at which the victim dies or stops."""
        phase = self.random.choice(PHASES[self.rank :])
        return f"{what} {phase} {self.random.randint(1, LINES[phase])}"

    def fail_at_instant(self, fail: Callable[[], None]) -> list[Result]:
        """Run until the victim stops, let something fail, and let the victim continue."""
        with self.run.start(instant=self.instant("stop"), rank=self.rank) as job:
            if self.run.wait_for_stop(self.victim, job):
                fail()
                self.run.carry_on(self.victim)
            return [job.wait(NOTICED)]


def kill(soak: Soak) -> list[Result]:
    with soak.run.start(instant=soak.instant("line"), rank=soak.rank) as job:
        return [job.wait(NOTICED)]


def cut_network(soak: Soak) -> list[Result]:
    """Cut the victim or the other host off, for a while during which the victim continues."""
    host, outage = soak.random.choice(soak.hosts.clients), soak.random.uniform(0, LONGEST_OUTAGE)
    restore = threading.Timer(outage, soak.hosts.network.restore, [host.name])

    def cut() -> None:
        soak.hosts.network.cut(host.name)
        restore.start()

    results = soak.fail_at_instant(cut)
    restore.cancel()
    return results


def restart_server(soak: Soak) -> list[Result]:
    return soak.fail_at_instant(soak.hosts.srv.restart)


def submit_twice(soak: Soak) -> list[Result]:
    """Start a second run beside the first."""
    with soak.run.start() as first:
        time.sleep(soak.random.uniform(0, LATE))
        with soak.run.start_on(soak.other, soak.random.choice(["--resume", "--overwrite"])) as second:
            return [second.wait(), first.wait()]


FAILURES: dict[str, Callable[[Soak], list[Result]]] = {
    "kill": kill,
    "cut network": cut_network,
    "restart server": restart_server,
    "submit twice": submit_twice,
}
ALL_MOUNTS = (*MOUNTS, *rooms.MOUNTS)
CASES = list(itertools.product(FAILURES, ALL_MOUNTS))


def play(hosts: Hosts, seed: int, number: int, reference: dict[str, str]) -> Soak:
    """Play one run."""
    with tempfile.TemporaryDirectory() as scratch:
        soak, started = Soak(hosts, seed, number, Path(scratch)), time.monotonic()
        try:
            soak.play(reference)
        except Hang as hang:
            soak.log.append(str(hang))
            soak.counts["stuck"] += 1
        hosts.clear()
    counts = ", ".join(f"{count} {what}" for what, count in soak.counts.items() if count and what != "runs")
    print(f"{number}: {soak.failure}, {soak.kind}: {counts} after {time.monotonic() - started:.0f} s", flush=True)
    if any(soak.counts[what] for what in ("stuck", "lost", "wrong")):
        print("\n".join(soak.log), flush=True)
    return soak


def print_table(table: dict[tuple[str, str], Counter[str]]) -> None:
    print("| failure | mount |" + "".join(f" {column} |" for column in COLUMNS))
    print("|---|---|" + "--:|" * len(COLUMNS))
    total = sum(table.values(), Counter[str]())
    for case, counts in [*table.items(), (("all", "all"), total)]:
        print(f"| {' | '.join(case)} |" + "".join(f" {counts[column]} |" for column in COLUMNS))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=13 * len(CASES), help="how many runs (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="play only the runs with these numbers")
    parser.add_argument("--mount", action="append", choices=ALL_MOUNTS, help="only runs on this kind of mount")
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.runs) if options.only is None else options.only
    with tempfile.TemporaryDirectory() as folder:
        reference = make_reference(Path(folder) / REFERENCE)
    table: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for cases, running in ((MOUNTS, cluster.running), (rooms.MOUNTS, rooms.running)):
        wanted = set(cases) & set(options.mount or ALL_MOUNTS)
        chosen = [number for number in numbers if CASES[number % len(CASES)][1] in wanted]
        with running() if chosen else contextlib.nullcontext() as hosts:
            for number in chosen:
                soak = play(hosts, options.seed, number, reference)
                table[soak.failure, soak.kind] += soak.counts
    print_table(table)
    total = sum(table.values(), Counter[str]())
    return 1 if total["wrong"] or total["lost"] else 2 if total["stuck"] else 0


if __name__ == "__main__":
    sys.exit(main())
