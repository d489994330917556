"""Scaling on several ranks: the same bytes, also after a kill, and one message if it fails."""

import shutil
import sys

import pytest

import bench_data as data
from bench_data import hashes
from mpi import scimill, start, succeed, wait_until
from parallel.bench import scaling
from scimill.bench.generate import generate
from scimill.bench.params import BenchGenerateConfig
from scimill.config import Layer, build
from scimill.parallel.world import World
from scimill.store.output import Output

PROGRAM = (sys.executable, scaling.__file__)
STORES = {"dlrm": "1MB", "bert": "1MB", "imseg": "32MB"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    data.make_records(folder / "bert-tfrecord", [150, 100, 50], evaluation=30)
    data.make_text(folder / "dlrm-text", 9000)
    data.make_bin(folder / "dlrm-bin", train=10_000, test=1000)
    data.make_npz(folder / "dlrm-npz", [3000, 2000])
    data.make_triplets(folder / "dlrm-npy", [3000, 2000])
    data.make_parquet(folder / "dlrm-parquet", [3000, 2000])
    data.make_cases(folder / "imseg-npy", [0, 1])
    for workload, size in STORES.items():
        values = {"workload": workload, "format": "hdf5", "size": size, "block_size": 2**17}
        values |= {"depth_range": "128:130", "width_range": "128:128"} if workload == "imseg" else {}
        output = Output(scaling.place(folder, f"{workload}-hdf5"))
        generate(build(BenchGenerateConfig, [Layer("test", values)]), output, World(None))
    return folder


@pytest.fixture(scope="module")
def alone(inputs, tmp_path_factory):
    """Hashes of the datasets of every format that one rank makes."""
    folder = tmp_path_factory.mktemp("alone")
    result = scimill(inputs, folder, program=PROGRAM)
    assert result.returncode == 0, result
    return hashes(folder)


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_same_bytes_on_many_ranks(inputs, alone, tmp_path, ranks):
    result = scimill(inputs, tmp_path, ranks=ranks, program=PROGRAM)
    assert result.returncode == 0, result
    assert hashes(tmp_path) == alone
    assert {name.split("/")[0].removesuffix(".h5") for name in alone} == set(scaling.SIZES)


def test_killed_and_resumed(inputs, tmp_path):
    """Kill a rank while blocks are being written, then resume on a different number of ranks."""
    command = ("bench", "scale", "dlrm", inputs / "dlrm-text")
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


def test_defects_are_reported_once(inputs, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(inputs / "bert-tfrecord", folder)
    for path in folder.glob("part*"):
        path.write_bytes(path.read_bytes()[:-1])
    result = scimill("bench", "scale", "bert", folder, tmp_path / "out", "--size", "1MB", ranks=3)
    assert (result.returncode, len(result.errors), result.tracebacks) == (3, 1, 0), result
    assert result.stderr.count("is cut short") == 4
    assert "the dataset has 3 defects" in result.errors[0]
    assert not (tmp_path / "out").exists()
