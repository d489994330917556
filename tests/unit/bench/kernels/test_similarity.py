"""The similarity of traces: properties of the number, and that each part detects its kind of difference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scimill.bench.kernels.similarity import (
    UNKNOWN,
    Trace,
    compare_traces,
    divergence,
    extents,
    localities,
    octave_distance,
    overall_similarity,
)

NAMES = ("block_read", "open", "read", "write")
OPEN, READ = 1, 2


def compared(a: Trace, b: Trace, *, time: bool = True) -> float:
    return overall_similarity(list(compare_traces(a, b, time).values()))


def trace(rows: list[tuple[int, ...]]) -> Trace:
    """Trace of rows (kind, start, duration, offset, size, file)."""
    kind, start, duration, offset, size, file = np.array(sorted(rows, key=lambda row: row[1]), dtype=np.int64).T
    return Trace(NAMES, kind, start, start + duration, offset, size, file)


def images(seed: int, files: int = 200, *, speed: float = 1.0) -> Trace:
    """Loading of volumes: each file is opened, its header read, then its data in blocks of 1 MiB."""
    random = np.random.default_rng(seed)
    rows, now = [], 0.0
    for file in range(files):
        sizes = [128, *[1 << 20] * max(20, int(random.normal(140, 60))), int(random.integers(1, 1 << 20))]
        ends = np.cumsum(sizes)
        now += random.exponential(2e6)
        rows.append((OPEN, int(now), 9000, UNKNOWN, UNKNOWN, file))
        for size, end in zip(sizes, ends, strict=True):
            took = (20_000 + size * 0.6) * random.lognormal(0, 0.2) / speed
            now += took + random.exponential(3000) / speed
            rows.append((READ, int(now), int(took), int(end - size), size, file))
    return trace(rows)


def records(seed: int, reads: int = 20_000) -> Trace:
    """Shuffled reading of short records of a few large files."""
    random = np.random.default_rng(seed)
    starts = np.cumsum(random.exponential(4e4, reads)).astype(int)
    rows = [
        (READ, int(start), int(random.lognormal(9, 0.5)), int(random.integers(0, 6e8)), 262_144, int(file))
        for start, file in zip(starts, random.integers(0, 8, reads), strict=True)
    ]
    return trace([*rows, *((OPEN, file, 9000, UNKNOWN, UNKNOWN, file) for file in range(8))])


operations = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 10**15), st.integers(0, 10**12), st.integers(-1, 10**12),
        st.integers(-1, 10**12), st.integers(-1, 5),
    ),
    min_size=1, max_size=60,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(operations, operations)
def test_the_metric_is_symmetric_and_between_0_and_1(a, b):
    a, b = trace(a), trace(b)
    forth, back = compare_traces(a, b, True), compare_traces(b, a, True)
    for name, part in forth.items():
        assert part.value == back[name].value
        assert part.value is None or 0 <= part.value <= 1
    assert 0 <= compared(a, b) <= 1


@settings(max_examples=40, deadline=None)
@given(operations, st.integers(0, 10**15))
def test_the_same_trace_is_1_exactly_whenever_it_ran_and_whatever_its_files_are_called(rows, later):
    a = trace(rows)
    b = Trace(NAMES, a.kind, a.start + later, a.end + later, a.offset, a.size, np.where(a.file < 0, -1, 7 - a.file))
    assert compared(a, a) == 1.0
    assert compared(a, b) == 1.0


def test_same_distribution_other_seed_and_other_workload():
    a = images(1)
    assert compared(a, images(2)) >= 0.95
    assert compared(a, images(3, files=400)) >= 0.95
    assert compared(a, records(1)) <= 0.7
    assert compared(records(2), records(3)) >= 0.95


def test_a_faster_disk_shows_in_the_times_alone():
    slow, fast = images(1), images(2, speed=4)
    parts = compare_traces(slow, fast, True)
    assert 0.6 < parts["gaps"].value < 0.9
    assert 0.6 < parts["durations"].value < 0.9
    assert compared(slow, fast, time=False) >= 0.97


def test_divergence_agrees_with_scipy():
    from scipy.spatial.distance import jensenshannon

    a, b = {"read": 7, "open": 2}, {"read": 3, "write": 9, "open": 1}
    expected = jensenshannon([2, 7, 0], [1, 3, 9], base=2) ** 2
    assert divergence(a, b) == pytest.approx(expected, rel=1e-12)
    assert divergence({"read": 1}, {"write": 5}) == 1


def test_octaves_agree_with_scipy():
    from scipy.stats import wasserstein_distance

    random = np.random.default_rng(1)
    a, b = random.lognormal(10, 1, 20_480), random.lognormal(11, 2, 20_480)
    assert octave_distance(a, b) == pytest.approx(wasserstein_distance(np.log2(a), np.log2(b)), rel=0.02)
    assert octave_distance(a, a * 8) == pytest.approx(3, rel=1e-9)


def test_localities_and_extents():
    a = trace([
        (OPEN, 0, 0, UNKNOWN, UNKNOWN, 3), (READ, 1, 0, 0, 10, 3), (READ, 2, 0, 10, 10, 3), (READ, 3, 0, 50, 5, 3),
        (READ, 4, 0, 20, 5, 3), (READ, 5, 0, 0, 5, 3), (READ, 6, 0, 400, 100, 8), (READ, 7, 0, 0, 7, UNKNOWN),
    ])  # fmt: skip
    assert localities(a) == {"beginning": 3, "sequential": 1, "forward": 1, "backward": 1}
    assert sorted(extents(a)) == [55, 100]


def test_what_a_trace_does_not_say_does_not_count():
    a = trace([(READ, time, 5, UNKNOWN, UNKNOWN, UNKNOWN) for time in range(10)])
    parts = compare_traces(a, images(1, files=3), True)
    assert [name for name, part in parts.items() if part.value is None] == ["size", "locality", "files"]
