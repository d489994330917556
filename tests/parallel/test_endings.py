"""How a job ends: by a defect, a user's error, another MPI, a signal, the walltime, a second run of the same output."""

import hashlib
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from mpi import PEERS, SERIAL_HDF5, Job, Result, dataset_hashes, done_blocks, kill, scimill, start, succeed, wait_until

QUICK = ("--block-size", 512, "--tolerance", 1e-4)
LONG = ("--count", 300_000, "--block-size", 512, "--tolerance", 1e-9)  # some seconds on one rank
LONG_BLOCKS = 586
STOPPED = 75


def generate(output: Path, *args: object, ranks: int = 1, **options: object) -> Result:
    return scimill("droplets", "generate", output, *args, ranks=ranks, **options)


def part_of(output: Path) -> Path:
    return output.with_name(output.name + ".part")


def names(output: Path) -> list[str]:
    return sorted(entry.name for entry in output.parent.iterdir())


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def long_hashes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("long") / "droplets.h5"
    succeed("droplets", "generate", output, *LONG)
    return dataset_hashes(output)


# ---- a defect ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ranks", "block"), [(1, 3), (2, 0), (2, 3), (3, 2), (3, 38)])
def test_a_rank_that_raises_ends_the_job_with_one_traceback(output: Path, ranks: int, block: int) -> None:
    program = (sys.executable, str(Path(__file__).with_name("raising.py")), str(block))
    result = generate(output, "--count", 20_000, *QUICK, ranks=ranks, program=program)
    assert result.returncode not in (0, STOPPED), result
    ended = time.time()
    assert result.tracebacks == 1, result
    raised = re.search(r"RuntimeError: a defect, made on purpose at ([\d.]+)", result.stderr)
    assert raised, result
    assert ended - float(raised[1]) <= 10, result
    assert f"on rank {block % ranks}, in block {block}" in result.stderr
    assert not output.exists()


