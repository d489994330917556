"""The doctor, on this machine as it is and with induced defects."""

import errno
import fcntl
import importlib.metadata
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from needs import require
from scimill import doctor
from scimill.doctor import CheckContext, Finding
from scimill.errors import ConfigError, StorageError
from scimill.extras import PURPOSES, extras
from scimill.parallel.world import World
from scimill.store.writer import Writer

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".venv" / "peers"
MPICH = PEERS / "mpich" / "bin"
COMMAND = [sys.executable, "-m", "scimill", "doctor"]


def run(
    *arguments: str | Path, launcher: tuple[str, ...] = (), limit: int | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    def restrict() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [*launcher, *COMMAND, *map(str, arguments)],
        env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False, preexec_fn=restrict,
    )  # fmt: skip


def lines(output: str) -> dict[str, str]:
    """Status and text of each check by its name, followed by the remedy."""
    found: dict[str, str] = {}
    for line in output.splitlines():
        if line.startswith(" "):
            found[list(found)[-1]] += " |" + line.strip()
        else:
            found[line[9:21].strip()] = line[:8].strip() + " " + line[22:]
    return found


@pytest.fixture
def context(tmp_path: Path) -> CheckContext:
    return CheckContext(World(None), tmp_path, None)


# ---- this machine as it is --------------------------------------------------------------------------------------


