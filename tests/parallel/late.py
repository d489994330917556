"""Run scimill's command line, held up for some seconds between looking for an output and laying down a new one.

Usage: late.py SECONDS ARGUMENTS...
"""

import sys
import time

from scimill import __main__
from scimill.store import writer

check_space = writer.check_space


def main() -> None:
    seconds = float(sys.argv.pop(1))

    def wait_first(*args: object) -> None:
        time.sleep(seconds)
        check_space(*args)

    writer.check_space = wait_first
    __main__.main()


if __name__ == "__main__":
    main()