@pytest.mark.parametrize(
    "delays", [(0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (0.45, 0.0), (0.0, 0.02, 0.0), (0.2, 0.1, 0.0), (9, 9, 0)]
)
def test_ranks_that_fail_one_after_the_other_give_one_message(delays: tuple[float, ...]) -> None:
    program = (sys.executable, str(Path(__file__).with_name("failing.py")))
    result = scimill(*delays, program=program, ranks=len(delays))
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
    assert result.stderr.count("has failed, on purpose") == 1, result


def test_what_was_done_before_a_defect_can_be_resumed(output: Path, tmp_path: Path) -> None:
    program = (sys.executable, str(Path(__file__).with_name("raising.py")), "30")
    generate(output, "--count", 20_000, *QUICK, program=program)
    assert done_blocks(part_of(output)) == list(range(30))
    succeed("droplets", "generate", output, "--count", 20_000, *QUICK, "--resume", ranks=2)
    succeed("droplets", "generate", tmp_path / "whole.h5", "--count", 20_000, *QUICK)
    assert dataset_hashes(output) == dataset_hashes(tmp_path / "whole.h5")


# ---- a user's error ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_an_error_that_all_ranks_find_is_reported_once(output: Path, ranks: int) -> None:
    result = generate(output, "--count", 0, ranks=ranks)
    assert (result.returncode, len(result.errors), result.tracebacks) == (2, 1, 0), result


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_an_error_that_rank_0_finds_is_reported_once(output: Path, ranks: int) -> None:
    output.write_text("here already")
    result = generate(output, "--count", 1000, ranks=ranks)
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
    assert output.read_text() == "here already"


# ---- another MPI, another HDF5 ----------------------------------------------------------------------------------


@pytest.mark.needs("MPICH")
def test_the_launcher_of_another_mpi_is_refused(output: Path) -> None:
    mpiexec = str(PEERS / "mpich" / "bin" / "mpiexec")
    result = generate(output, "--count", 1000, program=(mpiexec, "-n", "2", "scimill"))
    assert (result.returncode, len(result.errors), result.tracebacks) == (2, 1, 0), result
    assert "the launcher started 2 processes, but MPI sees 1: two different MPIs" in result.stderr
    assert "Open MPI" in result.stderr
    assert names(output) == []


@pytest.mark.needs("serial HDF5")
def test_three_ranks_with_a_serial_hdf5_are_refused(output: Path) -> None:
    result = generate(output, "--count", 1000, ranks=3, env=SERIAL_HDF5)
    assert (result.returncode, len(result.errors), result.tracebacks) == (2, 1, 0), result
    assert "this h5py was built without MPI" in result.stderr
    assert names(output) == []


@pytest.mark.needs("serial HDF5")
def test_serial_and_parallel_hdf5_give_the_same_bytes(tmp_path: Path) -> None:
    serial, parallel = tmp_path / "serial.h5", tmp_path / "parallel.h5"
    succeed("droplets", "generate", serial, "--count", 8193, *QUICK, env=SERIAL_HDF5)
    succeed("droplets", "generate", parallel, "--count", 8193, *QUICK, ranks=2)
    assert dataset_hashes(serial) == dataset_hashes(parallel)


# ---- signals and the walltime -----------------------------------------------------------------------------------


def finish_and_compare(output: Path, expected: dict[str, str], ranks: int) -> None:
    verdict = scimill("verify", part_of(output))
    assert verdict.returncode == 0, verdict
    succeed("droplets", "generate", output, *LONG, "--resume", ranks=ranks)
    assert names(output) == [output.name]
    assert dataset_hashes(output) == expected


def begin(output: Path, *args: object, ranks: int = 1) -> Job:
    """Start generating; return with its ranks paused once some blocks are done, so that it cannot end too early."""
    job = start("droplets", "generate", output, *args, ranks=ranks)
    wait_until(lambda: done_blocks(part_of(output)), "the first block")
    for rank in range(ranks):
        job.kill(rank, signal.SIGSTOP)
    return job


def go_on(job: Job, ranks: Iterable[int]) -> Result:
    """Let paused ranks go on; return how the job ended."""
    for rank in ranks:
        job.kill(rank, signal.SIGCONT)
    return job.wait()


def ranks_with_work_left(output: Path, ranks: int) -> set[int]:
    """Ranks that stopped before finishing their share; blocks are distributed in turn."""
    return {block % ranks for block in set(range(LONG_BLOCKS)) - set(done_blocks(part_of(output)))}


SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
TARGETS = [(1, 0), (2, 1)]
CASES = [*itertools.product(TARGETS, SIGNALS), ((2, 0), signal.SIGTERM), ((3, 2), signal.SIGTERM)]


@pytest.mark.parametrize(
    ("ranks", "rank", "number"), [pytest.param(*t, s, id=f"rank-{t[1]}-of-{t[0]}-{s.name}") for t, s in CASES]
)
def test_a_signal_to_one_rank_stops_all_between_blocks(
    output: Path, long_hashes: dict[str, str], ranks: int, rank: int, number: signal.Signals
) -> None:
    with begin(output, *LONG, ranks=ranks) as job:
        job.kill(rank, number)
        result = go_on(job, range(ranks))
    assert (result.returncode, result.tracebacks) == (STOPPED, 0), result
    assert f"stopped by signal {number.name}; finished blocks are kept" in result.stderr
    assert ranks_with_work_left(output, ranks) == set(range(ranks))
    if number == signal.SIGTERM:
        finish_and_compare(output, long_hashes, ranks=3 - min(ranks, 2))
    else:
        succeed("verify", part_of(output))


def test_a_signal_to_mpirun_stops_all_between_blocks(output: Path, long_hashes: dict[str, str]) -> None:
    with begin(output, *LONG, ranks=2) as job:
        kill(job.process.pid, signal.SIGUSR2)
        result = go_on(job, range(2))
    assert (result.returncode, result.tracebacks) == (STOPPED, 0), result
    assert ranks_with_work_left(output, 2) == {0, 1}
    finish_and_compare(output, long_hashes, ranks=1)


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_walltime_stops_the_run(output: Path, long_hashes: dict[str, str], ranks: int) -> None:
    result = generate(output, *LONG, "--walltime", "1.5s", "--walltime-margin", "0s", ranks=ranks)
    assert result.returncode == STOPPED, result
    assert "stopped by the walltime" in result.stderr
    assert len(done_blocks(part_of(output))) < LONG_BLOCKS
    finish_and_compare(output, long_hashes, ranks=2)


# ---- two runs of one output -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_a_second_writer_is_refused(output: Path, long_hashes: dict[str, str], flag: str) -> None:
    with begin(output, *LONG, ranks=2) as job:
        second = generate(output, *LONG, flag)
        first = go_on(job, range(2))
    assert second.returncode == 4, second
    assert "another run is writing this output" in second.stderr
    assert first.returncode == 0, first
    assert dataset_hashes(output) == long_hashes


def test_running_twice_is_refused(output: Path) -> None:
    succeed("droplets", "generate", output, "--count", 1000, *QUICK)
    before = file_hash(output)
    result = generate(output, "--count", 1000, *QUICK)
    assert (result.returncode, len(result.errors)) == (4, 1), result
    assert "the output already exists" in result.stderr
    assert "--overwrite" in result.stderr
    assert file_hash(output) == before


def test_an_unfinished_run_is_neither_resumed_nor_replaced_unasked(output: Path) -> None:
    with begin(output, *LONG) as job:
        job.kill(0)
    before = file_hash(part_of(output))
    result = generate(output, *LONG)
    assert (result.returncode, len(result.errors)) == (4, 1), result
    assert "--resume" in result.stderr
    assert file_hash(part_of(output)) == before


@pytest.mark.parametrize("ranks", [1, 2])
def test_resuming_a_complete_file_leaves_it_untouched(output: Path, ranks: int) -> None:
    succeed("droplets", "generate", output, "--count", 1000, *QUICK)
    before = file_hash(output), output.stat().st_mtime_ns, output.stat().st_ino
    result = generate(output, "--count", 1000, *QUICK, "--resume", ranks=ranks)
    assert result.returncode == 0, result
    assert "already complete" in result.stderr
    assert (file_hash(output), output.stat().st_mtime_ns, output.stat().st_ino) == before
    assert names(output) == [output.name]


@pytest.fixture
def overwriting_killed(output: Path) -> Path:
    """An old, complete file whose replacement was killed."""
    succeed("droplets", "generate", output, *LONG, "--seed", 2)
    before = file_hash(output)
    with begin(output, *LONG, "--overwrite", ranks=2) as job:
        job.kill(1)
        assert go_on(job, [0]).returncode != 0
    assert file_hash(output) == before
    return output


def test_overwriting_keeps_the_old_file_until_the_new_one_is_complete(
    overwriting_killed: Path, long_hashes: dict[str, str]
) -> None:
    succeed("droplets", "generate", overwriting_killed, *LONG, "--overwrite")
    assert dataset_hashes(overwriting_killed) == long_hashes
    assert names(overwriting_killed) == [overwriting_killed.name]


def test_a_killed_overwriting_can_be_resumed(overwriting_killed: Path, long_hashes: dict[str, str]) -> None:
    succeed("droplets", "generate", overwriting_killed, *LONG, "--resume")
    assert dataset_hashes(overwriting_killed) == long_hashes
    assert names(overwriting_killed) == [overwriting_killed.name]


def test_of_two_runs_that_begin_at_once_one_is_refused(output: Path, long_hashes: dict[str, str]) -> None:
    program = (sys.executable, str(Path(__file__).with_name("late.py")), "5")
    with start("droplets", "generate", output, *LONG, program=program) as slow:
        time.sleep(2.5)  # it has checked, but not yet created the file
        results = [generate(output, *LONG), slow.wait()]
    assert sorted(result.returncode for result in results) == [0, 4], results
    assert "another run is writing this output" in results[0].stderr + results[1].stderr, results
    assert dataset_hashes(output) == long_hashes
    assert names(output) == [output.name]


def test_runs_started_at_once_do_not_write_one_file_twice(output: Path, long_hashes: dict[str, str]) -> None:
    jobs = [start("droplets", "generate", output, *LONG, "--resume", env=dict(os.environ)) for _ in range(3)]
    results = [job.wait() for job in jobs]
    assert sorted(result.returncode for result in results) == [0, 4, 4], "\n".join(map(str, results))
    assert dataset_hashes(output) == long_hashes
