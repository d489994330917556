"""Compare the CPU time of `scimill jobs` on a login node with importing the libraries that it uses.

The peer imports the same libraries for command line, validation, YAML and templates, and does nothing with them. Each
command runs in a process of its own. They take turns, and the least time of each counts, free of what other work adds.
"""

import resource
import subprocess
import sys

import harness

MOST = 0.5  # s
PEER = "click, jinja2, pydantic, yaml"
SCIMILL = (sys.executable, "-m", "scimill")
RENDER = (
    "jobs render --machine polaris --nodes 10 --queue prod --account project --filesystems home --walltime 1h"
    " -- scimill droplets generate droplets.h5 --count 1e6"
)
COMMANDS = {
    f"import {PEER}": (sys.executable, "-c", f"import {PEER}; pydantic.BaseModel"),
    "jobs --help": (*SCIMILL, "jobs", "--help"),
    "jobs render --help": (*SCIMILL, "jobs", "render", "--help"),
    "jobs render": (*SCIMILL, *RENDER.split()),
    "jobs machines": (*SCIMILL, "jobs", "machines"),
}


def processor_seconds(command: tuple[str, ...]) -> float:
    """Run a command; return the seconds of a processor that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(repeats: int) -> dict[str, float]:
    """Return the least seconds of each command; they take turns."""
    turns = [{name: processor_seconds(command) for name, command in COMMANDS.items()} for _ in range(repeats)]
    return {name: min(turn[name] for turn in turns) for name in COMMANDS}


def main() -> int:
    flags = harness.parse(__doc__, harness.repeats(10))
    seconds = measure(flags.repeats)
    peer, *ours = seconds
    print(f"{harness.machine()}\n\n{'':36} s of CPU  of the peer")
    for name, value in seconds.items():
        print(f"{name:36} {value:8.3f} {value / seconds[peer]:12.2f}")
    goals = [harness.Goal(f"{name}, s", seconds[name], most=MOST) for name in ours]
    return harness.conclude(goals, {"seconds": seconds}, flags.json)


if __name__ == "__main__":
    sys.exit(main())
