"""What the training loop needs to know: the network, the samples of a block, and the loss."""

import numpy as np
import torch

from pendulum import CAMPAIGN


class PendulumTask:
    network, terms = {"campaign": CAMPAIGN.name, "hidden": 32}, ("angle",)
    fields = ("initial_angle", "length", "time", "angle")

    def __init__(self, seed, reader):
        CAMPAIGN.require(reader, "generate")
        torch.manual_seed(seed)
        self.model = torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
        self.samples = reader.layout.rows_in

    def prepare(self, rows):
        return (torch.from_numpy(np.stack([rows[name] for name in self.fields], 1)).to(self.model[0].weight.dtype),)

    def losses(self, tensors):
        return (self.model(tensors[0][:, :3])[:, 0] - tensors[0][:, 3]).square().sum()[None]
