"""Compare the CPU time of `scimill jobs` on a login node with importing the libraries it uses.

The baseline imports the same libraries for command line, validation, YAML and templates, and does nothing with them.
Each command runs in a process of its own. They take turns, and the least time of each counts, to exclude other load.
"""

import resource
import subprocess
import sys

import harness

MOST = 0.5  # s
LIBRARIES = "click, jinja2, pydantic, yaml"
SCIMILL = (sys.executable, "-m", "scimill")
RENDER = (
    "jobs render --machine polaris --nodes 10 --queue prod --account project --filesystems home --walltime 1h"
    " -- scimill droplets generate droplets.h5 --count 1e6"
)
COMMANDS = {
    f"import {LIBRARIES}": (sys.executable, "-c", f"import {LIBRARIES}; pydantic.BaseModel"),
    "jobs --help": (*SCIMILL, "jobs", "--help"),
    "jobs render --help": (*SCIMILL, "jobs", "render", "--help"),
    "jobs render": (*SCIMILL, *RENDER.split()),
    "jobs machines": (*SCIMILL, "jobs", "machines"),
}


def cpu_seconds(command: tuple[str, ...]) -> float:
    """Run a command; return its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(repeats: int) -> dict[str, float]:
    """Run the commands in turns; return the least CPU seconds of each."""
    turns = [{name: cpu_seconds(command) for name, command in COMMANDS.items()} for _ in range(repeats)]
    return {name: min(turn[name] for turn in turns) for name in COMMANDS}


def main() -> int:
    flags = harness.parse(__doc__, harness.repeats(10))
    seconds = measure(flags.repeats)
    baseline, *ours = seconds
    print(f"{harness.describe_machine()}\n\n{'':36}    CPU s  x imports")
    for name, value in seconds.items():
        print(f"{name:36} {value:8.3f} {value / seconds[baseline]:10.2f}")
    goals = [harness.Goal(f"{name}, CPU s", seconds[name], most=MOST) for name in ours]
    return harness.conclude(goals, {"seconds": seconds}, flags.json)


if __name__ == "__main__":
    sys.exit(main())
