"""The values show whether a file has records or traces; anything else is refused."""

from pathlib import Path

import numpy as np
import pytest

import droplet_traces
from scimill.droplets.exchange.recognise import RECORDS, TRACE, recognise
from scimill.errors import InputError

RECORD = [1e-6, 290, 1e-18, 291, 0.98, 1.1, 0.5, 1.1e-6, 290.5]
OF_TRACE = (7, 64, 12.5, 1e-6, 290.0, 1e-18, 291.0, 0.98, 1.1)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "records.data"
    np.tile(np.array(RECORD, dtype="<f4"), (50, 1)).tofile(path)
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.data"
    path.write_bytes(droplet_traces.pack([OF_TRACE] * 50))
    return path


def test_records_and_traces_are_recognised(records: Path, trace: Path) -> None:
    assert (recognise([records]), recognise([trace])) == (RECORDS, TRACE)
    assert recognise([trace, trace]) == TRACE


@pytest.mark.parametrize("particle", [0, 1, 65_536, 2**30, 2**31 - 1])
@pytest.mark.parametrize("status", [0, 1, 511])
def test_any_particle_and_status_is_recognised(tmp_path: Path, particle: int, status: int) -> None:
    (tmp_path / "a").write_bytes(droplet_traces.pack([(particle, status, 0.0, *OF_TRACE[3:])] * 5))
    assert recognise([tmp_path / "a"]) == TRACE


def test_a_few_damaged_records_do_not_matter(records: Path, trace: Path) -> None:
    for path in (records, trace):
        path.write_bytes(b"\xff" * 36 + path.read_bytes())
    assert (recognise([records]), recognise([trace])) == (RECORDS, TRACE)


def test_different_kinds_are_refused(records: Path, trace: Path) -> None:
    with pytest.raises(InputError, match=r"records\.data holds records, but trace\.data holds a trace"):
        recognise([records, trace])


@pytest.mark.parametrize("content", ["mixed", "zeros", "big-endian"])
def test_an_unclear_file_is_refused_with_both_readings(
    records: Path, trace: Path, content: str, tmp_path: Path
) -> None:
    made = {
        "mixed": records.read_bytes() + trace.read_bytes(), "zeros": bytes(3600),
        "big-endian": np.tile(np.array(RECORD, dtype=">f4"), (50, 1)).tobytes(),
    }  # fmt: skip
    (tmp_path / "a").write_bytes(made[content])
    with pytest.raises(InputError) as caught:
        recognise([tmp_path / "a"])
    for words in ("as records: initial_radius", "as trace: particle", "--kind records or --kind trace"):
        assert words in str(caught.value)
