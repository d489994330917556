"""Scaling a store (one HDF5 file) into another; see `scale`."""

import dataclasses
import functools
from typing import TYPE_CHECKING

from scimill import config as configuration
from scimill.bench import CAMPAIGN
from scimill.bench.dataset.choice import choose, describe_difference, describe_scaled, fingerprint, make_changes
from scimill.bench.params import ScaleConfig
from scimill.parallel.world import World
from scimill.store.output import Output

if TYPE_CHECKING:
    from scimill.bench.formats.hdf5.read import Store


def scale_store(config: ScaleConfig, source: "Store", output: Output, world: World) -> str | None:
    """Write a store of another size; collective. Return a summary, or None if it was complete."""
    with world.together():
        picks = choose(config, source)
    identity = fingerprint(source)
    text = f"{configuration.to_yaml(config)}input: {identity}\n"
    is_new = CAMPAIGN.fill(
        config, source.layout(picks), source.block_maker(picks, make_changes(config)),
        dataclasses.replace(output, direct=config.direct), world,
        maker="scale", text=text, explain=functools.partial(describe_difference, config, identity),
    )  # fmt: skip
    return describe_scaled(config, source, picks, source.total([part.total for part in picks])) if is_new else None
