"""Fields and layout of a droplet store."""

import dataclasses
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
RANGED = (*INPUTS, "time")
"""Fields whose ranges a network needs."""
LOGARITHMIC = ("initial_radius", "salinity", "time")
"""Fields of which networks take the logarithm."""
EXTREMES = ("lowest", "highest")
"""Ledger columns of imported stores: smallest and largest accepted values of each of `RANGED`."""
STATUS_FLAGS = (
    "negative_vapour", "equilibrium", "gauss_newton_failed", "levenberg_marquardt_failed", "invalid_output",
    "height_quarter_1", "height_quarter_2", "height_quarter_3", "height_quarter_4",
)  # fmt: skip
"""Bits of the status of a trace's record (RichterLab/NTLP, BEStatus)."""
FAILED = 0b11001
"""Bits of a step that the simulation did not make: negative_vapour, levenberg_marquardt_failed, invalid_output."""
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


def imported_layout(count: int, block_size: int, impossible: tuple[str, ...], *, is_trace: bool) -> Layout:
    """Make the layout of a store of imported records, or of the steps of a trace.

    Parameters
    ----------
    count, block_size : records or steps, and how many make a block.
    impossible : classes of impossible records; the ledger counts those of each block.
    is_trace : whether it is a trace, which has fields of its own.
    """
    layout = make_layout(count, block_size, 1, {}, weird_capacity=None)
    words = f"accepted value of {', '.join(RANGED)}; of logarithmic ones, above 0"
    ledger = (
        *layout.ledger,
        *(Field(name, "float32", "1", f"{name} {words}", shape=(len(RANGED),)) for name in EXTREMES),
        Field("impossible", "uint32", "1", f"records with an impossible {', '.join(impossible)}", (len(impossible),)),
    )
    return dataclasses.replace(layout, fields=(*layout.fields, *(TRACE_FIELDS if is_trace else ())), ledger=ledger)


TRACE_FIELDS = (
    Field("particle", "int32", "1", "number of the particle in the simulation; rows are sorted by it, then by time"),
    Field("status", "int32", "1", "status that the simulation recorded for the step", flags=STATUS_FLAGS),
    Field("start_time", "float32", "s", "time of the simulation at the start of the step"),
    Field("begins", "uint8", "1", "1 where the step does not continue that of the row before"),
)


def is_trace(reader: Reader) -> bool:
    """Return whether a store of droplets holds the steps of a trace."""
    return any(field.name == "begins" for field in reader.layout.fields)


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
