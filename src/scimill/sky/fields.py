"""The fields of a store of sky pairs."""

from typing import NamedTuple

from scimill.sky import CAMPAIGN
from scimill.sky.kernels import celsius
from scimill.store.layout import Field, Layout
from scimill.store.reader import Reader

DAMAGED = ("rgb_damaged", "thermal_damaged")
"""Flags of a pair: this file could not be read when the pair was stored, so its image is zero."""
COUNTS, FLOATS = "uint16", "float32"
LATITUDE, LONGITUDE, ELEVATION = (-90.0, 90.0), (-360.0, 360.0), (-90.0, 90.0)


def layout(
    pairs: int, block_size: int, rgb: tuple[int, int], thermal: tuple[int, int], dtype: str, names: tuple[int, int]
) -> Layout:
    """Make the layout of a store.

    Parameters
    ----------
    pairs, block_size : number of pairs, in total and per block.
    rgb, thermal : rows and columns of the images.
    dtype : of the thermal images, `COUNTS` or `FLOATS`.
    names : length in bytes of the longest JPG and CSV file names.

    """
    is_counts = dtype == COUNTS
    meaning = "thermal image, first row on top" + (
        "; a count n is 0.04 n - 273.15 degrees Celsius" if is_counts else ""
    )
    fields = (
        Field(
            "rgb",
            "uint8",
            "1",
            "colour image of the thermal camera's field of view, first row on top",
            (*rgb, 3),
            axes=("rgb_y", "rgb_x", "channel"),
        ),
        Field("thermal", dtype, "0.04 K" if is_counts else "degC", meaning, thermal, axes=("thermal_y", "thermal_x")),
        Field("time", "int64", "ns", "time since 1970-01-01 00:00 UTC"),
        Field("node", "S8", "1", "name (VSN) of the node"),
        Field("position", "int16", "1", "preset of the camera's pointing, 1 to 32 as the node counts; 0 if unknown"),
        Field("pointing", "S4", "1", "compass code of the pointing, such as SWS; empty if unknown"),
        Field(
            "sun_elevation", "float32", "degree", "geometric elevation of the sun, without refraction", (), ELEVATION
        ),
        Field("latitude", "float32", "degree", "latitude of the node at this time", (), LATITUDE),
        Field("longitude", "float32", "degree", "longitude of the node at this time", (), LONGITUDE),
        Field("status", "uint8", "1", "what is wrong with the pair, 0 if nothing", flags=DAMAGED),
        Field("rgb_file", f"S{names[0]}", "1", "name of the JPG"),
        Field("thermal_file", f"S{names[1]}", "1", "name of the CSV"),
    )
    unit = "1" if is_counts else "degC"
    ledger = (
        Field("damaged", "uint32", "1", "pairs of this block whose status is not 0"),
        Field("thermal_pixels", "uint64", "1", "pixels of the thermal images that could be read"),
        Field("thermal_sum", "float64", unit, "sum over these pixels"),
        Field("thermal_squares", "float64", unit, "sum of the squares over these pixels"),
    )
    return Layout(pairs, block_size, fields, (), ledger)


class Moments(NamedTuple):
    """Mean and standard deviation of all thermal pixels of a store, °C."""

    mean: float
    deviation: float


def thermal_moments(reader: Reader) -> Moments:
    """Compute the moments of the thermal images from the sums in the ledger."""
    pixels = float(reader.column("thermal_pixels").sum())
    mean = float(reader.column("thermal_sum").sum()) / pixels
    variance = float(reader.column("thermal_squares").sum()) / pixels - mean**2
    deviation = max(variance, 0.0) ** 0.5
    if is_counts(reader.layout):
        return Moments(mean * celsius.STEP + celsius.ZERO, deviation * celsius.STEP)
    return Moments(mean, deviation)


def is_counts(layout: Layout) -> bool:
    """Return whether the thermal images are counts."""
    return field(layout, "thermal").dtype == COUNTS


def field(layout: Layout, name: str) -> Field:
    """Return a field by name."""
    return next(field for field in layout.fields if field.name == name)


def require_sky(reader: Reader) -> None:
    """Refuse a store that is not a store of pairs.

    Raises
    ------
    InputError : another campaign or command made it.

    """
    CAMPAIGN.require(reader, "prepare")
