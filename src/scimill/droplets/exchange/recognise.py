"""Tell records from traces: both are headerless, with 36 bytes per record.

Records are nine float32: the inputs, time and results of one integration. Traces are dumps of a simulation: particle
and status as int32, then seven float32. A small integer read as float32 is about 1e-43, and a temperature read as int32
is above 10⁹, so the ranges of the values show which it is.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.droplets.fields import UNITS
from scimill.errors import InputError

Array = NDArray[np.void]

RECORDS, TRACE = "records", "trace"
WORDS = {RECORDS: "records", TRACE: "a trace"}
STATE = ("initial_radius", "initial_temperature", "salinity", "air_temperature", "relative_humidity", "air_density")
RECORD = np.dtype([(name, "<f4") for name in UNITS])
"""A record of the original generator."""
TRACE_RECORD = np.dtype([("particle", "<i4"), ("status", "<i4"), ("time", "<f4"), *((name, "<f4") for name in STATE)])
"""A record of a simulation's trace (RichterLab/NTLP, be_dump files)."""
RECORD_BYTES = RECORD.itemsize
LAYOUTS = {RECORDS: RECORD, TRACE: TRACE_RECORD}

PLAUSIBLE: Mapping[str, tuple[float, float]] = {
    "initial_radius": (1e-10, 0.1), "radius": (1e-10, 0.1),
    "initial_temperature": (150, 500), "temperature": (150, 700), "air_temperature": (150, 400),
    "salinity": (0, 1e-2), "relative_humidity": (0, 10), "air_density": (1e-3, 10), "time": (0, 1e9),
    "particle": (0, 2**31 - 1), "status": (0, 2**9 - 1),
}  # fmt: skip
"""Wider than any cloud or spray, SI units; the status has nine bits."""
LOOKED_AT = 1000  # records per file
SHOWN = 5  # values of a record in a message
MOST, LEAST = 0.9, 0.1  # shares of plausible records that decide; the rest may be damaged


def recognise(paths: Sequence[Path]) -> str:
    """Return what files hold, `RECORDS` or `TRACE`.

    Parameters
    ----------
    paths : files of whole records, not empty.

    Raises
    ------
    InputError : a file is neither or both, or two files differ.
    """
    kinds = [_recognise_one(path) for path in paths]
    for path, kind in zip(paths, kinds, strict=True):
        if kind != kinds[0]:
            what = f"{paths[0].name} holds {WORDS[kinds[0]]}, but {path.name} holds {WORDS[kind]}"
            raise InputError(what, where=str(path), remedy="import them separately, or state --kind")
    return kinds[0]


def _recognise_one(path: Path) -> str:
    sample = read_some(path)
    shares = {kind: float(_plausible(sample.view(layout)).mean()) for kind, layout in LAYOUTS.items()}
    for kind, other in ((RECORDS, TRACE), (TRACE, RECORDS)):
        if shares[kind] >= MOST and shares[other] <= LEAST:
            return kind
    readings = "; ".join(f"as {kind}: {describe_first(sample.view(layout))}" for kind, layout in LAYOUTS.items())
    raise InputError(
        f"unclear whether the file holds records ({shares[RECORDS]:.0%} plausible) or a trace ({shares[TRACE]:.0%})",
        where=f"{path}, first record {readings}",
        allowed="records: 9 x float32; trace: 2 x int32, 7 x float32; little-endian, SI units",
        remedy="state what it is: --kind records or --kind trace",
    )


def read_some(path: Path) -> Array:
    """Read at most `LOOKED_AT` records from all parts of a file, the first and the last among them."""
    try:
        content = np.memmap(path, dtype=RECORD, mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the file: {error}", where=str(path)) from None
    chosen = np.unique(np.linspace(0, len(content) - 1, min(len(content), LOOKED_AT)).astype(np.int64))
    return np.array(content[chosen])


def _plausible(records: Array) -> NDArray[np.bool_]:
    """Return which records have all values in the ranges of `PLAUSIBLE`."""
    fine = np.ones(len(records), dtype=bool)
    for name in records.dtype.names or ():
        low, high = PLAUSIBLE[name]
        fine &= (records[name] >= low) & (records[name] <= high)
    return fine


def describe_first(records: Array) -> str:
    """List the first values of the first record by name; more would not fit into a message."""
    first: Any = records[0]
    return ", ".join(f"{name} {first[name]:.3g}" for name in (records.dtype.names or ())[:SHOWN])
