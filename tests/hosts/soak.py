#!/usr/bin/env python3
"""Run random failures on two hosts, and count how the runs end. It needs what tests/hosts needs.

    tests/hosts/soak.py --runs 100 --seed 1
    tests/hosts/soak.py --seed 1 --only 17        replay one run

A run ends right if its file has the bytes of one process, at once or after --resume. It ends wrong if it reports
success for another file, or publishes one that is not finished. Exits with 1 after a wrong success, with 2 if a run
could not be resumed.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from hosts import cluster  # noqa: E402
from hosts.cluster import MOUNTED, Hosts  # noqa: E402
from hosts.runs import BLOCKS, REFERENCE, REFUSED, Run, make_reference  # noqa: E402
from mpi import Hang, Job, Result  # noqa: E402

RIGHT, RESUMED, WRONG, STUCK = "right at once", "resumed", "WRONG", "stuck"
OUTCOMES = (RIGHT, RESUMED, WRONG, STUCK)
NOTICED = 120.0  # s; a job that lost a host ends within this time
LONGEST_OUTAGE = 20.0  # s
START_UP = 0.2
"""Part of the failures that come before the first block."""


class Soak:
    """One run with a failure at a random instant, all of it from the seed and the run's number."""

    def __init__(self, hosts: Hosts, seed: int, number: int, scratch: Path) -> None:
        self.random = random.Random(f"{seed} {number}")
        self.scenario = self.random.choice(list(SCENARIOS))
        self.kind = self.random.choice(list(MOUNTED))
        self.victim, self.other = self.random.sample(hosts.clients, 2)
        self.hosts = hosts
        self.run = Run(hosts, self.kind, scratch)
        self.log: list[str] = []

    def play(self, reference: dict[str, str]) -> str:
        """Run the scenario to its end, resume if needed, and return the outcome."""
        with self.run.start() as job:
            self._wait_for_instant()
            result = SCENARIOS[self.scenario](self, job)
        self.log.append(str(result))
        if result.returncode == 0:
            return self._judge(RIGHT, WRONG, reference)
        if self.run.is_published() and self._judge(RIGHT, WRONG, reference) == WRONG:
            return WRONG
        resumed = self.run.resume(self.random.choice(self.hosts.clients))
        self.log.append(str(resumed))
        return self._judge(RESUMED, WRONG, reference) if resumed.returncode == 0 else STUCK

    def _wait_for_instant(self) -> None:
        # A second run takes seconds to start: the two meet only if the first has not come far.
        if self.random.random() < START_UP or self.scenario == "submit twice":
            time.sleep(self.random.uniform(0, 10))
        else:
            self.run.wait_for_blocks(self.hosts.h1, self.random.randrange(BLOCKS))

    def _judge(self, right: str, wrong: str, reference: dict[str, str]) -> str:
        fault = self.run.find_fault(reference)
        self.log.append(fault)
        return wrong if fault else right


def kill(soak: Soak, job: Job) -> Result:
    soak.run.kill_rank(soak.victim)
    return job.wait(NOTICED)


def cut_network(soak: Soak, job: Job) -> Result:
    soak.hosts.network.cut(soak.victim.name)
    time.sleep(soak.random.uniform(0, LONGEST_OUTAGE))
    soak.hosts.network.restore(soak.victim.name)
    return job.wait(NOTICED)


def restart_server(soak: Soak, job: Job) -> Result:
    soak.hosts.srv.restart_nfs()
    return job.wait(NOTICED)


def submit_twice(soak: Soak, job: Job) -> Result:
    """Start a second run, and return the result of the one that was not refused."""
    with soak.run.start_on(soak.other, soak.random.choice(["--resume", "--overwrite"])) as second:
        late, first = second.wait(), job.wait()
    soak.log.append(str(late))
    return late if first.returncode == REFUSED or late.returncode not in (0, REFUSED) else first


SCENARIOS: dict[str, Callable[[Soak, Job], Result]] = {
    "kill": kill,
    "cut network": cut_network,
    "restart server": restart_server,
    "submit twice": submit_twice,
}


def play(hosts: Hosts, seed: int, number: int, reference: dict[str, str]) -> tuple[str, str, str]:
    """Play one run; return its scenario, its mount and its outcome."""
    with tempfile.TemporaryDirectory() as scratch:
        soak, started = Soak(hosts, seed, number, Path(scratch)), time.monotonic()
        try:
            outcome = soak.play(reference)
        except Hang as hang:
            soak.log.append(str(hang))
            outcome = STUCK
        hosts.clear()
    print(f"{number}: {soak.scenario}, {soak.kind}: {outcome} after {time.monotonic() - started:.0f} s", flush=True)
    if outcome in (WRONG, STUCK):
        print("\n".join(soak.log), flush=True)
    return soak.scenario, soak.kind, outcome


def print_table(counts: Counter[tuple[str, str, str]]) -> None:
    print(f"{'scenario':16}{'mount':8}{'runs':>6}" + "".join(f"{outcome:>15}" for outcome in OUTCOMES))
    for scenario, kind in sorted({key[:2] for key in counts}):
        numbers = [counts[scenario, kind, outcome] for outcome in OUTCOMES]
        print(f"{scenario:16}{kind:8}{sum(numbers):6}" + "".join(f"{number:15}" for number in numbers))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="how many runs (default: 100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="play only the run with this number")
    options = parser.parse_args()
    numbers = range(options.runs) if options.only is None else [options.only]
    with tempfile.TemporaryDirectory() as folder:
        reference = make_reference(Path(folder) / REFERENCE)
    with cluster.running() as hosts:
        counts = Counter(play(hosts, options.seed, number, reference) for number in numbers)
    print_table(counts)
    outcomes = {key[2] for key in counts}
    return 1 if WRONG in outcomes else 2 if STUCK in outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
