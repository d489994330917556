"""Parameters of the sky commands."""

from typing import Literal, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from scimill.config import REQUIRED, STRICT, File, Number, Run, Switch, Whole, parameter

CAMPAIGN = 5  # first word of the spawn key of this campaign's random streams
ALGORITHM = 1  # raised whenever the same configuration would give other bytes
LEAST_WITH_FAULTS = 12  # frames, so that most pairs are good


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SceneConfig(Run):
    """`scimill sky scene`."""

    frames: Whole = parameter(REQUIRED, "pairs of images of each node", ge=1, le=10**7)
    nodes: Whole = parameter(2, "number of nodes; the first one moves halfway", ge=1, le=64)
    positions: Whole = parameter(8, "sky pointings that each node scans in turn", ge=1, le=8)
    start: str = parameter("2023-05-10T00:00:00Z", "time of the first frame, UTC")
    interval: Number = parameter(302.0, "time between two scans", unit="s", gt=0, le=1e6)
    rgb_height: Whole = parameter(2048, "height of the optical image; its width is 3/2 of it", ge=16, le=8192)
    thermal_height: Whole = parameter(252, "height of the thermal image; its width is 4/3 of it", ge=12, le=2048)
    field_size: Whole = parameter(1024, "points along a side of the field of clouds, 24 km long", ge=64, le=8192)
    quality: Whole = parameter(85, "quality of the JPG files", ge=1, le=100)
    layout: Literal["tree", "train"] = parameter(
        "tree", "as downloaded (job/task/node/file), or as train/{rgb,thermal,pairs}"
    )
    pair_paths: Literal["rgb", "processed", "absolute"] = parameter(
        "rgb", "layout train: what the paths in pairs/ are relative to"
    )
    faults: Switch = parameter(False, "also make each known fault once, and list them in faults.csv")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rgb_height % 2 or self.thermal_height % 3:
            raise ValueError("rgb_height must be even, thermal_height a multiple of 3")
        if self.faults and self.nodes * self.frames < LEAST_WITH_FAULTS:
            raise ValueError(f"the faults need {LEAST_WITH_FAULTS} frames or more, of all nodes")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PairConfig:
    """`scimill sky pair`."""

    pointings: Literal["sky", "all"] = parameter(
        "sky", "which presets: those of the sky (1, 5, ... 29) and unknown ones, or all"
    )
    tolerance: Number = parameter(
        0.0, "time by which images may differ that match none exactly", unit="s", ge=0, le=3600
    )
    strict: Switch = parameter(False, "refuse a campaign in which any file is damaged, an orphan or a duplicate")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrepareConfig(File, Run):
    """`scimill sky prepare`."""

    rgb_height: Whole = parameter(600, "height of the stored colour images", ge=8, le=8192)
    rgb_width: Whole = parameter(800, "width of the stored colour images", ge=8, le=8192)
    thermal_height: Whole | None = parameter(
        None, "height of the stored thermal images; as they are if not given", ge=8
    )
    thermal_width: Whole | None = parameter(None, "width of the stored thermal images; as they are if not given", ge=8)
    thermal: Literal["auto", "counts", "float32"] = parameter(
        "auto", "counts of 0.04 K, without loss, or degrees Celsius; auto: counts where all files are such"
    )
    crop: Literal["nodes", "centre", "whole"] = parameter(
        "nodes", "part of the optical image: the box in the table of nodes, the published centre crop, or all of it"
    )
    decode: Literal["exact", "fast"] = parameter(
        "exact", "decode JPGs at their full size, or at a half, quarter or eighth of it where that is enough"
    )
    block_size: Whole = parameter(16, "pairs per block, the unit of work, writing and resuming", ge=1, le=4096)
    strict: Switch = parameter(False, "stop at a damaged file; else its pair is stored as zeros with a flag")
    pairs_crc32c: Whole | None = parameter(
        None, "checksum of the pairs and their boxes, which must match; found if not given", ge=0, lt=2**32
    )

    @model_validator(mode="after")
    def _both_sizes(self) -> Self:
        if (self.thermal_height is None) != (self.thermal_width is None):
            raise ValueError("thermal_height and thermal_width are given together, or neither")
        if self.thermal == "counts" and self.thermal_height is not None:
            raise ValueError("counts are stored as they are; leave out thermal_height and thermal_width")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AlignConfig:
    """`scimill sky align`."""

    pairs: Whole = parameter(12, "pairs per node and place, those in which clouds stand out most", ge=1, le=1000)
    least_pairs: Whole = parameter(4, "fewest pairs from which a box is found", ge=1, le=1000)
    least_elevation: Number = parameter(5.0, "least elevation of the sun", unit="degree", ge=-90, le=90)
    least_contrast: Number = parameter(
        8.0, "least difference between the warm and the cold tenth of a thermal image", unit="K", ge=0, le=1000
    )
