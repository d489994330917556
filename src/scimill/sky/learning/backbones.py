"""Backbones, which compute features of images: residual networks and vision transformers.

ResNet: He et al. 2016, arXiv:1512.03385, with the last scale of each block initially zero (Goyal et al. 2017,
arXiv:1706.02677). ViT: Dosovitskiy et al. 2021, arXiv:2010.11929, sizes of Touvron et al. 2021, arXiv:2012.12877, with
fixed sinusoidal positions in two dimensions, so images of any size work; the features are the mean over the patches.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from scimill.sky.learning.batchnorm import BatchNorm

RESNETS = {
    # name: (blocks of each stage, whether they are bottlenecks)
    "resnet10": ((1, 1, 1, 1), False),
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
TRANSFORMERS = {
    # name: (width, heads, depth)
    "vit-micro": (96, 3, 4),
    "vit-tiny": (192, 3, 12),
    "vit-small": (384, 6, 12),
    "vit-base": (768, 12, 12),
}
EXPANSION = 4  # of the channels of a bottleneck, and of the hidden layer of a transformer
PERIOD = 10_000.0  # longest wavelength of the positions, in patches


def make_backbone(name: str, channels: int, width: int = 64, patch: int = 16) -> "ResNet | Transformer":
    """Make a backbone by name.

    Parameters
    ----------
    name : one of `RESNETS` or `TRANSFORMERS`.
    channels : of the images.
    width : channels of a residual network's first stage.
    patch : side of a transformer's patches, in pixels.

    """
    if name in RESNETS:
        return ResNet(*RESNETS[name], channels, width)
    return Transformer(*TRANSFORMERS[name], channels, patch)


def _convolution(before: int, after: int, size: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class ResidualBlock(nn.Module):
    """A residual block of two 3 x 3 convolutions, or a bottleneck.

    Parameters
    ----------
    before, width, stride : channels of the input, channels inside, stride.
    bottleneck : whether to make a bottleneck.

    """

    def __init__(self, before: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        after = width * (EXPANSION if bottleneck else 1)
        sizes = ((1, 1), (3, stride), (1, 1)) if bottleneck else ((3, stride), (3, 1))
        widths = (before, width, width, after) if bottleneck else (before, width, after)
        layers: list[nn.Module] = []
        for number, (size, step) in enumerate(sizes):
            is_last = number == len(sizes) - 1
            layers.append(_convolution(widths[number], widths[number + 1], size, step))
            layers.append(BatchNorm(widths[number + 1], scale=0.0 if is_last else 1.0))
            if not is_last:
                layers.append(nn.ReLU())
        self.body = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(_convolution(before, after, 1, stride), BatchNorm(after))

    def forward(self, x: Tensor) -> Tensor:
        """Add the body to the shortcut."""
        return functional.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network without its classifier.

    Parameters
    ----------
    blocks, bottleneck : number of blocks of each stage, and whether they are bottlenecks.
    channels, width : channels of the images, and of the first stage.

    """

    def __init__(self, blocks: tuple[int, ...], bottleneck: bool, channels: int, width: int) -> None:
        super().__init__()
        stem = (_convolution(channels, width, 7, 2), BatchNorm(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        before, stages = width, []
        for stage, count in enumerate(blocks):
            inside = width * 2**stage
            for number in range(count):
                stride = 2 if stage and not number else 1
                stages.append(ResidualBlock(before, inside, stride, bottleneck=bottleneck))
                before = inside * (EXPANSION if bottleneck else 1)
        self.body = nn.Sequential(*stem, *stages)
        self.features = before

    def forward(self, images: Tensor) -> Tensor:
        """Compute features, (n, features), of images (n, channels, rows, columns)."""
        features: Tensor = self.body(images).mean((2, 3))
        return features


class TransformerLayer(nn.Module):
    """A transformer layer, normalised before attention and before the hidden layer.

    Parameters
    ----------
    width, heads : channels of a patch, and number of attention heads.

    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.hidden = nn.Sequential(nn.Linear(width, EXPANSION * width), nn.GELU(), nn.Linear(EXPANSION * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to all patches, (n, patches, width)."""
        n, patches, width = x.shape
        parts = self.query(self.first(x)).reshape(n, patches, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.output(attended.transpose(1, 2).reshape(n, patches, width))
        stepped: Tensor = x + self.hidden(self.second(x))
        return stepped


class Transformer(nn.Module):
    """A vision transformer without its classifier.

    Parameters
    ----------
    width, heads, depth : width and heads of its layers, and their number.
    channels, patch : channels of the images, and the side of a patch in pixels.

    """

    def __init__(self, width: int, heads: int, depth: int, channels: int, patch: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.layers = nn.ModuleList(TransformerLayer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.features = width

    def forward(self, images: Tensor) -> Tensor:
        """Compute features, (n, features), of images (n, channels, rows, columns) of at least one patch."""
        patches = self.embed(images)
        _, width, rows, columns = patches.shape
        x = patches.flatten(2).transpose(1, 2) + positions(rows, columns, width).to(patches)
        for layer in self.layers:
            x = layer(x)
        features: Tensor = self.norm(x).mean(1)
        return features


def positions(rows: int, columns: int, width: int) -> Tensor:
    """Compute sines and cosines of each patch's row and column, (rows · columns, width).

    The width must be a multiple of 4.
    """
    rates = torch.exp(-math.log(PERIOD) * torch.arange(width // 4) / (width // 4))
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [axis.reshape(-1, 1) * rates for axis in (y, x)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)


class Projector(nn.Sequential):
    """Linear layers; batch normalisation and ReLU follow all but the last, which has no bias.

    Parameters
    ----------
    features, widths : inputs of the first layer, and outputs of each layer.

    """

    def __init__(self, features: int, widths: tuple[int, ...]) -> None:
        layers: list[nn.Module] = []
        for width in widths[:-1]:
            layers += [nn.Linear(features, width), BatchNorm(width), nn.ReLU()]
            features = width
        super().__init__(*layers, nn.Linear(features, widths[-1], bias=False))
