"""Measure the ranges of droplets, for generating others like them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.config import Layer, build, parameters_of
from scimill.droplets import CAMPAIGN, origin
from scimill.droplets.fields import LOGARITHMIC
from scimill.droplets.params import DropletsGenerateConfig
from scimill.errors import ConfigError, InputError
from scimill.files import check_target, replacing
from scimill.store.reader import Reader

FIELDS = {
    "radius_range": "initial_radius", "salinity_range": "salinity", "air_temperature_range": "air_temperature",
    "relative_humidity_range": "relative_humidity", "air_density_range": "air_density", "time_range": "time",
}  # fmt: skip
DIGITS = 9  # enough to restore float32


def measure(store: Path, quantiles: tuple[float, float], path: Path | None, overwrite: bool) -> str:
    """Write the ranges of a store's accepted droplets as YAML.

    Parameters
    ----------
    store : a complete store of droplets or of a trace.
    quantiles : of each range's ends; (0, 1) for the smallest and largest value.
    path : the file; None to return the text only.
    overwrite : whether to replace an existing file.

    Raises
    ------
    ConfigError : the quantiles are not in ascending order from 0 to 1, or `generate` does not accept the ranges.
    InputError : not a store of droplets, unfinished, or without accepted rows.
    StorageError : the file exists or cannot be written.
    """
    if not 0 <= quantiles[0] < quantiles[1] <= 1:
        allowed = "0 <= low < high <= 1"
        raise ConfigError(f"--quantiles {quantiles[0]:g} {quantiles[1]:g} is not a range", allowed=allowed)
    if path:
        check_target(path, overwrite=overwrite)
    with Reader.open(store) as reader:
        CAMPAIGN.require(reader)
        reader.require_complete()
        text = describe(reader, quantiles)
    if path:
        with replacing(path, "ranges") as part:
            part.write_text(text, "utf-8")
    return text


def describe(reader: Reader, quantiles: tuple[float, float]) -> str:
    """Return the ranges of an open store as YAML, each key with its meaning."""
    stored, values = origin.stored_config(reader), ranges(reader, quantiles)
    values = {"salinity_kind": stored.get("salinity_kind", "salt-mass"), **values}
    build(DropletsGenerateConfig, [Layer(f"the ranges of {reader.path.name}", {"count": 1, **values})])
    known = parameters_of(DropletsGenerateConfig)
    low, high = quantiles
    lines = [f"# Quantiles {low:g} to {high:g} of the accepted droplets of {reader.path.name}."]
    for name, value in values.items():
        written = "[{:.{d}g}, {:.{d}g}]".format(*value, d=DIGITS) if isinstance(value, list) else value
        unit = f" [{known[name].unit}]" if known[name].unit else ""
        lines.append(f"{name}: {written}  # {known[name].info.description}{unit}")
    return "\n".join(lines) + "\n"


def ranges(reader: Reader, quantiles: tuple[float, float]) -> dict[str, list[float]]:
    """Measure the ranges by parameter of `generate`; one column of the store is in memory at a time.

    The initial temperature is given as an offset from that of the air if this makes the range narrower, as in traces,
    where a droplet is almost as warm as the air.
    """
    accepted = _accepted(reader)
    found = {
        name: _quantiles(_usable(_column(reader, field, accepted), field, reader), quantiles)
        for name, field in FIELDS.items()
    }
    temperature = _column(reader, "initial_temperature", accepted)
    absolute = _quantiles(temperature, quantiles)
    offset = _quantiles(temperature - _column(reader, "air_temperature", accepted), quantiles)
    is_narrower = offset[1] - offset[0] < absolute[1] - absolute[0]
    return {**found, **({"temperature_offset_range": offset} if is_narrower else {"temperature_range": absolute})}


def _accepted(reader: Reader) -> NDArray[np.bool_] | slice:
    if not any(field.name == "weird" for field in reader.layout.fields):
        return slice(None)
    parts = [reader.rows(block, "weird") == 0 for block in range(reader.layout.blocks)]
    return np.concatenate([part.reshape(len(part), -1).all(axis=1) for part in parts])


def _column(reader: Reader, name: str, accepted: Any) -> NDArray[np.float64]:
    """Read the accepted values of a field."""
    values = np.concatenate([reader.rows(block, name) for block in range(reader.layout.blocks)])[accepted]
    flat: NDArray[np.float64] = values.reshape(-1).astype(np.float64)
    return flat


def _usable(values: NDArray[np.float64], name: str, reader: Reader) -> NDArray[np.float64]:
    """Leave out zeros where `generate` draws logarithms.

    Raises
    ------
    InputError : no value is left.
    """
    used = values[values > 0] if name in LOGARITHMIC else values
    if not used.size:
        raise InputError(f"the store has no accepted row with a usable {name}", where=str(reader.path))
    return used


def _quantiles(values: NDArray[np.float64], quantiles: tuple[float, float]) -> list[float]:
    return [float(value) for value in np.quantile(values, quantiles)]
