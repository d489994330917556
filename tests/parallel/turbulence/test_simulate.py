"""Simulation: the same bits on any number of ranks, after a kill and from a snapshot; how runs end."""

import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpi import dataset_hashes, done_blocks, scimill, start, succeed, wait_until
from scimill.cli import check
from scimill.errors import InputError, NumericalError, ScimillError
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.store.verify import verify
from scimill.turbulence.simulate import simulate

ALONE = World(None)
SMALL = ("--points", 64, "--interval", 0.5, "--amplitude", 0.5, "--samples", 2)
CONFIGS = {
    # name: flags, numbers of ranks besides one
    "spectral": (("--snapshots", 2, "--hyperviscosity", 1e-6, "--order", 3), (2, 3)),
    "arakawa, modified": (
        ("--snapshots", 2, "--scheme", "arakawa", "--hyperviscosity", 1e-7, "--order", 3, "--modified"),
        (3,),
    ),
    "spectral, SciPy": (("--snapshots", 2, "--hyperviscosity", 1e-6, "--order", 3, "--fft", "scipy"), (3,)),
    "three members, single precision, uneven slabs": (
        ("--snapshots", 1, "--members", 3, "--points", 50, "--precision", "float32", "--density-diffusion", 0.01),
        (4,),
    ),
}


