"""Resources of jobs: the spellings of arrays and queues."""

import pytest

from scimill.config import Layer, build
from scimill.errors import ConfigError
from scimill.jobs.resources import Resources, as_range, indices, most_at_once, step_of

ARRAYS = {
    "1,3,7": ((1, 3, 7), None, 0, None),
    "0-10:2": ((0, 2, 4, 6, 8, 10), None, 2, "0-10:2"),
    "0-9:4": ((0, 4, 8), None, 4, "0-8:4"),
    "0-3%4": ((0, 1, 2, 3), 4, 1, "0-3%4"),
    "7": ((7,), None, 1, "7-7"),
    "8,0-2%10": ((0, 1, 2, 8), 10, 0, None),
    "3,1": ((1, 3), None, 2, "1-3:2"),
}


@pytest.mark.parametrize("array", ARRAYS)
def test_arrays(array: str) -> None:
    listed, limit, step, as_pbs = ARRAYS[array]
    assert resources(array=array).array == array
    assert (indices(array), most_at_once(array), step_of(indices(array))) == (listed, limit, step)
    assert as_pbs is None or as_range(array) == as_pbs


def test_no_array_has_no_indices() -> None:
    assert (indices(None), most_at_once(None)) == ((), None)


def test_yaml_reads_one_index_as_a_number() -> None:
    assert resources(array=7).array == "7"


WRONG = ["", "a", "3-1", "0-", "-3", "0-9:", "0-9%", "%4", "1, 3", "1-2-3", "0-2,1", True, "٣"]


@pytest.mark.parametrize("array", WRONG)
def test_what_is_no_array(array: object) -> None:
    with pytest.raises(ConfigError, match="array"):
        resources(array=array)


def test_queues_are_listed() -> None:
    assert resources(queue="a,b").queues == ("a", "b")
    assert resources().queues == ()


def resources(**values: object) -> Resources:
    return build(Resources, [Layer("test", {"walltime": "1h", **values})])
