"""What is known about how a store of droplets was made: by whom, with which physics, over which ranges."""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from scimill.config import Layer, build, parameters_of, parse_yaml
from scimill.droplets.fields import EXTREMES, LOGARITHMIC, RANGED
from scimill.errors import InputError
from scimill.store.reader import Reader

UNKNOWN = "unknown"
Pair = tuple[float, float]
C = TypeVar("C")


def read_stored(text: str) -> Mapping[str, Any]:
    """Parse the configuration that a store or a model records, without parameters that are None."""
    values = parse_yaml(text, "the stored configuration").values
    return {name: value for name, value in values.items() if value is not None}


def stored_config(reader: Reader) -> Mapping[str, Any]:
    """Return the configuration that a store records; see `read_stored`."""
    return read_stored(str(reader.provenance["config"]))


def rebuild(config: type[C], reader: Reader, **values: Any) -> C:
    """Make a configuration from what a store records, and from further values; what is unknown has its default."""
    known = {name: value for name, value in stored_config(reader).items() if name in parameters_of(config)}
    return build(config, [Layer("the stored configuration", {**values, **known})])


def is_imported(stored: Mapping[str, Any]) -> bool:
    """Return whether a stored configuration is that of ``import-data``."""
    return "files" in stored


def is_physics_known(stored: Mapping[str, Any]) -> bool:
    """Return whether the physics is known that made the data with this stored configuration.

    Earlier versions recorded no physics for imported data: unknown.
    """
    return not is_imported(stored) or stored.get("physics", UNKNOWN) != UNKNOWN


def describe_physics(stored: Mapping[str, Any]) -> str:
    """Describe in a few words whose constants a model or store has."""
    if not is_physics_known(stored):
        return f"{UNKNOWN}; constants only scale the features"
    return "constants given at import" if is_imported(stored) else "constants of the generated data"


def measured_ranges(reader: Reader) -> tuple[Pair, ...]:
    """Return smallest and largest value of each of `fields.RANGED` among the accepted rows of an imported store.

    They come from the ledger; of a store by an earlier version they are computed from its rows.

    Raises
    ------
    InputError : no row is accepted.
    """
    if all(any(column.name == name for column in reader.layout.ledger) for name in EXTREMES):
        low, high = (reader.column(name) for name in EXTREMES)
    else:
        parts = [extremes(_rows(reader, block)) for block in range(reader.layout.blocks)]
        low, high = (np.array(part) for part in zip(*parts, strict=True))
    lowest, highest = low.min(0).astype(float), high.max(0).astype(float)
    if (lowest > highest).any():
        name = RANGED[int(np.flatnonzero(lowest > highest)[0])]
        what = f"the store has no accepted row with a usable {name}"
        raise InputError(what, where=str(reader.path), remedy="inspect the counts of its import: scimill inspect")
    return tuple(zip(lowest.tolist(), highest.tolist(), strict=True))


def _rows(reader: Reader, block: int) -> dict[str, NDArray[Any]]:
    return {name: reader.rows(block, name) for name in (*RANGED, "weird")}


def extremes(rows: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return smallest and largest value of each of `fields.RANGED` in rows of which none is weird.

    Where none is, the smallest is inf, and the largest -inf. Zeros are left out where networks take the logarithm.
    """
    low = np.full(len(RANGED), np.inf, dtype=np.float32)
    high = np.full(len(RANGED), -np.inf, dtype=np.float32)
    for index, name in enumerate(RANGED):
        values = rows[name][rows["weird"] == 0]
        values = values[values > 0] if name in LOGARITHMIC else values
        if values.size:
            low[index], high[index] = values.min(), values.max()
    return low, high
