"""Code shared by the benchmarks: requirements, options, processes on ranks, and goals.

Scripts import it before any package that may be missing: from then on a missing package gives a one-line message.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

# ---- requirements -----------------------------------------------------------------------------------------------


def describe_missing(name: str) -> str:
    return f"needs {name}; run scripts/setup.sh --with-benchmarks"


def report_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report a missing package or Ctrl-C in one line, and anything else with its traceback."""
    if isinstance(error, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
    elif isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("scimill."):
        if {"-h", "--help"} & set(sys.argv):
            print(sys.modules["__main__"].__doc__)
        print(describe_missing(str(error.name)), file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = report_exception


def require(name: str) -> None:
    """Exit with a one-line message unless `name` is an installed package or program."""
    beside = Path(sys.prefix) / "peers" / name
    if beside.is_dir() and str(beside) not in sys.path:
        sys.path.append(str(beside))
    if not has_module(name) and not shutil.which(name):
        raise SystemExit(describe_missing(name))


def has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


# ---- options ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a benchmark: its values in a full and in a quick run, and its help."""

    name: str
    full: Any
    quick: Any
    help: str

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Declare the flag; `parse` fills in the default, which depends on ``--quick``."""
        form: dict[str, Any] = {"type": Path if self.full is None else type(self.full)}
        if isinstance(self.full, bool):
            form = {"action": "store_true", "default": None}
        elif isinstance(self.full, list):
            form = {"type": type(self.full[0]), "nargs": "+"}
        default = "" if self.full in (None, False) else f" (default {self.full}; with --quick {self.quick})"
        parser.add_argument(f"--{self.name}", help=self.help + default, **form)


DIRECTORY = Option("directory", None, None, "where to write (default: a temporary directory)")


def repeats(full: int) -> Option:
    return Option("repeats", full, 1, "number of measurements; the best or the median counts")


def parse(
    doc: str | None, *options: Option, needs: Sequence[str] = (), part: Callable[..., None] | None = None
) -> argparse.Namespace:
    """Parse the command line of a benchmark; exit with a one-line message if a requirement is missing.

    A process started by `run_part` runs `part` with the given words and exits here.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in options:
        option.add_to(parser)
    parser.add_argument("--quick", action="store_true", help="run with small sizes, which give no meaningful figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to FILE")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    for name in needs:
        require(name)
    if part and given.part:
        part(*given.part)
        raise SystemExit
    for option in options:
        if getattr(given, option.key) is None:
            setattr(given, option.key, option.quick if given.quick else option.full)
    if getattr(given, DIRECTORY.key, None):
        given.directory.mkdir(parents=True, exist_ok=True)
    return given


# ---- processes --------------------------------------------------------------------------------------------------


def run(*words: object, ranks: int = 1, environment: dict[str, str] | None = None) -> str:
    """Run a command, under mpirun if on several ranks; return its output, or exit if it fails."""
    launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
    command = [*launcher, *map(str, words)]
    variables = os.environ | (environment or {})
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        raise SystemExit(f"{done.stderr}exit code {done.returncode}: {' '.join(command)}")
    return done.stdout


def run_scimill(*words: object, ranks: int = 1) -> str:
    return run(sys.executable, "-m", "scimill", *words, ranks=ranks)


def run_part(*words: object, ranks: int = 1, environment: dict[str, str] | None = None) -> str:
    """Run the `part` of this benchmark in separate processes; return its output."""
    return run(sys.executable, sys.argv[0], "--part", *words, ranks=ranks, environment=environment)


# ---- goals ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Goal:
    """A measured value and the least or the most that it should be."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether the value meets the goal."""
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    @property
    def columns(self) -> tuple[str, str, str, str]:
        """Quantity, measured value, goal and verdict, as cells of a table."""
        sign, limit = (">=", self.least) if self.least is not None else ("<=", self.most)
        return self.name, f"{self.value:,.4g}", f"{sign} {limit:,g}", "met" if self.is_met else "missed"


def describe_machine() -> str:
    """Describe processor and vector extension, for the heading of a table."""
    from scimill.doctor import model_and_vectors

    model, vectors = model_and_vectors()
    return f"{model}, {vectors or 'no wide vectors'}"


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as a table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def conclude(goals: list[Goal], results: dict[str, Any], file: Path | None) -> int:
    """Print the goals, write all results to a JSON file if given, and return the exit code."""
    if goals:
        print("\n" + format_table([goal.columns for goal in goals]))
    if file:
        verdicts = [dataclasses.asdict(goal) | {"met": goal.is_met} for goal in goals]
        file.write_text(json.dumps({"machine": describe_machine(), "goals": verdicts, **results}, indent=2) + "\n")
    return 0 if all(goal.is_met for goal in goals) else 1
