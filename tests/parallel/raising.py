"""Run scimill's command line with a defect in one block: its making raises, with the store open on all ranks.

Usage: raising.py BLOCK ARGUMENTS...
"""

import sys
import time
from collections.abc import Callable

from scimill import __main__
from scimill.droplets import generate
from scimill.store.writer import BlockData

block_maker = generate.block_maker


def defective(block: int) -> Callable[..., Callable[[int], BlockData]]:
    def maker(*args: object) -> Callable[[int], BlockData]:
        make = block_maker(*args)
        return lambda number: make(number) if number != block else _fail()

    return maker


def _fail() -> BlockData:
    raise RuntimeError(f"a defect, made on purpose at {time.time()}")


if __name__ == "__main__":
    generate.block_maker = defective(int(sys.argv.pop(1)))
    __main__.main()