def run(path: Path, *flags: object) -> None:
    """Simulate in this process."""
    words = [str(word) for word in ("turbulence", "simulate", path, *SMALL, *flags)]
    assert simulate(check(words).obj, Output(path, "--resume" in words), ALONE)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run each configuration on its numbers of ranks: NAME-RANKS.h5."""
    folder = tmp_path_factory.mktemp("shared")
    for ranks in sorted({ranks for _, numbers in CONFIGS.values() for ranks in numbers}):
        commands = [
            ("turbulence", "simulate", folder / f"{name}-{ranks}.h5", *SMALL, *flags)
            for name, (flags, numbers) in CONFIGS.items() if ranks in numbers
        ]  # fmt: skip
        for command in commands:
            succeed(*command, ranks=ranks)
    return folder


def test_the_library_of_transforms_is_stored_and_rounds_only(shared: Path) -> None:
    with h5py.File(shared / "spectral-3.h5") as fftw, h5py.File(shared / "spectral, SciPy-3.h5") as scipy:
        assert "fft: fftw" in fftw.attrs["config"]
        assert "fft: scipy" in scipy.attrs["config"]
        assert np.any(fftw["density"][:] != scipy["density"][:])
        np.testing.assert_allclose(fftw["density"], scipy["density"], rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", CONFIGS)
def test_bits_are_the_same_on_any_number_of_ranks(name: str, shared: Path, tmp_path: Path) -> None:
    flags, numbers = CONFIGS[name]
    run(tmp_path / "1.h5", *flags)
    hashes = dataset_hashes(tmp_path / "1.h5")
    assert {"density", "vorticity", "diagnostics/energy", "blocks/crc32c"} <= hashes.keys()
    for number in numbers:
        assert dataset_hashes(shared / f"{name}-{number}.h5") == hashes, number
    assert not verify(shared / f"{name}-{numbers[-1]}.h5", ALONE).problems


def test_members_differ_and_each_has_its_times(tmp_path: Path) -> None:
    run(tmp_path / "a.h5", "--snapshots", 1, "--members", 2)
    with h5py.File(tmp_path / "a.h5", "r", locking=False) as file:
        assert file["member"][:].tolist() == [0, 0, 1, 1]
        assert file["time"][:].tolist() == [0.0, 0.5, 0.0, 0.5]
        assert file["blocks"]["diagnostics_rows"].tolist() == [1, 2, 1, 2]
        assert np.abs(file["density"][0] - file["density"][2]).max() > 0.1


def test_killed_and_resumed_on_other_ranks_gives_the_same_bits(tmp_path: Path) -> None:
    flags = ("--snapshots", 40, "--hyperviscosity", 1e-6, "--order", 3, "--step", 0.005)
    run(tmp_path / "whole.h5", *flags)
    path, part = tmp_path / "killed.h5", tmp_path / "killed.h5.part"
    with start("turbulence", "simulate", path, *SMALL, *flags, ranks=2) as job:
        wait_until(lambda: len(done_blocks(part)) >= 2, "two snapshots")
        job.kill(1)
        assert job.wait().returncode != 0
    assert 2 <= len(done_blocks(part)) < 41
    succeed("turbulence", "simulate", path, *SMALL, *flags, "--resume")  # starts only when the killed ranks are gone
    assert dataset_hashes(path) == dataset_hashes(tmp_path / "whole.h5")


def test_a_signal_stops_all_ranks_and_the_run_can_be_resumed(tmp_path: Path) -> None:
    path, flags = tmp_path / "a.h5", ("--snapshots", 40, "--step", 0.005, "--members", 2)
    with start("turbulence", "simulate", path, *SMALL, *flags, ranks=2) as job:
        wait_until(lambda: len(done_blocks(tmp_path / "a.h5.part")) >= 1, "a snapshot")
        job.kill(1, signal.SIGUSR2)
        result = job.wait()
    assert result.returncode == 75, result
    run(path, *flags, "--resume")
    assert len(done_blocks(path)) == 82


@pytest.mark.parametrize("scheme", ["spectral", "arakawa"])
def test_restart_from_a_snapshot_equals_the_uninterrupted_run(scheme: str, tmp_path: Path) -> None:
    whole, rest = tmp_path / "whole.h5", tmp_path / "rest.h5"
    flags = ("--scheme", scheme, "--hyperviscosity", 1e-6)
    run(whole, *flags, "--snapshots", 4)
    run(rest, *flags, "--snapshots", 2, "--from", whole, "--snapshot", 2)
    with h5py.File(whole, "r", locking=False) as first, h5py.File(rest, "r", locking=False) as second:
        for name in ("density", "vorticity", "time", "diagnostics/energy"):
            assert second[name][-2:].tobytes() == first[name][-2:].tobytes(), name


def refusal(tmp_path: Path, *flags: object) -> ScimillError:
    """Return the error of a run from the store a.h5, which leaves no output."""
    with pytest.raises(ScimillError) as caught:
        run(tmp_path / "b.h5", "--snapshots", 1, "--from", tmp_path / "a.h5", *flags)
    assert len(str(caught.value).splitlines()) <= 4
    assert not list(tmp_path.glob("b.h5*"))
    return caught.value


def test_a_store_from_which_the_run_cannot_begin_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    run(path, "--snapshots", 1)
    assert "alpha was 1.0, is 2.0" in str(refusal(tmp_path, "--alpha", 2))
    assert "64 x 64 points, not 32 x 32" in str(refusal(tmp_path, "--points", 32))
    assert "the store has --members 1, not 2" in str(refusal(tmp_path, "--members", 2))
    assert "no such snapshot: 7" in str(refusal(tmp_path, "--snapshot", 7))
    path.write_bytes(path.read_bytes()[:-1000])
    assert refusal(tmp_path).exit_code == 4
    path.unlink()
    assert isinstance(refusal(tmp_path), InputError)


DIVERGING = ("--snapshots", 5, "--noise-modes", 20, "--amplitude", 3, "--step", 0.05, "--alpha", 0)


def test_a_run_that_diverges_names_step_and_rank_and_keeps_what_was_good(tmp_path: Path) -> None:
    result = scimill("turbulence", "simulate", tmp_path / "a.h5", *SMALL, *DIVERGING, ranks=2)
    assert result.returncode == NumericalError.exit_code, result
    assert result.tracebacks == 0
    assert len(result.errors) == 1
    assert "after step" in result.errors[0]
    assert "rank" in result.stderr
    assert done_blocks(tmp_path / "a.h5.part") == [0]


def test_more_ranks_than_rows_can_be_dealt_to_are_refused(tmp_path: Path) -> None:
    flags = ("--snapshots", 1, "--points", 16, "--noise-modes", 4)
    result = scimill("turbulence", "simulate", tmp_path / "a.h5", *flags, ranks=2)
    assert result.returncode == 2, result
    assert "2 ranks per member" in result.errors[0]
    assert list(tmp_path.iterdir()) == []
