"""Two branches, one for each camera, that learn to give a pair the same embedding (VICReg with separate weights).

Each branch is a backbone and a projector. Both images of a pair show one field of view, so random crop, flip and
rotation are the same for both; colours and temperatures are varied independently.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from scimill.sky import CAMPAIGN
from scimill.sky.kernels.celsius import stored_to_celsius
from scimill.sky.learning import batchnorm
from scimill.sky.learning.backbones import Projector, make_backbone
from scimill.sky.learning.vicreg import TERMS, Gather, Weights, vicreg
from scimill.training.ranks import Ranks

CHANNEL_MEAN, CHANNEL_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as in the original code
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in grey, ITU-R BT.601
WHITE = 255.0


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of training pairs; each number is the largest change unless stated otherwise, 0 for none."""

    crop: tuple[float, float]
    """smallest and largest share of the area that a crop keeps"""
    rotation: float
    """degrees"""
    flip: float
    """probability of mirroring left to right"""
    vertical_flip: float
    """probability of flipping images vertically, realistic only at the zenith"""
    brightness: float
    contrast: float
    saturation: float
    noise: float
    """standard deviation; 1 is white"""
    thermal_offset: float
    """K"""
    thermal_gain: float
    thermal_noise: float
    """standard deviation, K"""


@dataclasses.dataclass(frozen=True)
class BranchesSpec:
    """The architecture of the networks, and the normalisation of temperatures."""

    rgb_backbone: str
    thermal_backbone: str
    rgb_width: int
    thermal_width: int
    rgb_patch: int
    thermal_patch: int
    projector: tuple[int, ...]
    rgb_shape: tuple[int, int]
    """rows and columns of the backbone's input"""
    thermal_shape: tuple[int, int]
    thermal_mean: float
    """of the training data, °C; likewise the standard deviation"""
    thermal_deviation: float

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain numbers and texts, for files."""
        return {"campaign": CAMPAIGN.name, **json.loads(json.dumps(dataclasses.asdict(self)))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BranchesSpec":
        """Restore a specification from the result of `to_dict`."""
        known: dict[str, Any] = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**{**known, **lists})


class Branch(nn.Module):
    """One camera's network.

    Parameters
    ----------
    backbone, width, patch, channels : see `sky.learning.backbones.make_backbone`.
    projector : widths of the projector's layers.
    mean, deviation : mean and standard deviation of each channel.

    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, backbone: str, width: int, patch: int, channels: int, projector: tuple[int, ...],
        mean: Sequence[float], deviation: Sequence[float],
    ) -> None:  # fmt: skip
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).reshape(1, -1, 1, 1), persistent=False)
        self.backbone = make_backbone(backbone, channels, width, patch)
        self.projector = Projector(self.backbone.features, projector)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features and embeddings of images, (n, channels, rows, columns), in the units of the mean."""
        features = self.backbone((images - self.mean) / self.deviation)
        return features, self.projector(features)


class SkyNetwork(nn.Module):
    """Both branches.

    Parameters
    ----------
    spec : their architecture.

    """

    def __init__(self, spec: BranchesSpec) -> None:
        super().__init__()
        self.spec = spec
        self.rgb = Branch(
            spec.rgb_backbone, spec.rgb_width, spec.rgb_patch, 3, spec.projector, CHANNEL_MEAN, CHANNEL_DEVIATION
        )
        self.thermal = Branch(
            spec.thermal_backbone, spec.thermal_width, spec.thermal_patch, 1, spec.projector,
            (spec.thermal_mean,), (spec.thermal_deviation,),
        )  # fmt: skip


class SkyTask:
    """Training of both branches on pairs, as a task of the training engine.

    Parameters
    ----------
    spec, seed : architecture of the networks, and seed of their initial weights.
    weights, augmentation : weights of the loss, and augmentation of the pairs.
    counts : for each block of the store, number of undamaged pairs of nodes that are not held out.
    groups : number of the period of each block.
    held_out : nodes that training never sees.

    """

    terms: tuple[str, ...] = TERMS
    span = 1

    def __init__(
        self, spec: BranchesSpec, seed: int, weights: Weights, augmentation: Augmentation, counts: Sequence[int],
        groups: Sequence[int], held_out: Sequence[str],
    ) -> None:  # fmt: skip
        torch.manual_seed(seed)
        self.model = SkyNetwork(spec)
        self.network = {**spec.to_dict(), "held_out_nodes": ",".join(held_out)}
        self.fields = ("rgb", "thermal", "status", *(("node",) if held_out else ()))
        self.groups = groups
        self._spec, self._weights, self._augmentation = spec, weights, augmentation
        self._counts, self._held_out = counts, [name.encode() for name in held_out]
        self._gather = Gather()

    def join(self, ranks: Ranks) -> None:
        """Make the loss and the batch normalisations sum over the ranks."""
        if ranks.size > 1:
            self._gather = Gather(ranks.rank, ranks.size, ranks.sum)
            batchnorm.join(self.model, ranks.sum)

    def samples(self, block: int) -> int:
        """Return the number of samples of a block."""
        return self._counts[block]

    def prepare(self, rows: Mapping[str, NDArray[Any]]) -> tuple[Tensor, ...]:
        """Return the images of usable pairs: uint8 (n, 3, rows, columns), and °C (n, 1, rows, columns)."""
        kept = rows["status"] == 0
        if self._held_out:
            kept = kept & ~np.isin(rows["node"], self._held_out)
        return to_tensors(rows["rgb"][kept], rows["thermal"][kept])

    def augment(self, tensors: tuple[Tensor, ...], stream: np.random.Generator) -> tuple[Tensor, ...]:
        """Vary pairs: one new field of view for both images, and independent colours and temperatures."""
        rgb, thermal = tensors
        if not len(rgb):
            return tensors
        shapes = self._spec.rgb_shape, self._spec.thermal_shape
        views = joint_views(rgb.float() / WHITE, thermal, shapes, self._augmentation, stream)
        return vary_colours(views[0], self._augmentation, stream), vary_temperatures(
            views[1], self._augmentation, stream
        )

    def losses(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Return this rank's part of each loss term; the sum over the ranks is the term times the batch size."""
        dtype = next(self.model.parameters()).dtype
        rgb, thermal = (images.to(dtype) for images in to_inputs(tensors[0], tensors[1], self._spec))
        first, second = self.model.rgb(rgb)[1], self.model.thermal(thermal)[1]
        gather = self._gather if self.model.training else Gather()
        terms, samples = vicreg(first, second, self._weights, gather)
        return terms * samples


