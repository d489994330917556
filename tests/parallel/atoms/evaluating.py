"""Evaluate a cache with an ensemble on all ranks: evaluating.py RUN CACHE OUTPUT; each rank writes OUTPUT-RANK.npz."""

import sys

import numpy as np

from scimill.atoms.learning.potentials import evaluate_cache
from scimill.parallel.world import launch, world


def run() -> int:
    found = evaluate_cache(sys.argv[1], sys.argv[2], world())
    np.savez(f"{sys.argv[3]}-{world().rank}.npz", **{group: v["forces"] for group, v in found.predicted.items()})
    return 0


if __name__ == "__main__":
    launch(run)
