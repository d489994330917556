"""Impossible records are counted by class, each once."""

import numpy as np

from scimill.droplets.exchange import impossible
from scimill.droplets.fields import UNITS

POSSIBLE = dict(zip(UNITS, (1e-6, 290, 1e-18, 291, 0.98, 1.1, 0.5, 1.1e-6, 290.5), strict=True))
CASES = (
    ({}, None), ({"salinity": 0}, None), ({"relative_humidity": 0}, None),
    ({"radius": np.nan}, "not_finite"), ({"time": np.inf}, "not_finite"),
    ({"salinity": np.nan, "radius": -1}, "not_finite"),
    ({"initial_radius": 0}, "radius"), ({"radius": -1e-6, "temperature": -1}, "radius"),
    ({"air_temperature": 0}, "temperature"), ({"temperature": -1}, "temperature"),
    ({"initial_temperature": 0}, "temperature"),
    ({"relative_humidity": -0.01}, "humidity"), ({"air_density": 0}, "density"), ({"salinity": -1e-20}, "salinity"),
    ({"time": -1}, "time"), ({"time": 0}, "time"),
)  # fmt: skip


def columns() -> dict[str, np.ndarray]:
    rows = [{**POSSIBLE, **change} for change, _ in CASES]
    return {name: np.array([row[name] for row in rows], dtype="f4") for name in UNITS}


def test_each_record_is_in_the_first_class_that_applies() -> None:
    names = [None, *impossible.CLASSES]
    assert [names[found] for found in impossible.classify(columns())] == [name for _, name in CASES]


def test_a_trace_may_begin_at_time_0() -> None:
    found = impossible.classify(columns(), is_trace=True)
    assert (found[-1], found[-2]) == (0, 1 + list(impossible.CLASSES).index("time"))


def test_counts_and_their_description() -> None:
    counts = impossible.count(impossible.classify(columns()))
    assert counts.tolist() == [3, 2, 3, 1, 1, 1, 2]
    assert impossible.describe(counts).startswith(
        "3 with a value that is not finite, 3 with a temperature of 0 K or less"
    )
    assert impossible.describe(np.zeros(7)) == ""