def to_tensors(rgb: NDArray[np.uint8], thermal: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """Convert stored images to tensors: uint8 (n, 3, rows, columns), and float32 °C (n, 1, rows, columns)."""
    colours = torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2)))
    return colours, torch.from_numpy(stored_to_celsius(thermal))[:, None]


def to_inputs(rgb: Tensor, thermal: Tensor, spec: BranchesSpec) -> tuple[Tensor, Tensor]:
    """Convert stored images, or those from `SkyTask.augment`, to inputs of the branches."""
    colours = rgb.float() / WHITE if rgb.dtype == torch.uint8 else rgb
    return resize(colours, spec.rgb_shape), resize(thermal, spec.thermal_shape)


def resize(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize images; empty batches and images of the right size need no interpolation."""
    if tuple(images.shape[2:]) == shape:
        return images
    if not len(images):
        return images.new_zeros((0, images.shape[1], *shape))
    return functional.interpolate(images, shape, mode="bilinear", antialias=True)


# ---- augmentation -----------------------------------------------------------------------------------------------


def joint_views(
    rgb: Tensor, thermal: Tensor, shapes: tuple[tuple[int, int], tuple[int, int]], how: Augmentation,
    stream: np.random.Generator,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Cut one random part of the field of view per pair out of both images, resized to the shapes."""
    theta = random_views(len(rgb), rgb.shape[3] / rgb.shape[2], how, stream).to(rgb.dtype)
    views = []
    for images, shape in zip((rgb, thermal), shapes, strict=True):
        grid = functional.affine_grid(theta, [len(images), images.shape[1], *shape], align_corners=False)
        views.append(functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False))
    return views[0], views[1]


