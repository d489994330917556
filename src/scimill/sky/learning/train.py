"""Train the two branches on a store of pairs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scimill.errors import ConfigError, InputError
from scimill.parallel.report import say
from scimill.parallel.world import World
from scimill.sky import fields
from scimill.sky.learning.network import Augmentation, BranchesSpec, SkyTask
from scimill.sky.learning.vicreg import Weights, noise_floor
from scimill.sky.params import SkyTrainConfig
from scimill.store.reader import Reader
from scimill.training.directory import RunDirectory
from scimill.training.run import train

NANOSECONDS = 10**9  # per second


def train_network(config: SkyTrainConfig, store: Path, directory: RunDirectory, world: World) -> bool:
    """Train on a store of pairs; see `scimill.training.run.train`."""
    if world.is_root:
        floor = config.covariance * noise_floor(config.batch_size, config.projector[-1])
        say(f"covariance term of {config.batch_size} pairs with independent dimensions: {floor:.3g}")
    return train(lambda reader: make_task(config, reader), store, directory, config, world)


def make_task(config: SkyTrainConfig, reader: Reader) -> SkyTask:
    """Make the training task of a store; the same on all ranks.

    Raises
    ------
    InputError : it is not a store of pairs, or no pair is usable (undamaged, and of a node that is not held out).
    ConfigError : a node to hold out is not in the store.

    """
    fields.require_sky(reader)
    held_out = split_names(config.held_out_nodes)
    counts, groups = count_pairs(reader, held_out), time_groups(reader, config.time_block)
    if not sum(counts):
        raise InputError("no usable pair: all are damaged or of held-out nodes", where=str(reader.path))
    how = Augmentation(
        config.crop, config.rotation, config.flip, config.vertical_flip, config.brightness, config.contrast,
        config.saturation, config.noise, config.thermal_offset, config.thermal_gain, config.thermal_noise,
    )  # fmt: skip
    weights = Weights(config.invariance, config.variance, config.covariance, config.variance_half)
    return SkyTask(make_spec(config, reader), config.seed, weights, how, counts, groups, held_out)


def split_names(text: str) -> list[str]:
    """Split names at commas, and convert them to upper case."""
    return [name.strip().upper() for name in text.split(",") if name.strip()]


def count_pairs(reader: Reader, held_out: Sequence[str]) -> list[int]:
    """Count the usable pairs of each block: undamaged, and of nodes that are not held out."""
    known, counts = set(), []
    for block in range(reader.layout.blocks):
        nodes = np.char.decode(reader.rows(block, "node"), "ascii")
        known |= set(nodes.tolist())
        counts.append(int(np.count_nonzero((reader.rows(block, "status") == 0) & ~np.isin(nodes, held_out))))
    for name in held_out:
        if name not in known:
            allowed = ", ".join(sorted(known))
            raise ConfigError(f"node {name} is not in the store", where="held_out_nodes", allowed=allowed)
    return counts


def time_groups(reader: Reader, seconds: float) -> list[int]:
    """Return the number of the period in which each block begins.

    A period is held out as a whole, because pairs close in time are almost the same.
    """
    firsts = [int(reader.rows(block, "time")[0]) for block in range(reader.layout.blocks)]
    return [(first - firsts[0]) // round(seconds * NANOSECONDS) for first in firsts]


def make_spec(config: SkyTrainConfig, reader: Reader) -> BranchesSpec:
    """Make the architecture of the networks; sizes that are not given are those of the store."""
    stored = {name: fields.field(reader.layout, name).shape for name in ("rgb", "thermal")}
    moments = fields.thermal_moments(reader)
    return BranchesSpec(
        rgb_backbone=config.rgb_backbone,
        thermal_backbone=config.thermal_backbone,
        rgb_width=config.rgb_width,
        thermal_width=config.thermal_width,
        rgb_patch=config.rgb_patch,
        thermal_patch=config.thermal_patch,
        projector=config.projector,
        rgb_shape=_shape(config.rgb_shape, stored["rgb"], config.rgb_backbone, config.rgb_patch),
        thermal_shape=_shape(config.thermal_shape, stored["thermal"], config.thermal_backbone, config.thermal_patch),
        thermal_mean=moments.mean,
        thermal_deviation=moments.deviation or 1.0,
    )


def _shape(given: tuple[int, ...] | None, stored: tuple[int, ...], backbone: str, patch: int) -> tuple[int, int]:
    rows, columns = given or stored[:2]
    if backbone.startswith("vit") and (rows % patch or columns % patch):
        raise ConfigError(
            f"images of {rows} x {columns} pixels do not divide into patches of {patch} x {patch}",
            where="rgb_shape, thermal_shape, rgb_patch, thermal_patch",
            remedy="give rows and columns that are multiples of the patch",
        )
    return rows, columns
