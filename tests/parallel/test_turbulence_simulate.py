"""Simulating: the same bits on any number of ranks, after a kill, and from a snapshot; how runs end."""

import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpi import dataset_hashes, done_blocks, scimill, start, succeed, wait_until

SMALL = ("turbulence", "simulate", "--points", 64, "--interval", 0.5, "--amplitude", 0.5, "--samples", 2)
CONFIGS = {
    # name: flags, numbers of ranks
    "spectral": (("--snapshots", 3, "--hyperviscosity", 1e-6, "--order", 3), (1, 2, 3, 4)),
    "arakawa": (
        ("--snapshots", 2, "--scheme", "arakawa", "--hyperviscosity", 1e-7, "--order", 3, "--step", 0.02),
        (1, 2, 3),
    ),
    "single-precision, uneven, modified": (
        ("--snapshots", 2, "--points", 50, "--precision", "float32", "--modified", "--density-diffusion", 0.01),
        (1, 3),
    ),
    "three members": (("--snapshots", 2, "--members", 3, "--points", 32, "--noise-modes", 8), (1, 2, 4)),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_bits_are_the_same_on_any_number_of_ranks(name: str, tmp_path: Path) -> None:
    flags, numbers = CONFIGS[name]
    paths = [tmp_path / f"{number}.h5" for number in numbers]
    for number, path in zip(numbers, paths, strict=True):
        succeed(*SMALL, path, *flags, ranks=number)
    hashes = [dataset_hashes(path) for path in paths]
    assert "density" in hashes[0] and "diagnostics/energy" in hashes[0]
    assert all(other == hashes[0] for other in hashes[1:])
    assert succeed("verify", paths[-1]).stdout.strip().endswith("blocks")


def test_members_differ(tmp_path: Path) -> None:
    succeed(*SMALL, tmp_path / "a.h5", "--snapshots", 1, "--members", 2)
    with h5py.File(tmp_path / "a.h5", "r", locking=False) as file:
        assert file["member"][:].tolist() == [0, 0, 1, 1]
        assert file["time"][:].tolist() == [0.0, 0.5, 0.0, 0.5]
        assert np.abs(file["density"][0] - file["density"][2]).max() > 0.1


def test_killed_and_resumed_on_other_ranks_gives_the_same_bits(tmp_path: Path) -> None:
    flags = (*SMALL, "--snapshots", 40, "--hyperviscosity", 1e-6, "--order", 3, "--step", 0.005)
    succeed(*flags, tmp_path / "whole.h5")
    part = tmp_path / "killed.h5.part"
    with start(*flags, tmp_path / "killed.h5", ranks=2) as job:
        wait_until(lambda: len(done_blocks(part)) >= 2, "two snapshots")
        job.kill(1)
        assert job.wait().returncode != 0
    assert 2 <= len(done_blocks(part)) < 41
    succeed(*flags, tmp_path / "killed.h5", "--resume")
    assert dataset_hashes(tmp_path / "killed.h5") == dataset_hashes(tmp_path / "whole.h5")


@pytest.mark.parametrize("number", [signal.SIGUSR2])
def test_a_signal_stops_all_ranks_and_the_run_can_be_resumed(number: int, tmp_path: Path) -> None:
    flags = (*SMALL, tmp_path / "a.h5", "--snapshots", 20, "--step", 0.01, "--members", 2)
    with start(*flags, ranks=2) as job:
        wait_until(lambda: len(done_blocks(tmp_path / "a.h5.part")) >= 1, "a snapshot")
        job.kill(1, number)
        result = job.wait()
    assert result.returncode == 75, result
    succeed(*flags, "--resume")
    assert len(done_blocks(tmp_path / "a.h5")) == 42


@pytest.mark.parametrize("scheme", ["spectral", "arakawa"])
def test_restart_from_a_snapshot_equals_the_uninterrupted_run(scheme: str, tmp_path: Path) -> None:
    flags = (*SMALL, "--scheme", scheme, "--hyperviscosity", 1e-6, "--order", 1)
    succeed(*flags, tmp_path / "whole.h5", "--snapshots", 4)
    succeed(*flags, tmp_path / "rest.h5", "--snapshots", 2, "--from", tmp_path / "whole.h5", "--snapshot", 2, ranks=2)
    with (
        h5py.File(tmp_path / "whole.h5", "r", locking=False) as whole,
        h5py.File(tmp_path / "rest.h5", "r", locking=False) as rest,
    ):
        for name in ("density", "vorticity", "time", "diagnostics/energy"):
            last = whole[name][-2:].tobytes()
            assert rest[name][-2:].tobytes() == last, name


def test_a_run_that_diverges_names_step_and_rank_and_keeps_what_was_good(tmp_path: Path) -> None:
    flags = ("--snapshots", 5, "--amplitude", 3, "--hyperviscosity", 1, "--order", 2, "--step", 0.05, "--alpha", 0)
    result = scimill(*SMALL, tmp_path / "a.h5", "--noise-modes", 20, *flags, ranks=2)
    assert result.returncode == 5, result
    assert result.tracebacks == 0
    assert len(result.errors) == 1
    assert "after step" in result.errors[0]
    assert "rank" in result.stderr
    assert done_blocks(tmp_path / "a.h5.part") == [0]


def test_more_ranks_than_rows_can_be_dealt_to_are_refused(tmp_path: Path) -> None:
    result = scimill(*SMALL, tmp_path / "a.h5", "--snapshots", 1, "--points", 16, "--noise-modes", 4, ranks=2)
    assert result.returncode == 2, result
    assert "2 ranks for each member" in result.errors[0]
    assert list(tmp_path.iterdir()) == []
