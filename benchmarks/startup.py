"""Compare the calls with a file name of ranks that start, from the environment and from an image, with a limit.

On a cluster the environment of `scripts/setup.sh` usually lies on a shared file system, whose server answers each of
these calls, for each rank. An image is one open file there; what lies inside it is looked up on the node. With
--image, ranks in an image are counted too, started as in the scripts of `scimill jobs`, with the calls of apptainer.
Calls for /tmp, /opt and the folders of the system go to the node itself, or into the image.
"""

import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import harness

RANKS = 10_000
CALL = re.compile(r'^\d+ +(?!getcwd)\w+\((?:(?:AT_FDCWD|\d+)<([^>]*)>, )?(?:[^"]*, )?"((?:[^"\\]|\\.)*)"')
"""A call as strace prints it: the folder to which a relative name refers, where it is given, and the name."""
NAMELESS = re.compile(r'^\d+ +(?:mount\("(?!/)|umount2\("\.|pivot_root\(|\w+\([^"]*"")')
"""Calls about an open file, or that mount a file system of the node's memory."""
STARTS = re.compile(r'execve\("[^"]*/scimill", .* = 0$')
NODE = "usr lib lib64 bin sbin etc proc sys dev run var opt tmp selinux .singularity.d .inject-apptainer-env.sh"
SHARED = ("image file", "home", "working directory", "elsewhere")
PATH = "/usr/local/bin:/usr/bin:/bin"  # apptainer searches it; folders of one's own in it would add calls

Places = dict[str, list[str]]
Count = dict[str, Counter[str]]
"""Calls by place, of apptainer and of scimill."""


def places(folder: Path, image: Path | None) -> Places:
    """Return the folders of each place; the first that fits counts."""
    environment = [sys.prefix, os.path.realpath(sys.prefix), sys.base_prefix, str(Path(__file__).parents[1])]
    return {
        "working directory": [str(folder.parents[1])],
        "image file": [str(image)] if image else [],
        "environment": [] if image else environment,
        "node": [f"/{name}" for name in NODE.split()],
        "home": [str(Path.home())],
    }


def place_of(name: Path, roots: Places) -> str:
    """Return where a file lies."""
    fits = (place for place, folders in roots.items() for each in folders if name.is_relative_to(each))
    return next(fits, "node" if name == Path("/") else "elsewhere")


def trace(folder: Path, image: Path | None) -> list[Path]:
    """Generate a few droplets on two ranks in a folder; return the calls of each."""
    tracer = f"exec strace -f -y -qq -e trace=%file -e signal=none -o {folder}.${{OMPI_COMM_WORLD_RANK:-$PMI_RANK}}"
    inside = ["env", "--chdir=/", f"PATH={PATH}", "apptainer", "exec", "--bind", folder, "--pwd", folder, image]
    words = [*(inside if image else []), "scimill", "droplets", "generate", "out.h5", "--count", "16"]
    harness.run("env", f"--chdir={folder}", "mpirun", "-n", 2, "sh", "-c", f'{tracer} "$@"', "sh", *words)
    return [folder.with_suffix(f".{rank}") for rank in range(2)]


def read(log: Path, folder: Path, roots: Places) -> Count:
    """Return the calls of one rank by place."""
    found: Count = {"apptainer": Counter(), "scimill": Counter()}
    program = "apptainer"
    for line in log.read_text("utf-8", "replace").splitlines():
        program = "scimill" if STARTS.search(line) else program
        call = CALL.match(line)
        if call and not NAMELESS.match(line):
            found[program][place_of(Path(call[1] or folder, call[2]), roots)] += 1
    return found


def count(image: Path | None) -> list[Count]:
    """Count the calls of two ranks."""
    with tempfile.TemporaryDirectory(prefix="scimill-benchmark-") as top:
        for run in ("first", "second"):  # the first one compiles the kernel, if it is not in the cache
            folder = Path(top) / "user" / run
            folder.mkdir(parents=True)
            logs = trace(folder, image)
        return [read(log, folder, places(folder, image)) for log in logs]


def report(name: str, ranks: list[Count]) -> list[int]:
    """Print the calls of two ranks; return how many of each reach shared file systems."""
    shared = SHARED if name == "image" else (*SHARED, "environment")
    columns = [(f"{program}, rank {rank}", calls) for rank in (0, 1) for program, calls in ranks[rank].items() if calls]
    found = sorted({place for _, calls in columns for place in calls}, key=lambda place: (place in shared, place))
    rows = [("", *(title for title, _ in columns))]
    rows += [(place, *(f"{calls[place]:,}" for _, calls in columns)) for place in found]
    totals = [sum(calls[place] for calls in each.values() for place in shared) for each in ranks]
    print(f"\ncalls with a file name, from the {name}:\n{harness.format_table(rows)}")
    print(f"to shared file systems: {totals[0]:,} of rank 0, {totals[1]:,} of each other rank;", end=" ")
    print(f"{(totals[0] + totals[1] * (RANKS - 1)) / 1e6:,.2f} million of {RANKS:,} ranks")
    return totals


def main() -> int:
    """Measure and print; return 0 if every goal is met."""
    options = harness.parse(
        __doc__, harness.Option("image", None, None, "an image to count as well"), needs=("strace",)
    )
    name, goals = "calls of a rank from the image to shared file systems", []
    results = {"environment": report("environment", count(None))}
    if options.image:
        results["image"] = report("image", count(options.image.resolve()))
        goals = [harness.Goal(name, results["image"][1], most=50)]
    return harness.conclude(goals, results, options.json)


if __name__ == "__main__":
    raise SystemExit(main())
