"""Update reduction r while all ranks except 0 are late: updating.py DATABASE; rank 0 does not wait for them."""

import sys
import time

from scimill.atoms.database.database import Database
from scimill.parallel.world import launch, world

LATE = 0.5  # s; reading a few predictions takes milliseconds


def run() -> int:
    with Database(sys.argv[1], world=world()) as database:
        if not world().is_root:
            time.sleep(LATE)
        found = database.predictions("r")
        done = database.update_data_reductions("r", found.predicted, found.true, 0.5)
    print(f"{done.added} structures added")
    return 0


if __name__ == "__main__":
    launch(run)
