"""The commands coarsen and corrections: the same bytes on any number of ranks and after a kill; bad input."""

from pathlib import Path

import pytest

from mpi import Result, dataset_hashes, done_blocks, scimill, start, succeed, wait_until
from scimill.cli import scimill as command_line

FINE = (
    "turbulence", "simulate", "--points", 64, "--noise-modes", 8, "--amplitude", 0.5, "--members", 2,
    "--density-diffusion", 0.01, "--vorticity-diffusion", 0.01, "--interval", 0.05, "--snapshots",
)  # fmt: skip


def call(*words: object) -> None:
    """Run the command line in this process."""
    command_line.main([str(word) for word in words], prog_name="scimill", standalone_mode=False)


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fine") / "fine.h5"
    call(*FINE, 24, path)
    return path


COMMANDS = {"corrections": ("corrections", "--steps", 3), "coarsen": ("coarsen",)}


def test_bytes_are_the_same_on_any_number_of_ranks(fine: Path, tmp_path: Path) -> None:
    for ranks in (1, 2, 3):
        commands = [
            ("turbulence", *command, fine, tmp_path / f"{name}-{ranks}.h5", "--factor", 2)
            for name, command in COMMANDS.items()
        ]
        if ranks == 1:
            for command in commands:
                call(*command)
        else:
            for command in commands:
                succeed(*command, ranks=ranks)
    for name in COMMANDS:
        one, *others = (dataset_hashes(tmp_path / f"{name}-{ranks}.h5") for ranks in (1, 2, 3))
        assert "vorticity" in one
        assert all(other == one for other in others), name


def test_killed_and_resumed_on_other_ranks_gives_the_same_bytes(fine: Path, tmp_path: Path) -> None:
    command = ("turbulence", "corrections", fine, "--factor", 2, "--substeps", 200)
    call(*command, tmp_path / "whole.h5")
    part = tmp_path / "killed.h5.part"
    with start(*command, tmp_path / "killed.h5", ranks=2) as job:
        wait_until(lambda: len(done_blocks(part)) >= 2, "two pairs")
        job.kill(1)
        assert job.wait().returncode != 0
    assert 2 <= len(done_blocks(part)) < 48
    succeed(*command, tmp_path / "killed.h5", "--resume")
    assert dataset_hashes(tmp_path / "killed.h5") == dataset_hashes(tmp_path / "whole.h5")


def assert_refused(result: Result, code: int, *texts: str) -> None:
    assert (result.returncode, result.tracebacks, len(result.errors)) == (code, 0, 1), result
    message = result.stderr[result.stderr.index("scimill: error:") :].partition("\n---")[0]  # mpirun adds its own
    assert len(message.splitlines()) <= 4, result
    for text in texts:
        assert text in result.stderr, result


def test_errors_are_reported_once_on_three_ranks(fine: Path, tmp_path: Path) -> None:
    missing = scimill("turbulence", "corrections", tmp_path / "no.h5", tmp_path / "a.h5", ranks=3)
    assert_refused(missing, 3, "no.h5")
    factor = scimill("turbulence", "corrections", fine, tmp_path / "a.h5", "--factor", 7, ranks=3)
    assert_refused(factor, 2, "factor 7", "1, 2, 4, 8")
