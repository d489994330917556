"""Scaling on several ranks: the same bytes, also after a kill, and one message where it cannot be."""

import hashlib
import shutil
from pathlib import Path

import pytest

import bench_data as data
from mpi import scimill, start, succeed, wait_until

MAKE = {
    "bert": lambda folder: data.make_records(folder, [150, 100, 50], evaluation=30),
    "text": lambda folder: data.make_text(folder, 9000),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    for kind, make in MAKE.items():
        make(folder / kind)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.iterdir() if path.is_file() and path.name != "manifest.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


@pytest.mark.parametrize(("kind", "workload"), [("bert", "bert"), ("text", "dlrm")])
def test_the_same_bytes_on_1_2_and_3_ranks(inputs, tmp_path, kind, workload):
    found = []
    for ranks in (1, 2, 3):
        out = tmp_path / str(ranks)
        succeed("bench", "scale", workload, inputs / kind, out, "--size", "9MB", "--block-size", 2**18, ranks=ranks)
        found.append(hashes(out))
    assert found[0] == found[1] == found[2]


def test_killed_and_resumed(inputs, tmp_path):
    """Kill a rank while blocks are being written, then resume on another number of ranks."""
    command = ("bench", "scale", "dlrm", inputs / "text")
    more = ("--size", "20MB", "--block-size", 2**16)
    part = tmp_path / "out.part"

    def done() -> bool:
        ledger = part / ".scimill" / "ledger"
        return ledger.exists() and any(ledger.read_bytes())

    with start(*command, tmp_path / "out", *more, ranks=2) as job:
        wait_until(done, "the first block")
        job.kill(1)
        assert job.wait().returncode != 0
    assert part.exists()
    assert not (tmp_path / "out").exists()
    succeed(*command, tmp_path / "out", *more, "--resume", ranks=3)
    succeed(*command, tmp_path / "whole", *more)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")
    assert not part.exists()


def test_defects_are_told_once(inputs, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(inputs / "bert", folder)
    for path in folder.glob("part*"):
        path.write_bytes(path.read_bytes()[:-1])
    result = scimill("bench", "scale", "bert", folder, tmp_path / "out", "--size", "1MB", ranks=3)
    assert (result.returncode, len(result.errors), result.tracebacks) == (3, 1, 0), result
    assert result.stderr.count("is cut short") == 4
    assert "the data set has 3 defects" in result.errors[0]
    assert not (tmp_path / "out").exists()
