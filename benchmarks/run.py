"""Run the benchmarks one after the other and print a table of their goals.

    python benchmarks/run.py --quick            # all benchmarks with small sizes, to show that they run
    python benchmarks/run.py sky training       # two benchmarks with full sizes

The exit code is 1 if a benchmark fails to run; a missed goal does not count.
"""

import argparse
import ast
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Goal, format_table

FOLDER = Path(__file__).parent
BENCHMARKS = [path.stem for path in sorted(FOLDER.glob("*.py")) if path.stem not in ("run", "harness")]
HEADINGS = ("benchmark", "quantity", "measured", "goal", "", "seconds")

Row = tuple[str, ...]


def describe(name: str) -> str:
    """Return the first line of a benchmark's docstring."""
    doc = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
    return str(doc).partition("\n")[0]


def list_benchmarks() -> str:
    return format_table([(name, describe(name)) for name in BENCHMARKS])


def run_process(command: list[str]) -> int:
    """Run a command to its end; pass Ctrl-C on to it once, so that it removes its files."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        raise


def run_benchmark(name: str, *, quick: bool) -> tuple[list[Row], bool]:
    """Run a benchmark; return its rows of the table and whether it ran."""
    print(f"\n==== {name}: {describe(name)}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        command = [sys.executable, "-u", str(FOLDER / f"{name}.py"), "--json", str(file), *["--quick"] * quick]
        started = time.monotonic()
        code = run_process(command)
        seconds = f"{time.monotonic() - started:.0f}"
        if not file.exists():
            return [(name, f"did not run: exit code {code}", "", "", "failed", seconds)], False
        fields = ("name", "value", "least", "most")
        goals = [Goal(*(goal[field] for field in fields)) for goal in json.loads(file.read_text())["goals"]]
    cells = [goal.columns for goal in goals] or [("no goals", "", "", "")]
    return [(name, *row, seconds) for row in cells], True


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nbenchmarks:\n{list_benchmarks()}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run (default: all)")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and what they compare")
    parser.add_argument("--quick", action="store_true", help="run with small sizes, which give no meaningful figures")
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"unknown benchmark: {', '.join(unknown)}; --list shows all")
    return given


def main() -> int:
    given = parse()
    if given.list:
        print(list_benchmarks())
        return 0
    rows, code = [HEADINGS], 0
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have started this in the background, ignoring SIGINT
        signal.signal(number, signal.default_int_handler)
    try:
        for name in given.names or BENCHMARKS:
            found, ran = run_benchmark(name, quick=given.quick)
            rows += found
            code = code if ran else 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        code = 130
    print("\n" + format_table(rows))
    return code


if __name__ == "__main__":
    sys.exit(main())
