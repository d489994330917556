"""Which steps of a packed job start, where, and how long all take."""

import math
from collections.abc import Mapping, Sequence

import pytest

from scimill.jobs.parts import CONTINUED, Part, Room, Schedule, duration, read_part


def part(unit: str, nodes: int = 1, cores: int = 1, gpus: int = 0, seconds: int = 60, resumes: int = 0) -> Part:
    return Part(unit, f"{unit}.sh", nodes, cores, gpus, 0, seconds, resumes)


def room(nodes: int = 1, cores: int = 4, gpus: int = 0, *, is_shared: bool = True) -> Room:
    return Room(nodes, cores, gpus, 0, is_shared=is_shared)


def schedule(
    parts: Sequence[Part], needs: Mapping[str, Sequence[str]] | None = None, where: Room | None = None
) -> Schedule:
    return Schedule(parts, needs or {}, (), where or room())


def started(found: Schedule, left: float = math.inf) -> list[str]:
    return [one.unit for one, _ in found.start(left)]


def test_a_part_is_read_as_it_was_written() -> None:
    one = part("each.3", nodes=2, cores=8, gpus=4, seconds=3600, resumes=1)
    assert read_part(str(one)) == one
    assert str(one) == "each.3=each.3.sh,nodes:2,cores:8,gpus:4,memory:0,seconds:3600,resumes:1"


def test_parts_fill_a_node_before_they_open_another() -> None:
    where = room(nodes=3)
    assert where.take(part("a", cores=3)) == [0]
    assert where.take(part("b", cores=1)) == [0]
    assert where.take(part("c", nodes=2, cores=4)) == [1, 2]
    assert where.take(part("d")) is None
    where.give_back(part("a", cores=3))
    assert where.take(part("d")) == [0]


def test_gpus_run_out_like_cores() -> None:
    where = room(cores=64, gpus=4)
    assert [where.take(part(name, gpus=2)) for name in "abc"] == [[0], [0], None]
    assert where.take(part("d", gpus=0)) == [0]


def test_where_nodes_are_not_shared_each_part_has_its_own() -> None:
    where = room(nodes=2, is_shared=False)
    assert [where.take(part(name)) for name in "abc"] == [[0], [1], None]


def test_a_part_that_never_fits_runs_alone() -> None:
    where = room(nodes=2)
    assert where.take(part("a")) == [0]
    assert where.take(part("b", nodes=3)) is None
    where.give_back(part("a"))
    assert where.take(part("b", nodes=3)) == [0, 1]
    assert where.take(part("c")) is None


def test_independent_parts_start_at_once_and_others_once_theirs_are_complete() -> None:
    found = schedule([part("a"), part("b"), part("c")], {"c": ["a", "b"]})
    assert started(found) == ["a", "b"]
    found.end(part("a"), 0)
    assert started(found) == []
    found.end(part("b"), 0)
    assert started(found) == ["c"]
    found.end(part("c"), 0)
    assert found.code == 0


def test_a_failure_stops_only_what_waits_for_it() -> None:
    found = schedule([part("a"), part("b", cores=4), part("c"), part("d")], {"c": ["a"], "d": ["b"]})
    assert started(found) == ["a"]
    found.end(part("a"), 7)
    assert started(found) == ["b"]
    found.end(part("b"), 0)
    assert started(found) == ["d"]
    found.end(part("d"), 0)
    assert (started(found), found.code) == ([], 7)


def test_after_a_part_has_stopped_none_starts_and_the_next_job_continues() -> None:
    found = schedule([part("a"), part("b", cores=4), part("c", cores=3)])
    assert started(found) == ["a", "c"]
    found.end(part("a"), CONTINUED)
    assert started(found) == []
    found.end(part("c"), 3)
    assert (started(found), found.code) == ([], CONTINUED)


def test_a_part_starts_only_if_its_walltime_fits_unless_it_resumes_or_nothing_else_could() -> None:
    parts = [part("a", cores=4, seconds=600), part("b", seconds=90), part("c", seconds=600, resumes=1)]
    found = schedule(parts)
    assert started(found, left=60) == ["a"]
    found.end(parts[0], 0)
    assert started(found, left=60) == ["c"]
    found.end(parts[2], 0)
    assert (started(found, left=60), found.code) == ([], CONTINUED)


@pytest.mark.parametrize(
    ("cores", "expected"), [(1, 60 + 120 + 60), (2, 60 + 120)], ids=["one after the other", "side by side"]
)
def test_all_take_as_long_as_the_longest_path(cores: int, expected: float) -> None:
    parts = [part("a"), part("b", seconds=120), part("c")]
    assert duration(parts, {"b": ["a"], "c": ["a"]}, room(cores=cores)) == expected
