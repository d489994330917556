"""Train the network that replaces the integration: prepare the training task from a store."""

from pathlib import Path

import numpy as np

from scimill.droplets import CAMPAIGN, arguments, origin
from scimill.droplets.fields import samples_per_droplet
from scimill.droplets.kernels.sampling import Ranges
from scimill.droplets.learning.network import FLAG, DropletNetworkSpec, DropletTask
from scimill.droplets.params import DropletsGenerateConfig, DropletsTrainConfig, solute_per_salinity
from scimill.parallel.report import say
from scimill.parallel.world import World
from scimill.store.reader import Reader
from scimill.training.directory import RunDirectory
from scimill.training.run import train

InputRanges = tuple[tuple[float, float], ...]
UNKNOWN_PHYSICS = (
    "the physics of the data is unknown: default constants only scale the network's features, and the model is marked "
    "'physics: unknown'"
)


def train_network(config: DropletsTrainConfig, store: Path, directory: RunDirectory, world: World) -> bool:
    """Train on a store of droplets; see `scimill.training.run.train`."""
    return train(lambda reader: make_task(config, reader, world), store, directory, config, world)


def make_task(config: DropletsTrainConfig, reader: Reader, world: World) -> DropletTask:
    """Make the training task for a store; collective.

    Raises
    ------
    InputError : not a store of droplets.
    """
    CAMPAIGN.require(reader)
    flagged = is_flagged(reader)
    counts = count_samples(reader, world, flagged=flagged)
    if not origin.is_physics_known(origin.stored_config(reader)) and world.is_root:
        say(UNKNOWN_PHYSICS)
    spec = make_spec(config, read_generation(reader), input_ranges(reader))
    return DropletTask(spec, config.seed, counts, flagged=flagged)


def is_flagged(reader: Reader) -> bool:
    """Check whether a store keeps weird droplets in its sample, with a flag."""
    return any(field.name == FLAG for field in reader.layout.fields)


def count_samples(reader: Reader, world: World, *, flagged: bool) -> list[int]:
    """Count the samples of each block, without weird ones; the ranks share the reading."""
    layout = reader.layout
    if not flagged:
        spans = (layout.span(block) for block in range(layout.blocks))
        return [int(span.stop - span.start) * samples_per_droplet(reader) for span in spans]
    mine = range(world.rank, layout.blocks, world.size)
    counts = [int(np.count_nonzero(reader.rows(block, FLAG) == 0)) for block in mine]
    shared = np.zeros(layout.blocks, dtype=np.int64)
    for rank, part in enumerate(world.gather_all(counts)):
        shared[rank :: world.size] = part
    return [int(count) for count in shared]


def read_generation(reader: Reader) -> DropletsGenerateConfig:
    """Read the physics of a store, and the ranges of a generated one; what is unknown has its default."""
    return origin.rebuild(DropletsGenerateConfig, reader, count=reader.layout.rows)


def input_ranges(reader: Reader) -> InputRanges:
    """Return the range of each input of the model: as generated, or as measured in imported data."""
    if origin.is_imported(origin.stored_config(reader)):
        return origin.measured_ranges(reader)
    return _ranges(arguments.ranges(read_generation(reader)))


def make_spec(
    config: DropletsTrainConfig, data: DropletsGenerateConfig, ranges: InputRanges | None = None
) -> DropletNetworkSpec:
    """Make the specification of the network from the training parameters and the data's configuration.

    The ranges of the inputs are those that data are generated with, unless others are given.
    """
    return DropletNetworkSpec(
        network=config.network,
        hidden=config.hidden,
        activation=config.activation,
        ranges=ranges or _ranges(arguments.ranges(data)),
        constants=arguments.constants(data),
        saturation=(data.saturation_pressure, data.saturation_slope, data.saturation_offset),
        solute_per_salinity=solute_per_salinity(data),
        loss=config.loss,
        radius_scale=config.radius_scale,
        temperature_scale=config.temperature_scale,
        growth_scale=config.growth_scale,
    )


def _ranges(drawn: Ranges) -> InputRanges:
    """Return the range of each input of the model."""
    temperature = drawn.temperature
    if drawn.temperature_offset is not None:
        low, high = ((air + off) for air, off in zip(drawn.air_temperature, drawn.temperature_offset, strict=True))
        temperature = (low, high)
    return (
        drawn.radius, temperature, drawn.salinity, drawn.air_temperature, drawn.relative_humidity, drawn.air_density,
        drawn.time,
    )  # fmt: skip
