"""Cases of imseg: their number, shapes and voxels."""

import dataclasses
import itertools
import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from scimill.bench import CAMPAIGN
from scimill.bench.dataset.plan import takes_next, too_small_error
from scimill.bench.kernels import volumes
from scimill.bench.kernels.counter import stream_key, within, words
from scimill.bench.params import PlanConfig
from scimill.store.direct import Bytes

SHAPES, IMAGES, LABELS, ORGANS = 10, 11, 12, 13  # random streams
WORDS_PER_CASE = 2**32  # words of the streams of images and labels; more than any case needs
MIN_EDGE, MAX_EDGE = 128, 512  # voxels: the trainer crops patches of 128³; the maximum is for the last case only
VOXEL_BYTES = 5  # float32 and uint8

EVALUATION = frozenset((
    0, 3, 5, 6, 12, 24, 34, 41, 44, 49, 52, 56, 61, 65, 66, 70, 76, 78, 80, 84, 86, 87, 92, 111, 112, 125, 128, 138,
    157, 160, 161, 162, 169, 171, 176, 185, 187, 189, 198, 203, 206, 207,
))  # fmt: skip
"""Numbers of the cases that the trainer evaluates on, whatever the dataset."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One case: a volume of shape (depth, height, width)."""

    number: int
    shape: tuple[int, int, int]

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        depth, height, width = self.shape
        return depth * height * width


@cache
def key(seed: int, stream: int) -> np.uint64:
    """Key of a random stream."""
    return stream_key(seed, CAMPAIGN.number, stream)


def fill_image(config: PlanConfig, case: Case, out: NDArray[np.float32], first: int) -> None:
    """Fill `out` (even length) with the voxels of a case, starting at voxel `first` (even)."""
    volumes.intensities(out, key(config.seed, IMAGES), np.uint64(case.number * WORDS_PER_CASE + first // 2))


def fill_label(config: PlanConfig, case: Case, out: Bytes, first: int) -> None:
    """Fill `out` with the labels of a case, starting at voxel `first`; length and `first` are multiples of 8."""
    if config.labels == "blobs":
        organs = volumes.make_organs(case.shape, key(config.seed, ORGANS), case.number)
        volumes.blob_labels(out, organs, case.shape[1], case.shape[2], first)
    else:
        start = np.uint64(case.number * WORDS_PER_CASE + first // 8)
        volumes.random_labels(out.view(np.uint64), key(config.seed, LABELS), start)


def make_cases(config: PlanConfig, request: int, header_bytes: int) -> list[Case]:
    """Make cases of the requested total size; the last one is shaped to fit.

    Parameters
    ----------
    config, request : the distributions, and the requested bytes.
    header_bytes : bytes of a case in addition to its voxels.

    Raises
    ------
    ConfigError : the request is smaller than a case.

    """
    least = VOXEL_BYTES * MIN_EDGE**3 + header_bytes
    if request < least:
        raise too_small_error(request, least, "case")
    found: list[Case] = []
    remaining = request
    while remaining > 0:
        case = Case(len(found), case_shape(config, len(found)))
        size = VOXEL_BYTES * case.voxels + header_bytes
        if remaining - size < 2 * least:  # few shapes are close to the least size, so keep the last case larger
            return [*found, *_last_cases(config, len(found), remaining, header_bytes)]
        found.append(case)
        remaining -= size
    return found


def case_shape(config: PlanConfig, number: int) -> tuple[int, int, int]:
    """Draw the shape of a case from the configured distribution; height equals width."""
    first, second = words(key(config.seed, SHAPES), 2 * number, 2)
    if config.case_sizes == "normal":
        return _shape_of_normal_size(config, first, second)
    edge = within(config.width_range, first >> 32)
    return within(config.depth_range, first), edge, edge


def _shape_of_normal_size(config: PlanConfig, first: int, second: int) -> tuple[int, int, int]:
    """Draw a shape of normally distributed size (Box and Muller 1958), of any depth that allows this size."""
    u, v = ((first >> 32) + 1) / 2**32, (second >> 32) / 2**32
    normal = math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v)
    voxels = max(1.0, config.case_mean + config.case_deviation * normal) / VOXEL_BYTES
    (shallow, deep), (narrow, wide) = config.depth_range, config.width_range
    least = min(deep, max(shallow, math.ceil(voxels / wide**2)))
    depth = within((least, min(deep, max(least, int(voxels / narrow**2)))), first)
    edge = min(wide, max(narrow, round(math.sqrt(voxels / depth))))
    return depth, edge, edge


def _last_cases(config: PlanConfig, number: int, remaining: int, header_bytes: int) -> list[Case]:
    """Return the last case, or several if one cannot be as large, whose size is nearest on the side of `fit`."""
    most = VOXEL_BYTES * MAX_EDGE**3 + header_bytes
    if remaining <= most:
        return [Case(number, _shape_of(remaining - header_bytes, config))]
    half = Case(number, _shape_of(remaining // 2 - header_bytes, config))
    rest = remaining - VOXEL_BYTES * half.voxels - header_bytes
    return [half, *_last_cases(config, number + 1, rest, header_bytes)]


def _shape_of(size: int, config: PlanConfig) -> tuple[int, int, int]:
    """Find the shape with edges of 128 to 512 whose voxels fit `size` bytes best."""
    lower, upper = (-1, (0, 0, 0)), (2**62, (0, 0, 0))
    edges = np.arange(MIN_EDGE, MAX_EDGE + 1)
    for more, depth in itertools.product((0, 1), edges.tolist()):  # one depth at a time saves memory
        fitting = np.clip(size // (VOXEL_BYTES * depth * edges), MIN_EDGE, MAX_EDGE)
        widths = np.minimum(fitting + more, MAX_EDGE)
        sizes = VOXEL_BYTES * depth * edges * widths
        below_, above = np.where(sizes <= size, sizes, -1), np.where(sizes >= size, sizes, 2**62)
        i, j = int(below_.argmax()), int(above.argmin())
        if below_[i] > lower[0]:
            lower = int(below_[i]), (depth, int(edges[i]), int(widths[i]))
        if above[j] < upper[0]:
            upper = int(above[j]), (depth, int(edges[j]), int(widths[j]))
    upwards = takes_next(lower[0], upper[0], size, config.fit)
    return upper[1] if upwards or lower[0] < 0 else lower[1]
