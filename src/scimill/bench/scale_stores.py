"""Scaling a store, one HDF5 file, to another one; see `scale`."""

import dataclasses
import functools
from typing import TYPE_CHECKING

from scimill import config as configuration
from scimill.bench.params import ALGORITHM, ScaleConfig
from scimill.bench.scale import changes, choose, explain, fingerprint, told
from scimill.parallel.world import Stop, World
from scimill.store.mill import mill
from scimill.store.output import Output
from scimill.store.provenance import Provenance
from scimill.store.writer import open_writer

if TYPE_CHECKING:
    from scimill.bench.formats.hdf5.read import Store


def scale_store(config: ScaleConfig, source: "Store", output: Output, world: World) -> str | None:
    """Write a store of another size; collective. Return what was done, None where it was complete already."""
    with world.together():
        picks = choose(config, source)
    stop = Stop(world, config.walltime, config.walltime_margin)
    identity = fingerprint(source)
    text = f"{configuration.to_yaml(config)}input: {identity}\n"
    provenance = Provenance("bench", ALGORITHM, text, config.seed)
    output = dataclasses.replace(output, hints=config.mpi_io_hints, alignment=config.alignment, direct=config.direct)
    layout = source.layout(picks)
    writer = open_writer(world, output, layout, provenance, functools.partial(explain, config, identity), stop)
    if writer is None:
        return None
    mill(world, writer, source.maker(picks, changes(config)), stop, what="scale", unit="rows")
    return told(config, source, picks, source.total([taken.total for taken in picks]))
