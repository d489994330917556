#!/usr/bin/env python3
"""Kill submissions and links of chains at random instants, let the scheduler fail, and count doubled and lost steps.

    tests/jobs/injected.py --faults 1000 --seed 1
    tests/jobs/injected.py --seed 1 --only 17         replay one chain

The scheduler is a toy: a folder of files, one for each job, and programs that answer like Slurm's. Jobs are played, not
run: what a job's script does (`jobs begin`, the command, `jobs next`) happens in a process that may be killed, and
a second command of a user may come at any time. Exits with 1 after a doubled or lost step.
"""

import argparse
import contextlib
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from scimill import cli  # noqa: E402
from scimill.errors import ScimillError  # noqa: E402
from scimill.jobs import links  # noqa: E402
from scimill.jobs.state import read_state  # noqa: E402

CHAIN = """
resources: {walltime: 1h, ranks_per_node: 1}
steps:
  a: {command: touch a}
  b: {command: touch b, after: a, resources: {array: 0-2}}
  c: {command: touch c, after: [a, b]}
"""
STEPS = ("a", "b", "c")
SBATCH = """#!/bin/sh
# Queue a script. $TOY/mode is what happens: nothing special, refused, lost (queued, but says nothing), fails late.
cd "$TOY" || exit 1
mode=$(cat mode 2>/dev/null); echo >mode; echo "$mode" >>used
for last; do :; done
case $mode in refused) echo "sbatch: error: Unable to contact slurm controller" >&2; exit 1 ;; esac
number=$(($(cat number) + 1)); echo "$number" >number
grep '^#SBATCH --\\(array\\|dependency\\)=' "$OLDPWD/$last" >"new"; echo "script=$OLDPWD/$last" >>new
mv new "jobs/$number"
case $mode in lost) exit 1 ;; late) echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1 ;; esac
echo "$number"
"""
SQUEUE = """#!/bin/sh
cd "$TOY" || exit 1
mode=$(cat queue-mode 2>/dev/null); echo >queue-mode; echo "$mode" >>used
case $mode in down) echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1 ;; esac
cat listed
for job in jobs/*; do
  [ -e "$job" ] || continue
  script=$(sed -n s/^script=//p "$job")
  if grep -q array= "$job"; then
    for index in 0 1 2; do [ -e "ended/${job#jobs/}_$index" ] || echo "${job#jobs/}_$index|RUNNING|None|$script"; done
  else echo "${job#jobs/}|RUNNING|None|$script"; fi
done
"""
SCONTROL = """#!/bin/sh
exit 0
"""


class Toy:
    """A scheduler of files, the folder of a chain, and what was seen."""

    def __init__(self, folder: Path, number: int, seed: int) -> None:
        self.random = random.Random(f"{seed} {number}")
        self.folder, self.work = folder, folder / "work"
        for name in ("bin", "jobs", "ended", "work"):
            (folder / name).mkdir()
        (folder / "number").write_text("100")
        (folder / "listed").touch()
        for name, text in {"sbatch": SBATCH, "squeue": SQUEUE, "scontrol": SCONTROL}.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        (self.work / "chain.yaml").write_text(CHAIN)
        self.counts: Counter[str] = Counter()
        self.ran: Counter[str] = Counter()

    # ---- faults ----

    def fork(self, act: Callable[[], int], chance: float) -> int | None:
        """Run a function in a process that may be killed at one of its lines; None if it was killed."""
        instant = self.random.randrange(LINES) if self.random.random() < chance else None
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            code = 70
            with contextlib.suppress(BaseException):
                self._enter()
                if instant is not None:
                    sys.settrace(dying(instant))
                code = act()
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            self.counts["killed"] += 1
            return None
        return os.WEXITSTATUS(status)

    def _enter(self) -> None:
        """Become a command of the user: its folder, its commands, its silence."""
        os.chdir(self.work)
        os.environ.update(TOY=str(self.folder), PATH=f"{self.folder / 'bin'}:{os.environ['PATH']}")
        log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)

    def disturb(self) -> None:
        """Let the scheduler fail at its next call, or not."""
        self._fail("mode", ("refused", "lost", "late"))
        self._fail("queue-mode", ("down",))

    def _fail(self, name: str, modes: Sequence[str]) -> None:
        (self.folder / name).write_text(self.random.choice(modes) if self.random.random() < 0.15 else "")

    # ---- the user ----

    def submit(self, chance: float) -> bool:
        """Submit the chain; return whether that succeeded."""
        if chance:
            self.disturb()
        return self.fork(lambda: command("jobs", "submit", "chain.yaml", "--machine", "slurm-generic"), chance) == 0

    def submit_until_done(self) -> None:
        """Submit the chain as a user does, again and again until the command succeeds; then count its jobs."""
        for _ in range(100):
            if self.submit(0.5):
                self.check()
                return
        raise AssertionError(f"no submission succeeds:\n{(self.folder / 'log').read_text()[-2000:]}")

    # ---- the jobs ----

    def live(self) -> list[tuple[str, str, str]]:
        """Return the jobs in the queue: id, unit and name of the script."""
        found = []
        for path in sorted((self.folder / "jobs").iterdir(), key=lambda path: int(path.name)):
            text = path.read_text()
            script = re.findall("script=(.*)", text)[0].rpartition("/")[2]
            written = (self.work / "scimill-jobs" / script).read_text()
            step = script.split("-")[1]
            index = re.findall(r"(?m)^index=(\d+)$", written)
            if "array=" in text:
                elements = [(f"{path.name}_{index}", f"{step}.{index}") for index in range(3)]
                found += [(job, unit, script) for job, unit in elements if not (self.folder / "ended" / job).exists()]
            else:
                found.append((path.name, f"{step}.{index[0]}" if index else step, script))
        return found

    def check(self) -> None:
        """No unit has two jobs, and each that has not ended well has one that may run."""
        state = read_state(self.work / "scimill-jobs" / "chain")
        jobs = Counter(unit for _, unit, _ in self.live())
        able = {unit for _, unit, script in self.live() if state.unit(unit).script == script}
        self.counts["doubled"] += sum(count > 1 for count in jobs.values())
        self.counts["lost steps"] += sum(unit.code != 0 and name not in able for name, unit in state.units())
        if any(self.counts[name] for name in WRONG):
            print(self.live(), state, (self.folder / "log").read_text()[-3000:], sep="\n")

    def play(self) -> None:
        """Play a job of the queue: an arbitrary one, whose predecessors are checked by the job itself."""
        jobs = self.live()
        job, unit, script = self.random.choice(jobs)
        folder = Path("scimill-jobs/chain")
        copy = self.work / "scimill-jobs" / script
        if self.fork(lambda: quiet(lambda: links.begin(folder, unit, script)), 0.05) == 0:
            code = self.random.choice((0, 0, 0, 75, 75, 1)) if unit == "a" else self.random.choice((0, 0, 0, 1))
            if self.random.random() < 0.3:  # while the job runs
                self.submit_until_done()
            self.disturb()
            index = {"SCIMILL_ARRAY_INDEX": unit[2:]} if "." in unit else {}

            def end() -> int:
                os.environ.update(index)
                return links.end(folder, unit, copy.read_text(), script, code, 20 if unit == "a" else 1)

            if self.fork(lambda: quiet(end), 0.3) == code == 0:
                self.ran[unit] += 1
                self.counts["repeated"] += self.ran[unit] > 1
        self.end_job(job)

    def end_job(self, job: str) -> None:
        if "_" in job:
            (self.folder / "ended" / job).touch()
            whole = job.partition("_")[0]
            if len(list((self.folder / "ended").glob(f"{whole}_*"))) == 3:
                (self.folder / "jobs" / whole).unlink()
        else:
            (self.folder / "jobs" / job).unlink()
        # Ids are used again: a stranger's job gets the one that has just become free.
        if self.random.random() < 0.2:
            self.counts["id reused"] += 1
            (self.folder / "listed").write_text(f"{job}|RUNNING|None|/home/other/job.sh\n")

    def is_complete(self) -> bool:
        state = read_state(self.work / "scimill-jobs" / "chain")
        return all(unit.code == 0 for _, unit in state.units())


