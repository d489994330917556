"""Parameters of the sky commands."""

from typing import Literal, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from scimill.config import (
    REQUIRED,
    STRICT,
    Duration,
    File,
    Number,
    PositiveRange,
    Range,
    Run,
    Switch,
    Whole,
    Widths,
    parameter,
)  # fmt: skip
from scimill.training.params import TrainingConfig

MIN_FRAMES_WITH_FAULTS = 12  # so that most pairs stay good


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SceneConfig(Run):
    """Scene."""

    frames: Whole = parameter(REQUIRED, "pairs of images per node", ge=1, le=10**7)
    nodes: Whole = parameter(2, "number of nodes; the first one moves halfway through", ge=1, le=64)
    positions: Whole = parameter(8, "sky pointings that each node scans in turn", ge=1, le=8)
    start: str = parameter("2023-05-10T00:00:00Z", "time of the first frame, UTC")
    interval: Number = parameter(302.0, "time between two scans", unit="s", gt=0, le=1e6)
    rgb_height: Whole = parameter(
        2048, "height of the optical image in pixels; its width is 3/2 of that", ge=16, le=8192
    )
    thermal_height: Whole = parameter(
        252, "height of the thermal image in pixels; its width is 4/3 of that", ge=12, le=2048
    )
    field_size: Whole = parameter(1024, "points per side of the cloud field, which is 24 km wide", ge=64, le=8192)
    quality: Whole = parameter(85, "quality of the JPG files", ge=1, le=100)
    layout: Literal["tree", "train"] = parameter(
        "tree", "tree: as downloaded (job/task/node/file); train: train/{rgb,thermal,pairs}"
    )
    pair_paths: Literal["rgb", "processed", "absolute"] = parameter(
        "rgb", "layout train: base of the paths in pairs/: train/rgb, train/rgb/processed, or absolute paths"
    )
    faults: Switch = parameter(False, "include each known fault once, and list them in faults.csv")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rgb_height % 2 or self.thermal_height % 3:
            raise ValueError("rgb_height must be even, thermal_height a multiple of 3")
        if self.faults and self.nodes * self.frames < MIN_FRAMES_WITH_FAULTS:
            raise ValueError(f"faults need at least {MIN_FRAMES_WITH_FAULTS} frames over all nodes")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PairConfig:
    """Pairing."""

    pointings: Literal["sky", "all"] = parameter(
        "sky", "which presets to keep: sky (1, 5, ... 29) and unknown ones, or all"
    )
    sun_elevation: Range = parameter(
        (-90.0, 90.0),
        "keep pairs with the sun at these elevations; -0.833 is sunrise, -6 civil dawn",
        unit="degree",
    )
    tolerance: Number = parameter(
        0.0, "largest time difference of images without an exact match", unit="s", ge=0, le=3600
    )
    strict: Switch = parameter(
        False, "stop if any file is damaged, an orphan, a duplicate, missing or of an unknown node"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrepareConfig(File, Run):
    """Stored pairs."""

    rgb_height: Whole = parameter(600, "height of the stored colour images in pixels", ge=8, le=8192)
    rgb_width: Whole = parameter(800, "width of the stored colour images in pixels", ge=8, le=8192)
    thermal_height: Whole | None = parameter(
        None, "height of the stored thermal images in pixels; unchanged if not given", ge=8
    )
    thermal_width: Whole | None = parameter(
        None, "width of the stored thermal images in pixels; unchanged if not given", ge=8
    )
    thermal: Literal["auto", "counts", "float32"] = parameter(
        "auto", "lossless counts of 0.04 K, or degrees Celsius; auto: counts if all files have them"
    )
    crop: Literal["nodes", "centre", "whole"] = parameter(
        "nodes", "part of the optical image: the box in the table of nodes, the published centre crop, or all of it"
    )
    decode: Literal["exact", "fast"] = parameter(
        "exact", "decode JPGs at full size, or at 1/2, 1/4 or 1/8 of it if that is enough"
    )
    block_size: Whole = parameter(16, "pairs per block, the unit of work, writing and resuming", ge=1, le=4096)
    strict: Switch = parameter(False, "stop at a damaged file; otherwise store zeros for that image and set a flag")
    shuffled: Switch = parameter(False, "a control: give each colour image the thermal image of another pair")
    pairs_crc32c: Whole | None = parameter(
        None, "checksum that the pairs and boxes must have; computed if not given", ge=0, lt=2**32
    )

    @model_validator(mode="after")
    def _both_sizes(self) -> Self:
        if (self.thermal_height is None) != (self.thermal_width is None):
            raise ValueError("give both thermal_height and thermal_width, or neither")
        if self.thermal == "counts" and self.thermal_height is not None:
            raise ValueError("counts cannot be resized; leave out thermal_height and thermal_width")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AlignConfig:
    """Alignment."""

    pairs: Whole = parameter(12, "pairs per node and place; those with the strongest clouds are used", ge=1, le=1000)
    least_pairs: Whole = parameter(4, "fewest pairs needed to find a box", ge=1, le=1000)
    least_elevation: Number = parameter(5.0, "lowest elevation of the sun", unit="degree", ge=-90, le=90)
    least_contrast: Number = parameter(
        8.0, "smallest difference between the 90 % and 10 % quantiles of a thermal image", unit="K", ge=0, le=1000
    )


Backbone = Literal[
    "resnet10", "resnet18", "resnet34", "resnet50", "vit-micro", "vit-tiny", "vit-small", "vit-base",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Branches:
    """Networks."""

    rgb_backbone: Backbone = parameter("resnet50", "backbone for the colour images")
    thermal_backbone: Backbone = parameter("resnet50", "backbone for the thermal images")
    rgb_width: Whole = parameter(
        64, "channels of the first stage of a residual network for colour images", ge=4, le=1024
    )
    thermal_width: Whole = parameter(
        64, "channels of the first stage of a residual network for thermal images", ge=4, le=1024
    )
    rgb_patch: Whole = parameter(16, "side of the patches of a transformer for colour images, in pixels", ge=2, le=256)
    thermal_patch: Whole = parameter(
        16, "side of the patches of a transformer for thermal images, in pixels", ge=2, le=256
    )
    rgb_shape: Widths | None = parameter(
        None, "rows,columns to which colour images are resized; as stored if not given", min_length=2, max_length=2
    )
    thermal_shape: Widths | None = parameter(
        None, "rows,columns to which thermal images are resized; as stored if not given", min_length=2, max_length=2
    )
    projector: Widths = parameter((8192, 8192, 8192), "widths of the projector layers")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Loss:
    """Loss."""

    invariance: Number = parameter(25.0, "weight of the distance between the two embeddings", ge=0)
    variance: Number = parameter(25.0, "weight of the shortfall of the standard deviations from 1", ge=0)
    covariance: Number = parameter(1.0, "weight of the covariances", ge=0)
    variance_half: Switch = parameter(
        True,
        "use the mean of the variance terms of both branches, as the published code does; else their sum, as the paper",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentationConfig:
    """Augmentation of the training pairs."""

    crop: PositiveRange = parameter((0.3, 1.0), "share of the field of view that is kept, the same for both images")
    rotation: Number = parameter(10.0, "largest rotation, the same for both images", unit="degree", ge=0, le=180)
    flip: Number = parameter(0.5, "probability of mirroring both images left to right", ge=0, le=1)
    vertical_flip: Number = parameter(0.0, "probability of flipping both images vertically", ge=0, le=1)
    brightness: Number = parameter(0.3, "largest relative change of brightness", ge=0, lt=1)
    contrast: Number = parameter(0.3, "largest relative change of contrast", ge=0, lt=1)
    saturation: Number = parameter(0.3, "largest relative change of saturation", ge=0, le=1)
    noise: Number = parameter(0.02, "standard deviation of the noise added to colours; 1 is white", ge=0, le=1)
    thermal_offset: Number = parameter(2.0, "largest change of all temperatures", unit="K", ge=0, le=100)
    thermal_gain: Number = parameter(0.1, "largest relative change of temperature differences", ge=0, lt=1)
    thermal_noise: Number = parameter(
        0.1, "standard deviation of the noise added to temperatures", unit="K", ge=0, le=100
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataSplit:
    """Held-out data."""

    time_block: Duration = parameter("6h", "length of the periods that go to training, validation or test as a whole")
    held_out_nodes: str = parameter("", "nodes that training never sees, e.g. W02D,V017")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SkyTrainConfig(Branches, Loss, AugmentationConfig, DataSplit, TrainingConfig):
    """The networks."""

    optimizer: Literal["adam", "adamw", "lars"] = parameter("lars", "Adam, Adam with decoupled weight decay, or LARS")
    learning_rate: Number = parameter(0.3, "largest learning rate, after the warm-up", gt=0, le=1e3)
    weight_decay: Number = parameter(1e-6, "weight decay", ge=0, lt=1)
    batch_size: Whole = parameter(256, "pairs per step over all ranks", ge=2, le=2**20)
    epochs: Whole = parameter(100, "passes over the training blocks", ge=1, le=10**6)
    window: Whole = parameter(64, "blocks whose samples are mixed and held in memory; at least one per rank", ge=1)
    validation_share: Number = parameter(0.1, "share of the periods for validation", ge=0, lt=1)
    test_share: Number = parameter(0.1, "share of the periods that training never sees", ge=0, lt=1)

    @model_validator(mode="after")
    def _crop_is_a_share(self) -> Self:
        if self.crop[1] > 1:
            raise ValueError("crop is a share of the field of view; its upper bound is at most 1")
        if self.time_block <= 0:
            raise ValueError("time_block must be longer than 0s")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EmbedConfig(File, Run):
    """Embeddings."""

    threads: Whole = parameter(1, "threads per rank", affects_data=False, ge=1, le=1024)
    model_identity: str = parameter("", "checksum that the model file must have; computed if not given")
    store_identity: str = parameter("", "identity that the store must have; read from it if not given")
