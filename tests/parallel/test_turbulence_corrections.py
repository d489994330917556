"""Coarse states and corrections by the command: the same bytes on any number of ranks and after a kill; bad input."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpi import Result, dataset_hashes, done_blocks, scimill, start, succeed, wait_until

FINE = (
    "turbulence", "simulate", "--points", 64, "--noise-modes", 8, "--amplitude", 0.5, "--members", 2,
    "--density-diffusion", 0.01, "--vorticity-diffusion", 0.01, "--interval", 0.05, "--snapshots",
)  # fmt: skip


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fine") / "fine.h5"
    succeed(*FINE, 24, path)
    return path


@pytest.mark.parametrize("command", [("corrections", "--steps", 3), ("coarsen",)], ids=["corrections", "coarsen"])
def test_bytes_are_the_same_on_any_number_of_ranks(fine: Path, tmp_path: Path, command: tuple[object, ...]) -> None:
    for ranks in (1, 2, 3):
        succeed("turbulence", *command, fine, tmp_path / f"{ranks}.h5", "--factor", 2, ranks=ranks)
    one, two, three = (dataset_hashes(tmp_path / f"{ranks}.h5") for ranks in (1, 2, 3))
    assert "vorticity" in one
    assert one == two == three
    assert succeed("verify", tmp_path / "3.h5").stdout


def test_killed_and_resumed_on_other_ranks_gives_the_same_bytes(fine: Path, tmp_path: Path) -> None:
    command = ("turbulence", "corrections", fine, "--factor", 2, "--substeps", 200)
    succeed(*command, tmp_path / "whole.h5")
    part = tmp_path / "killed.h5.part"
    with start(*command, tmp_path / "killed.h5", ranks=2) as job:
        wait_until(lambda: len(done_blocks(part)) >= 2, "two pairs")
        job.kill(1)
        assert job.wait().returncode != 0
    assert 2 <= len(done_blocks(part)) < 48
    succeed(*command, tmp_path / "killed.h5", "--resume")
    assert dataset_hashes(tmp_path / "killed.h5") == dataset_hashes(tmp_path / "whole.h5")


def test_simulate_goes_on_from_a_coarse_state(fine: Path, tmp_path: Path) -> None:
    succeed("turbulence", "coarsen", fine, tmp_path / "coarse.h5", "--factor", 2)
    flags = [*FINE, 1, tmp_path / "on.h5", "--from", tmp_path / "coarse.h5"]
    flags[flags.index("--points") + 1] = 32
    succeed(*flags)
    with h5py.File(tmp_path / "coarse.h5") as before, h5py.File(tmp_path / "on.h5") as after:
        assert after["time"][0] == before["time"][24] == pytest.approx(1.2)
        # the spectral scheme leaves out what lies above two thirds of the coarse grid's modes
        assert np.corrcoef(after["density"][0].ravel(), before["density"][24].ravel())[0, 1] > 0.999


def test_a_dry_run_writes_nothing(fine: Path, tmp_path: Path) -> None:
    told = succeed("turbulence", "corrections", fine, tmp_path / "a.h5", "--steps", 4, "--dry-run").stdout
    assert "64 x 64 to 16 x 16" in told
    assert "pairs     12" in told
    assert not list(tmp_path.iterdir())


def assert_refused(result: Result, code: int, *told: str) -> None:
    assert (result.returncode, result.tracebacks, len(result.errors)) == (code, 0, 1), result
    message = result.stderr[result.stderr.index("scimill: error:") :].partition("\n---")[0]  # mpirun adds its own
    assert len(message.splitlines()) <= 4, result
    for text in told:
        assert text in result.stderr, result


def test_what_is_wrong_is_told_once_on_three_ranks(fine: Path, tmp_path: Path) -> None:
    missing = scimill("turbulence", "corrections", tmp_path / "no.h5", tmp_path / "a.h5", ranks=3)
    assert_refused(missing, 3, "no.h5")
    factor = scimill("turbulence", "corrections", fine, tmp_path / "a.h5", "--factor", 7, ranks=3)
    assert_refused(factor, 2, "factor 7", "1, 2, 4, 8")


def test_a_damaged_fine_run(fine: Path, tmp_path: Path) -> None:
    copy = tmp_path / "damaged.h5"
    shutil.copy(fine, copy)
    with h5py.File(copy, "r+", locking=False) as file:
        file["density"][20, 1, 1] += 1
    assert_refused(scimill("turbulence", "corrections", copy, tmp_path / "a.h5"), 4, "damaged", "verify")
    assert_refused(scimill("turbulence", "coarsen", copy, tmp_path / "b.h5"), 4, "damaged", "verify")