LINES = 2500
"""More than the lines of `SOURCES` that a submission executes."""
SOURCES = ("jobs/submit.py", "jobs/links.py", "jobs/state.py", "jobs/scripts.py", "jobs/steps.py", "scimill/claim.py",
           "scimill/files.py", "jobs/schedulers.py")  # fmt: skip


def dying(instant: int) -> Callable[[FrameType, str, Any], Any]:
    """Return a trace function that kills this process at a line of the code of jobs."""
    left = iter(range(instant, -1, -1))

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.endswith(SOURCES):
            return None
        if event == "line" and next(left, 0) == 0:
            os.kill(os.getpid(), 9)
        return trace

    return trace


def command(*words: str) -> int:
    """Run a command of scimill; return its exit code."""
    try:
        cli.scimill.main(list(words), prog_name="scimill", standalone_mode=False)
    except ScimillError as error:
        print(error)
        return error.exit_code
    return 0


def quiet(act: Callable[[], int | None]) -> int:
    try:
        return act() or 0
    except ScimillError as error:
        print(error)
        return error.exit_code


def play_chain(number: int, seed: int) -> Toy:
    """Submit and run one chain to its end, with faults."""
    with tempfile.TemporaryDirectory(prefix="scimill-toy-", dir="/dev/shm") as folder:
        toy = Toy(Path(folder), number, seed)
        for _ in range(200):
            toy.submit_until_done()
            if toy.is_complete() or any(toy.counts[name] for name in WRONG):
                break
            for _ in range(toy.random.randrange(1, 6)):
                if toy.live():
                    toy.play()
        else:
            toy.counts["never complete"] += 1
            print((toy.folder / "log").read_text()[-3000:])
        toy.counts += Counter(chains=1) + Counter((toy.folder / "used").read_text().split())
    return toy


def chains(faults: int, seed: int) -> Iterator[tuple[int, Counter[str]]]:
    """Play chains until so many faults were injected; yield their numbers and counts."""
    seen = number = 0
    while seen < faults:
        counts = play_chain(number, seed).counts
        seen += sum(counts[name] for name in FAULTS)
        yield number, counts
        number += 1


FAULTS = ("killed", "refused", "lost", "late", "down", "id reused")
WRONG = ("doubled", "repeated", "lost steps", "never complete")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int)
    arguments = parser.parse_args()
    start, total = time.monotonic(), Counter[str]()
    played = (
        chains(arguments.faults, arguments.seed)
        if arguments.only is None
        else [(arguments.only, play_chain(arguments.only, arguments.seed).counts)]
    )
    for number, counts in played:
        total += counts
        if any(counts[name] for name in WRONG):
            print(f"chain {number}: {dict(counts)}")
    for name in ("chains", *FAULTS, *WRONG):
        print(f"{name:<16} {total[name]:>6}")
    print(f"{time.monotonic() - start:.0f} s")
    return int(any(total[name] for name in WRONG))


if __name__ == "__main__":
    sys.exit(main())
