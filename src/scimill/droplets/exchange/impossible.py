"""Records that no droplet can have: classes, and their counts by class."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Columns = Mapping[str, NDArray[np.float32]]

CLASSES = {
    "not_finite": "a value that is not finite",
    "radius": "a radius of 0 or less",
    "temperature": "a temperature of 0 K or less",
    "humidity": "a humidity below 0",
    "density": "an air density of 0 or less",
    "salinity": "a salinity below 0",
    "time": "a time of 0 or less",
}
"""Name and meaning of each class. A record is in the first class that applies, so counts can be added."""


def classify(columns: Columns, *, is_trace: bool = False) -> NDArray[np.uint8]:
    """Return the class of each record: 0 if it is possible, otherwise 1 + the index in `CLASSES`.

    Parameters
    ----------
    columns : values by field, shape (n,) each, SI units. Fields with "radius" or "temperature" in their name are all
        checked.
    is_trace : whether `time` is the time of a simulation, which may be 0, and not the length of a step.

    """
    radii = [values for name, values in columns.items() if "radius" in name]
    temperatures = [values for name, values in columns.items() if "temperature" in name]
    time = columns["time"]
    with np.errstate(invalid="ignore"):
        conditions = (
            ~np.logical_and.reduce([np.isfinite(values) for values in columns.values()]),
            np.logical_or.reduce([values <= 0 for values in radii]),
            np.logical_or.reduce([values <= 0 for values in temperatures]),
            columns["relative_humidity"] < 0,
            columns["air_density"] <= 0,
            columns["salinity"] < 0,
            time < 0 if is_trace else time <= 0,
        )
    found = np.zeros(len(time), dtype=np.uint8)
    for number, condition in reversed(list(enumerate(conditions, 1))):
        found[condition] = number
    return found


def count(classes: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Count the records of each of `CLASSES`."""
    return np.bincount(classes, minlength=len(CLASSES) + 1)[1:].astype(np.uint32)


def describe(counts: ArrayLike) -> str:
    """Describe counts by class: "3 with a radius of 0 or less, 1 with a value that is not finite"; empty if none."""
    numbers: Sequence[int] = np.asarray(counts).tolist()
    found = sorted(zip(numbers, CLASSES.values(), strict=True), key=lambda pair: -pair[0])
    return ", ".join(f"{number:,} with {meaning}" for number, meaning in found if number)
