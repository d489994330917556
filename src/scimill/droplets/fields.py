"""Fields and layout of a droplet store."""

from collections.abc import Mapping

import numpy as np

from scimill.droplets.kernels.sampling import INPUTS
from scimill.droplets.kernels.weird import CLASSES
from scimill.droplets.params import DropletsGenerateConfig
from scimill.store.layout import Field, Layout, Table
from scimill.store.reader import Reader

Bounds = tuple[float, float] | None

UNITS = {
    "initial_radius": ("m", "radius of the droplet at time 0"),
    "initial_temperature": ("K", "temperature of the droplet at time 0"),
    "salinity": ("kg", "salt mass or solute term of the droplet, as salinity_kind of the configuration says"),
    "air_temperature": ("K", "temperature of the air around the droplet"),
    "relative_humidity": ("1", "relative humidity of the air, 1 is saturation"),
    "air_density": ("kg/m3", "density of the air"),
    "time": ("s", "time since the initial state"),
    "radius": ("m", "radius of the droplet at this time"),
    "temperature": ("K", "temperature of the droplet at this time"),
}
"""Unit and meaning of each field, in the order of the original generator's records."""

OUTPUTS = ("time", "radius", "temperature")
ROUNDING = 1e-6  # relative; stored values are rounded to float32, their limits are not


def generation_layout(config: DropletsGenerateConfig) -> Layout:
    """Return the layout of the store that a configuration generates."""
    capacity = None if config.keep_weird else max(1, round(config.weird_capacity * config.block_size))
    return make_layout(config.count, config.block_size, config.samples, _bounds(config), capacity)


def make_layout(
    count: int, block_size: int, samples: int, bounds: Mapping[str, Bounds], weird_capacity: int | None
) -> Layout:
    """Make the layout of a droplet store.

    Parameters
    ----------
    count, block_size, samples : droplets, droplets per block, times per droplet.
    bounds : physical limits by field, if it has any.
    weird_capacity : weird records per block, stored in a table of their own; None to flag them in the sample instead.
    """
    axis = () if samples == 1 else (samples,)
    fields = [
        Field(
            name,
            "float32",
            *UNITS[name],
            shape=axis if name in OUTPUTS else (),
            valid=bounds.get(name),
            axes=("sample",) if name in OUTPUTS and axis else (),
        )
        for name in UNITS
    ]
    by_class = Field(
        "weird_by_class",
        "uint32",
        "1",
        "weird records of each class, in the order of the flags of classes",
        shape=(len(CLASSES),),
    )
    attempts = Field("attempts", "uint32", "1", "droplets drawn to fill this block")
    tables: tuple[Table, ...] = ()
    if weird_capacity is None:
        fields.append(
            Field(
                "weird",
                "uint16",
                "1",
                "classes of a weird result, 0 where it is none",
                axis,
                flags=CLASSES,
                axes=("sample",) if axis else (),
            )
        )
    else:
        tables = (Table("weird", weird_capacity, _weird_fields()),)
    return Layout(count, block_size, tuple(fields), tables, (attempts, by_class))


def _weird_fields() -> tuple[Field, ...]:
    return (
        *(Field(name, "float32", *UNITS[name]) for name in UNITS),
        Field("classes", "uint16", "1", "classes of the record", flags=CLASSES),
        Field("attempt", "uint32", "1", "how many droplets of the same row were weird before this one"),
        Field("block", "uint32", "1", "block in which it was drawn"),
    )


def _bounds(config: DropletsGenerateConfig) -> dict[str, Bounds]:
    """Return the physical limits of each field: input ranges and accepted results."""
    temperature = config.temperature_range
    if config.temperature_offset_range is not None:
        air, offset = config.air_temperature_range, config.temperature_offset_range
        temperature = (air[0] + offset[0], air[1] + offset[1])
    exact: dict[str, Bounds] = {
        "initial_radius": config.radius_range,
        "initial_temperature": temperature,
        "salinity": config.salinity_range,
        "air_temperature": config.air_temperature_range,
        "relative_humidity": config.relative_humidity_range,
        "air_density": config.air_density_range,
        "time": config.time_range,
        "radius": None if config.keep_weird else config.accepted_radius,
        "temperature": None if config.keep_weird else config.accepted_temperature,
    }
    return {name: pair and (pair[0] * (1 - ROUNDING), pair[1] * (1 + ROUNDING)) for name, pair in exact.items()}


def samples_per_droplet(reader: Reader) -> int:
    """Return the number of output times per droplet."""
    time = next(field for field in reader.layout.fields if field.name == "time")
    return int(np.prod(time.shape, dtype=int))


assert tuple(UNITS)[: len(INPUTS)] == INPUTS  # the kernels rely on this order
