"""The ranks of a job: what they exchange, MPI that is missing or not started by scimill, the ways in which they end."""

import os
import signal
import sys
from pathlib import Path

import pytest

from mpi import Result, scimill
from scimill.errors import StorageError

HERE = Path(__file__).parent
UNKNOWN_SIZE = {"PALS_RANKID": "0"}
"""As of a launcher that exports no number of ranks: MPI is started to find it."""


def run(program: str, ranks: int = 1, **environment: str) -> Result:
    """Run a program of Python that has ``launch`` and ``world``."""
    lines = ("import os, signal, sys, time", f"sys.path.insert(0, {str(HERE.parent)!r})",
             "from scimill.parallel.world import launch, world", program)  # fmt: skip
    return scimill(program=(sys.executable, "-c", "\n".join(lines)), ranks=ranks, env=environment)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_exchange_values(ranks: int) -> None:
    result = scimill(program=(sys.executable, str(HERE / "ranks.py")), ranks=ranks)
    assert (result.returncode, result.stdout) == (0, f"{ranks} ranks agree\n"), result


def test_a_world_of_one_rank_of_mpi_is_like_one_without() -> None:
    result = scimill(program=(sys.executable, str(HERE / "ranks.py")), env=UNKNOWN_SIZE)
    assert (result.returncode, result.stdout) == (0, "1 ranks agree\n"), result


@pytest.mark.parametrize("code", [0, 5])
def test_mpi_that_the_program_itself_starts_and_ends_is_left_alone(code: int) -> None:
    program = f"""
def command():
    MPI.Init()
    print(world().gather_all("here"))
    MPI.Finalize()
    return {code}
import mpi4py
mpi4py.rc(initialize=False, finalize=False)
from mpi4py import MPI
launch(command)
"""
    for ranks, environment in ((1, UNKNOWN_SIZE), (2, {})):
        result = run(program, ranks, **environment)
        assert (result.returncode, result.stdout) == (code, f"{['here'] * ranks}\n"), result


def test_a_missing_mpi4py_is_left_to_the_message_that_names_the_extra() -> None:
    result = run("sys.modules['mpi4py'] = None\nworld()", OMPI_COMM_WORLD_SIZE="2")
    assert "ModuleNotFoundError: import of mpi4py halted" in result.stderr, result


def test_an_mpi_library_that_does_not_load_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("class rc: initialize = True\n")
    (tmp_path / "mpi4py" / "MPI.so").write_text("no library")
    (tmp_path / "mpi4py" / "MPI.abi3.so").write_text("no library")
    result = run("launch(world)", PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
                 OMPI_COMM_WORLD_SIZE="2")  # fmt: skip
    assert (result.returncode, len(result.errors), result.tracebacks) == (2, 1, 0), result
    assert "MPI does not start" in result.stderr
    assert "load the MPI module" in result.stderr


def test_an_mpi_that_sees_fewer_ranks_than_the_launcher_started_is_another_one() -> None:
    result = run("launch(world)", PMI_RANK="0", PMI_SIZE="2")
    assert (result.returncode, len(result.errors), result.tracebacks) == (2, 1, 0), result
    assert "the launcher started 2 processes, but MPI sees 1: two different MPIs" in result.stderr


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGINT, 130, "error: interrupted"), (signal.SIGTERM, 75, "stopped by signal SIGTERM")],
)
def test_a_signal_to_a_command_without_blocks_is_reported(number: int, code: int, message: str) -> None:
    result = run(f"launch(lambda: os.kill(os.getpid(), {int(number)}))")
    assert (result.returncode, result.tracebacks) == (code, 0), result
    assert result.stderr.splitlines()[0] == f"scimill: {message}"


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_error_that_all_ranks_find_before_mpi_starts_is_reported_once(ranks: int) -> None:
    program = (
        "from scimill.errors import ConfigError\ndef command(): raise ConfigError('found by all')\nlaunch(command)"
    )
    result = run(program, ranks)
    assert (result.returncode, result.errors, result.tracebacks) == (2, ["scimill: error: found by all"], 0), result


def test_a_rank_that_waits_for_rank_0_to_report_ends_by_itself() -> None:
    """No launcher ends this rank 1, which finds an error before MPI starts."""
    command = "def command(): raise ConfigError('found by all')"
    result = run(f"from scimill.errors import ConfigError\n{command}\nlaunch(command)", PMI_RANK="1", PMI_SIZE="2")
    assert (result.returncode, result.stderr) == (2, ""), result


@pytest.mark.parametrize(("way", "code"), [("sys.exit(3)", 3), ("sys.exit()", 0), ("sys.exit('no')", 1)])
def test_a_command_may_exit_by_itself(way: str, code: int) -> None:
    assert run(f"launch(lambda: {way})").returncode == code


def test_a_silent_rank_ends_the_job_if_the_reporting_one_does_not() -> None:
    program = """
from measured import save_before_abort
from scimill.errors import StorageError
from scimill.parallel import world as module

def fail():
    if world().is_root:
        assert world().claims_report()
        time.sleep(200)
    time.sleep(1)
    raise StorageError("found by rank 1")

save_before_abort()
module.ABORT_WAIT = 0.5
launch(fail)
"""
    result = run(program, ranks=2)
    assert result.returncode == StorageError.exit_code, result
    assert "found by rank 1" not in result.stderr
    assert result.seconds < 100
