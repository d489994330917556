"""Fail on every rank, each after its own delay.

Usage: failing.py DELAY_OF_RANK_0 DELAY_OF_RANK_1 ...   (seconds; a negative one never fails)
"""

import sys
import time
from pathlib import Path

from scimill.errors import StorageError
from scimill.parallel.world import launch, world


def fail() -> int:
    rank = world().rank
    world().barrier()
    delay = float(sys.argv[1 + rank])
    time.sleep(delay if delay >= 0 else 60)
    raise StorageError(f"rank {rank} has failed, on purpose")


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))
    from measured import save_before_abort

    save_before_abort()
    launch(fail)