def test_a_sound_machine_has_nothing_failed_and_its_two_ranks_write(tmp_path: Path) -> None:
    done = run(tmp_path)
    found = lines(done.stdout)
    assert done.returncode == 0, done.stderr
    assert set(found) == {*doctor.CHECKS, "two ranks"}
    for name in ("scimill", "kernel cache", "mpi", "libmpi", "hdf5", "file locks", "one rank", "two ranks"):
        assert found[name].startswith("ok "), found[name]
    assert found["launcher"].startswith("warning" if "error:" in found["launcher"] else "ok"), found["launcher"]
    assert "mpirun: Open MPI" in found["launcher"]
    assert "with MPI" in found["hdf5"]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_ranks_of_a_launcher_write_together_and_only_rank_0_reports(tmp_path: Path) -> None:
    done = run(tmp_path, launcher=("mpirun", "-n", "3"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("libmpi") == 2  # the check and the file, once each
    assert lines(done.stdout)["3 ranks"].startswith("ok ")
    assert "3 ranks" in lines(done.stdout)["mpi"]
    assert list(tmp_path.iterdir()) == []


def test_the_mpi_io_component_is_the_one_that_opens_files(tmp_path: Path) -> None:
    assert lines(run(tmp_path).stdout)["mpi-io"].startswith("ok romio")
    assert lines(run(tmp_path, OMPI_MCA_io="ompio").stdout)["mpi-io"] == "ok ompio"
    preferred = lines(run(tmp_path, OMPI_MCA_io_ompio_priority="90").stdout)["mpi-io"]
    assert preferred.startswith("warning ompio (also available: romio")
    under_a_launcher = run(tmp_path, launcher=("mpirun", "-n", "2"), OMPI_MCA_io="ompio")
    assert lines(under_a_launcher.stdout)["mpi-io"] == "ok ompio"


# ---- with induced defects ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("directory", ["missing", "/proc", "a-file"])
def test_a_directory_that_cannot_be_written_is_a_short_message_and_exit_code_4(tmp_path: Path, directory: str) -> None:
    (tmp_path / "a-file").touch()
    done = run(tmp_path / directory)
    assert done.returncode == StorageError.exit_code
    assert done.stdout == ""
    assert done.stderr.startswith("scimill: error: cannot write to the directory: ")
    assert len(done.stderr.splitlines()) == 3


def test_a_missing_directory_is_reported_once_by_many_ranks(tmp_path: Path) -> None:
    done = run(tmp_path / "missing", launcher=("mpirun", "-n", "2"))
    assert done.returncode == StorageError.exit_code
    assert done.stderr.count("cannot write to the directory") == 1


def test_a_read_only_directory_is_refused(tmp_path: Path) -> None:
    if os.geteuid():
        tmp_path.chmod(0o555)
        done = run(tmp_path)
    else:
        require("mounting")  # root may write anywhere except on a read-only file system
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", tmp_path], check=True)
        try:
            done = run(tmp_path)
        finally:
            subprocess.run(["umount", tmp_path], check=True)
    assert done.returncode == StorageError.exit_code
    assert "cannot write to the directory" in done.stderr


def test_a_disk_that_takes_no_store_is_a_failure(tmp_path: Path) -> None:
    done = run(tmp_path, limit=65536, PATH=str(tmp_path))  # bytes per file; MPI would need more for itself
    assert done.returncode == StorageError.exit_code
    assert lines(done.stdout)["one rank"].startswith("failed the disk is full")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("MPICH")
def test_another_mpis_launcher_on_path_is_reported_and_its_ranks_fail(tmp_path: Path) -> None:
    done = run(tmp_path, PATH=f"{MPICH}:{os.environ['PATH']}")
    found = lines(done.stdout)
    assert done.returncode == 0  # one rank can still generate
    assert found["launcher"].startswith("warning mpirun: MPICH")
    assert "two different MPIs" in found["two ranks"]


@pytest.mark.needs("MPICH")
def test_another_mpis_launcher_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, launcher=(str(MPICH / "mpirun"), "-n", "2"))
    assert done.returncode == ConfigError.exit_code
    assert done.stderr.count("two different MPIs") == 1


def test_without_a_launcher_one_rank_is_left(tmp_path: Path) -> None:
    done = run(tmp_path, PATH=str(tmp_path))
    found = lines(done.stdout)
    assert done.returncode == 0
    assert found["launcher"].startswith("warning none on PATH")
    assert found["two ranks"].startswith("warning not tried")
    assert found["one rank"].startswith("ok ")


def test_a_launcher_that_hangs_or_fails_is_reported(tmp_path: Path) -> None:
    fake = tmp_path / "mpirun"
    fake.write_text("#!/bin/sh\n[ $1 = --version ] || { echo ------; echo Not enough slots; exit 1; } >&2\n")
    fake.chmod(0o755)
    found = lines(run(tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}").stdout)
    assert found["two ranks"].startswith("warning did not write: Not enough slots |do:")


@pytest.mark.needs("serial HDF5")
def test_an_h5py_without_mpi_is_reported(tmp_path: Path) -> None:
    found = lines(run(tmp_path, PYTHONPATH=str(PEERS / "h5py")).stdout)
    assert "without MPI" in found["hdf5"]
    assert found["hdf5"].startswith("warning")
    assert found["one rank"].startswith("ok ")
    assert "built without MPI" in found["two ranks"]


def test_an_h5py_that_cannot_be_imported_is_a_failure_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "h5py.py").write_text("raise ImportError('libhdf5.so.103: cannot open shared object file')\n")
    done = run(tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == ConfigError.exit_code
    assert lines(done.stdout)["hdf5"].startswith("failed ImportError: libhdf5.so.103")
    assert "Traceback" not in done.stdout + done.stderr


def test_an_mpi_that_does_not_load_leaves_one_rank(tmp_path: Path) -> None:
    done = run(tmp_path, MPI4PY_LIBMPI="/missing/libmpi.so")
    found = lines(done.stdout)
    assert found["mpi"].startswith("warning no MPI library loads")
    assert "/missing/libmpi.so" in found["two ranks"]


def test_a_second_mpi_library_in_the_process_is_a_failure(tmp_path: Path, context: CheckContext) -> None:
    second = tmp_path / "libmpich.so.12"
    subprocess.run(["cc", "-shared", "-o", second, "-x", "c", "/dev/null"], check=True)
    code = (
        f"import ctypes; ctypes.CDLL({str(second)!r}); from pathlib import Path; from scimill import doctor;"
        "from scimill.parallel.world import World, world; world();"
        "finding = doctor.single_mpi_library(doctor.CheckContext(World(None), Path(), None)); print(finding.text);"
        "raise SystemExit(finding.exit_code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == ConfigError.exit_code, done.stderr
    assert done.stdout.startswith("h5py and mpi4py use two MPIs: ")
    assert str(second) in done.stdout


def test_interrupted_it_ends_its_ranks_and_removes_what_it_made(tmp_path: Path) -> None:
    process = subprocess.Popen([*COMMAND, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not any(tmp_path.iterdir()):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


# ---- single checks ----------------------------------------------------------------------------------------------


def test_what_is_read_is_compared_with_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lossy(writer: Writer) -> bool:
        part = tmp_path / "store.h5.part"
        with part.open("r+b") as file:
            file.seek(part.stat().st_size // 2)
            file.write(bytes(4096))
        return finish(writer)

    finish = Writer.finish
    monkeypatch.setattr(Writer, "finish", lossy)
    with pytest.raises(StorageError, match="the storage does not hold what was written"):
        doctor.write_and_read(World(None), tmp_path / "store.h5")


def test_locks_that_do_not_exclude_are_reported(context: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.file_locks(context).ok
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert doctor.file_locks(context).text == "not exclusive: two locks were granted at once"

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert doctor.file_locks(context).text == "none: No locks available"
    assert not doctor.file_locks(context).ok


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("mpirun (Open MPI) 4.1.4\n", "Open MPI"),
        ("mpiexec (OpenRTE) 4.1.4", "Open MPI"),
        ("Open MPI v5.0.3", "Open MPI"),
        ("HYDRA build details:\n    Version: 4.1.2", "MPICH"),
        ("MPICH Version: 4.1.2", "MPICH"),
        ("Intel(R) MPI Library 2021.9 for Linux* OS", "MPICH"),
        ("MPI VERSION    : CRAY MPICH version 8.1.28.2 (ANL base 3.4a2)", "MPICH"),
        ("PALS version 1.2.12", "MPICH"),
        ("slurm 22.05.8", ""),
    ],
)
def test_families_of_mpi(text: str, family: str) -> None:
    assert doctor.identify_mpi(text) == family


@pytest.mark.parametrize(
    ("answer", "scheduler"),
    [
        ("pbs_version = 23.06.06", "PBS"),
        ("qsub.py $Revision: 559 $, Cobalt 1.0.30", "Cobalt"),
        ("cobalt $Version$", "Cobalt"),
        ("unknown option", "an unknown qsub"),
    ],
)
def test_pbs_and_cobalt_are_distinguished(answer: str, scheduler: str) -> None:
    assert doctor.identify_qsub(answer) == scheduler


def test_a_qsub_on_path_is_asked(tmp_path: Path) -> None:
    (tmp_path / "qsub").write_text("#!/bin/sh\necho pbs_version = 23.06.06\n")
    (tmp_path / "qsub").chmod(0o755)
    shutil.copy("/bin/true", tmp_path / "apptainer")
    found = lines(run(tmp_path, PATH=str(tmp_path)).stdout)  # without other tools of this machine
    assert found["scheduler"] == "ok PBS"
    assert found["containers"] == "ok apptainer"


@pytest.mark.parametrize(
    ("version", "bad"),
    [("2.1.6", True), ("3.0.4", True), ("3.0.5", False), ("3.1.4", True), ("3.1.5", False), ("4.0.2", True),
     ("4.0.3", False), ("4.1.4", False), ("5.0.0", False)],
)  # fmt: skip
def test_releases_whose_ompio_loses_data(version: str, bad: bool) -> None:
    assert doctor.ompio_loses_data(f"Open MPI v{version}") is bad


def test_extras_with_missing_packages_are_listed_with_their_remedy(
    context: CheckContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.optional_packages(context) == Finding("installed: mpi, training, turbulence, fftw, atoms, bench, sky")
    requirements = ["numpy>=1.0", 'torch>=2; extra == "training"', 'no-such-package>=1; extra == "sky"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: requirements)
    found = doctor.optional_packages(context)
    assert (found.text, found.exit_code) == ("installed: mpi, training, turbulence, fftw, atoms, bench", 0)
    assert found.remedy == (
        "for reading JPEG images: pip install 'scimill[sky]' (no-such-package); run scripts/setup.sh"
    )


def test_each_extra_has_its_purpose() -> None:
    declared = importlib.metadata.metadata("scimill").get_all("Provides-Extra") or []
    assert set(declared) == {*PURPOSES, "all"}
    assert all(extras().values())


def test_versions_are_compared_with_those_that_scimill_works_with(
    context: CheckContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.versions(context).ok
    here = importlib.metadata.version("numpy")
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["numpy<1.0", 'torch==9 ; extra == "training"'])
    other = doctor.versions(context)
    assert (other.ok, other.exit_code) == (False, 0)
    assert f"numpy {here}, not <1.0" in other.text
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["no-such-package==1.0"])
    missing = doctor.versions(context)
    assert missing.exit_code == ConfigError.exit_code
    assert "not installed: no-such-package" in missing.text


def test_a_check_that_cannot_be_done_is_a_finding(context: CheckContext) -> None:
    def failing(error: Exception) -> doctor.Check:
        def check(_: CheckContext) -> Finding:
            raise error

        return check

    assert doctor.run_check(failing(ImportError("no")), context).exit_code == ConfigError.exit_code
    assert doctor.run_check(failing(StorageError("full", remedy="free space")), context) == Finding(
        "full", "free space", 4
    )
    slow = doctor.run_check(failing(subprocess.TimeoutExpired(["mpirun"], 20)), context)
    assert (slow.ok, slow.exit_code) == (False, 0)
    with pytest.raises(ZeroDivisionError):  # a bug in the doctor is not hidden
        doctor.run_check(failing(ZeroDivisionError()), context)


def test_a_finding_is_one_line_and_a_warning_two() -> None:
    assert Finding("a\nb").describe("x") == "ok       x            a b"
    assert Finding("a", "do this").describe("x").splitlines()[1].strip() == "do: do this"
    assert Finding("a", exit_code=4).describe("x").startswith("failed")
