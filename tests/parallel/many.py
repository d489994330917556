"""Run several command lines of scimill in one start of the ranks, which takes longer than most of them.

Usage: many.py COMMANDS     a list of lists of words, as JSON
"""

import json
import sys
from collections.abc import Iterable

from scimill.cli import scimill
from scimill.parallel.world import launch


def one_start(commands: Iterable[Iterable[object]]) -> tuple[str, ...]:
    """Return the program that runs these commands one after the other; for `mpi.scimill`."""
    return sys.executable, __file__, json.dumps([[str(word) for word in words] for words in commands])


def run() -> int:
    for words in json.loads(sys.argv[1]):
        scimill.main(words, prog_name="scimill", standalone_mode=False)
    return 0


if __name__ == "__main__":
    launch(run)
