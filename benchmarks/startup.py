"""Compare the calls with a file name of a rank, from the environment and from an image, with a limit.

On a cluster the environment of `scripts/setup.sh` usually lies on a shared file system, whose server answers each of
these calls, for each rank. An image is one open file there; what lies inside it is looked up on the node. With
--image, the calls of a rank in an image are counted too: only those outside the image reach shared file systems.
"""

import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import harness

RANKS = 10_000
NAMED = re.compile(r'^\d+ +\w+\([^"]*"((?:[^"\\]|\\.)*)"')
NODE = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/proc", "/sys", "/dev", "/run", "/var", "/selinux")
"""Folders of the node itself, or of the image."""
INSIDE = "/opt/scimill"


def places(image: Path | None) -> dict[str, tuple[str, ...]]:
    """Return the folders of each place, the first that fits counts."""
    environment = (INSIDE,) if image else (sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]))
    return {"environment": environment, "node": NODE, "home": (str(Path.home()),)}


def count(folder: Path, image: Path | None) -> Counter[str]:
    """Generate a few droplets under strace; return its calls with a file name by place."""
    log = folder / "calls"
    inside = ["apptainer", "exec", "--bind", str(folder), str(image)] if image else []
    words = ["scimill", "droplets", "generate", str(folder / "out.h5"), "--count", "16"]
    harness.run("strace", "-f", "-qq", "-e", "trace=%file", "-e", "signal=none", "-o", str(log), *inside, *words)
    lines = log.read_text("utf-8", "replace").splitlines()
    begins = next(number for number, line in enumerate(lines) if "execve(" in line and '"scimill", "droplets"' in line)
    process = lines[begins].split()[0]  # not git, which only rank 0 asks for its commit
    calls = map(NAMED.match, (line for line in lines[begins:] if line.startswith(f"{process} ")))
    names = (call[1] for call in calls if call)
    return Counter(place_of(name, folder, image) for name in names)


def place_of(name: str, folder: Path, image: Path | None) -> str:
    """Return where a file lies; a name without a folder is asked for by its descriptor, or in the working directory."""
    if not name:
        return "by descriptor"
    if not name.startswith("/") or name.startswith(str(folder)):
        return "working directory"
    fitting = (place for place, roots in places(image).items() if name.startswith(roots))
    return next(fitting, "elsewhere")


def main() -> int:
    """Measure and print; return 0 if every goal is met."""
    options = harness.parse(
        __doc__, harness.Option("image", None, None, "an image to count as well"), needs=("strace",)
    )
    results, goals = {}, []
    for name, image in {"environment": None, "image": options.image}.items():
        if name == "image" and image is None:
            continue
        with tempfile.TemporaryDirectory(prefix="scimill-benchmark-") as folder:
            count(Path(folder), image)  # compiles the kernel, if it is not in the cache yet
        with tempfile.TemporaryDirectory(prefix="scimill-benchmark-") as folder:
            found = count(Path(folder), image)
        results[name] = dict(found)
        shared = sum(found[place] for place in ("home", "working directory", "elsewhere"))
        total = shared if image else shared + found["environment"]
        rows = [(place, f"{number:,}") for place, number in found.most_common()]
        print(f"\none rank, from the {name}:\n{harness.format_table(rows)}")
        print(f"on shared file systems: {total:,}; for {RANKS:,} ranks {total * RANKS / 1e6:,.1f} million")
        if image:
            goals.append(harness.Goal("calls of a rank from the image on shared file systems", total, most=50))
    return harness.conclude(goals, results, options.json)


if __name__ == "__main__":
    raise SystemExit(main())