def random_views(n: int, aspect: float, how: Augmentation, stream: np.random.Generator) -> Tensor:
    """Make affine maps, (n, 2, 3), from a view's coordinates to the whole image's, both from -1 to 1."""
    scale = np.sqrt(stream.uniform(*how.crop, n))
    angle = np.radians(how.rotation) * stream.uniform(-1, 1, n)
    mirror = np.where(stream.random(n) < how.flip, -1.0, 1.0)
    overturn = np.where(stream.random(n) < how.vertical_flip, -1.0, 1.0)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    theta = np.zeros((n, 2, 3))
    theta[:, 0, :2] = np.stack((cosine * mirror, -sine / aspect * overturn), 1)
    theta[:, 1, :2] = np.stack((sine * aspect * mirror, cosine * overturn), 1)
    room = np.clip(1 - np.abs(theta[:, :, :2]).sum(2), 0, None)
    theta[:, :, 2] = room * stream.uniform(-1, 1, (n, 2))
    return torch.from_numpy(theta)


def _factors(n: int, most: float, stream: np.random.Generator) -> Tensor:
    return torch.from_numpy(1 + most * stream.uniform(-1, 1, (n, 1, 1, 1))).float()


def vary_colours(images: Tensor, how: Augmentation, stream: np.random.Generator) -> Tensor:
    """Vary brightness, contrast and saturation, and add noise; images range from 0 to 1."""
    n = len(images)
    brightness, contrast, saturation = (
        _factors(n, most, stream) for most in (how.brightness, how.contrast, how.saturation)
    )
    mean = images.mean((1, 2, 3), keepdim=True)
    varied = (images - mean) * contrast + mean * brightness
    grey = (varied * varied.new_tensor(LUMA).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
    varied = grey + (varied - grey) * saturation
    return (varied + how.noise * _normal(varied, stream)).clamp(0, 1)


def vary_temperatures(images: Tensor, how: Augmentation, stream: np.random.Generator) -> Tensor:
    """Vary offset and gain of temperatures, in °C, and add noise."""
    n = len(images)
    offset = how.thermal_offset * torch.from_numpy(stream.uniform(-1, 1, (n, 1, 1, 1))).float()
    mean = images.mean((1, 2, 3), keepdim=True)
    varied = (images - mean) * _factors(n, how.thermal_gain, stream) + mean + offset
    return varied + how.thermal_noise * _normal(varied, stream)


def _normal(like: Tensor, stream: np.random.Generator) -> Tensor:
    return torch.from_numpy(stream.standard_normal(tuple(like.shape), dtype=np.float32))


# ---- trained networks -------------------------------------------------------------------------------------------


def load_network(values: Mapping[str, Any], state: Mapping[str, Any]) -> SkyNetwork:
    """Rebuild a trained network from the content of a model file."""
    model = SkyNetwork(BranchesSpec.from_dict(values))
    model.load_state_dict(dict(state))
    return model.eval()


EMBEDDINGS = ("rgb_features", "rgb_embedding", "thermal_features", "thermal_embedding")


def widths(model: SkyNetwork) -> dict[str, int]:
    """Return the width of each of `EMBEDDINGS`."""
    sizes = [
        size for branch in (model.rgb, model.thermal) for size in (branch.backbone.features, model.spec.projector[-1])
    ]
    return dict(zip(EMBEDDINGS, sizes, strict=True))


def set_threads(threads: int) -> None:
    """Set the number of threads of PyTorch."""
    torch.set_num_threads(threads)


def embed(model: SkyNetwork, rgb: NDArray[np.uint8], thermal: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """Compute features and embeddings of stored images with both branches, (n, width) each."""
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        colours, temperatures = (images.to(dtype) for images in to_inputs(*to_tensors(rgb, thermal), model.spec))
        results = (*model.rgb(colours), *model.thermal(temperatures))
    return {name: values.float().numpy() for name, values in zip(EMBEDDINGS, results, strict=True)}
