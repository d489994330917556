"""Compute gradients of the two branches' loss on some ranks, from uneven or empty parts of one batch.

Usage: sky_gradients.py OUTPUT; rank 0 writes OUTPUT.
"""

import sys

import numpy as np
import torch

from scimill.parallel.world import launch, world
from scimill.sky.learning.network import Augmentation, BranchesSpec, SkyTask
from scimill.sky.learning.vicreg import Weights
from scimill.training.ranks import Ranks

PARTS = (range(7), range(7, 12))
"""Pairs of each part of the batch; gradients are accumulated over the parts."""
CUTS = {
    # ranks: for each part, where the pairs of each rank begin and end; some ranks have none
    1: ((0, 7), (7, 12)),
    2: ((0, 2, 7), (7, 7, 12)),
    3: ((0, 3, 3, 7), (7, 7, 11, 12)),
}
NOTHING = Augmentation((1.0, 1.0), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
CASES = {
    # name: (backbones, projector); the embedding is wider than the batch, so the Gram matrix is used, or narrower
    "resnet and vit, wide": (("resnet10", "vit-micro"), (16, 24)),
    "bottlenecks, narrow": (("resnet50", "resnet10"), (8, 8, 3)),
}


def task(name: str) -> SkyTask:
    """A task in float64, the same on all ranks."""
    (rgb, thermal), projector = CASES[name]
    spec = BranchesSpec(rgb, thermal, 4, 4, 8, 8, projector, (32, 32), (16, 24), -10.0, 20.0)
    made = SkyTask(spec, 1, Weights(25.0, 25.0, 3.0), NOTHING, [12], [0], [])
    made.model.double()
    with torch.no_grad():  # the last scales of residual blocks start at zero, which would hide the blocks
        for parameter in made.model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.5)
    return made


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Twelve pairs."""
    random = np.random.default_rng(1)
    rgb, thermal = random.random((12, 3, 32, 32)), random.normal(-10, 20, (12, 1, 16, 24))
    return torch.from_numpy(rgb), torch.from_numpy(thermal)


def gradient(ranks: Ranks, name: str) -> torch.Tensor:
    """Gradient of all parameters, then the terms of the loss, then the running statistics."""
    trained, pairs = task(name), images()
    trained.join(ranks)
    terms = torch.zeros(3, dtype=torch.float64)
    for cuts in CUTS[ranks.size]:
        own = slice(cuts[ranks.rank], cuts[ranks.rank + 1])
        losses = trained.losses(tuple(part[own] for part in pairs))
        (losses.sum() / 12).backward()
        terms += losses.detach() / 12
    found = torch.cat([*(p.grad.flatten() for p in trained.model.parameters()), terms])
    statistics = [value.flatten() for name, value in trained.model.named_buffers() if "running" in name]
    return torch.cat([ranks.sum_(found), *statistics])


def gradients(ranks: Ranks) -> dict[str, torch.Tensor]:
    return {name: gradient(ranks, name) for name in CASES}


def run() -> int:
    with Ranks(world()) as ranks:
        found = gradients(ranks)
        if ranks.is_root:
            torch.save(found, sys.argv[1])
    return 0


if __name__ == "__main__":
    launch(run)
