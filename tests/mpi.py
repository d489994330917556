"""Run the real command under the real mpirun; a run that exceeds its outer timeout raises Hang."""

import atexit
import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import mpi4py
import numpy as np

mpi4py.rc.initialize = False  # h5py imports mpi4py, but the test process is not a rank
import h5py  # noqa: E402

import forked  # noqa: E402

TESTS = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
SCIMILL = (str(BIN / "scimill"),)
PEERS = BIN.parent / "peers"  # another MPI and another HDF5, see scripts/setup.sh
SERIAL_HDF5 = {"PYTHONPATH": os.pathsep.join([str(PEERS / "h5py"), *filter(None, [os.environ.get("PYTHONPATH")])])}
TIMEOUT = 240.0  # s; the first run on a machine compiles the kernel
TIMINGS = ("blocks/seconds", "blocks/row_crc32c")
"""Columns that may differ between two runs: the time of a block, and the checksum that covers it."""
DONE = 255  # docs/format.md: the state of a block all of whose bytes are in place


class Hang(Exception):
    """A command did not end within its outer timeout."""


@dataclass(frozen=True)
class Result:
    command: str
    returncode: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def errors(self) -> list[str]:
        """First lines of the messages to the user."""
        return [line for line in self.stderr.splitlines() if line.startswith("scimill: error:")]

    @property
    def tracebacks(self) -> int:
        return self.stderr.count("Traceback (most recent call last)")

    def __str__(self) -> str:
        return f"{self.command}\nexit {self.returncode} after {self.seconds:.1f} s\n{self.stdout}{self.stderr}"


def printable(text: str) -> str:
    """Replace what a report of pytest cannot hold: bytes of names that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


class Job:
    """A running command and all processes of its session; a context manager that ends them all."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path | None) -> None:
        self.command = printable(shlex.join(command))
        self._started = time.monotonic()
        # Pass os.environ explicitly: an MPI in this process may have changed the C library's environment.
        self.process = subprocess.Popen(
            command, env={**os.environ, **env}, cwd=cwd, start_new_session=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def wait(self, timeout: float = TIMEOUT) -> Result:
        try:
            stdout, stderr = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.end()
            raise Hang(f"HANG: {self.command}") from None
        return Result(self.command, self.process.returncode, stdout, stderr, time.monotonic() - self._started)

    def end(self) -> None:
        """Kill all living processes of the session."""
        for pid in [pid for pid, _, session in processes() if session == self.process.pid]:
            kill(pid, signal.SIGKILL)
        for stream in (self.process.stdout, self.process.stderr):  # others may hold the pipes open
            if stream:
                stream.close()
        self.process.wait()

    def rank(self, rank: int) -> int:
        """Return the process id of a rank, once mpirun has started it; without mpirun, of the process itself."""
        if Path(str(self.process.args[0])).name != "mpirun":
            return self.process.pid
        found = wait_until(lambda: self._find_rank(rank), f"rank {rank} of {self.command}")
        return int(str(found))

    def _find_rank(self, rank: int) -> int | None:
        variable = f"OMPI_COMM_WORLD_RANK={rank}".encode()
        children = (pid for pid, parent, _ in processes() if parent == self.process.pid)
        return next((pid for pid in children if variable in environment(pid)), None)

    def kill(self, rank: int, number: int = signal.SIGKILL) -> None:
        kill(self.rank(rank), number)


def processes() -> Iterator[tuple[int, int, int]]:
    """Return process id, parent id and session id of all processes."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # just ended
            yield int(entry.name), int(fields[1]), int(fields[3])


def environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def kill(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_until(condition: Callable[[], object], what: str, timeout: float = TIMEOUT, interval: float = 0.005) -> object:
    """Return the condition's value as soon as it is true."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Hang(f"HANG: waited {timeout:g} s for {what}")
        time.sleep(interval)
    return value


def start(
    *args: object,
    ranks: int = 1,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    program: Sequence[str] = SCIMILL,
) -> Job:
    """Start scimill (or a driver of it) without waiting; one rank is a plain process, more are under mpirun."""
    launcher = ("mpirun", "-n", str(ranks)) if ranks > 1 else ()
    return Job([*launcher, *program, *(str(arg) for arg in args)], env or {}, cwd)


class Forked:
    """A running command of one process, forked from one that has imported everything; used like `Job`."""

    def __init__(self, words: Sequence[str], instant: str, cwd: Path | None, env: Mapping[str, str]) -> None:
        self._command = printable(shlex.join(["scimill", *words])) + (
            f" [dies: {instant}]" if instant != "never" else ""
        )
        self._started = time.monotonic()
        self._outputs = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 - `wait` closes them
        with Path(os.devnull).open() as nothing:
            streams = (nothing.fileno(), *(file.fileno() for file in self._outputs))
            request = forked.request_of(words, instant, cwd, env)
            self._connection, self._pid = forked.connect(forking_process(), request, streams)

    def kill(self, number: int) -> None:
        kill(self._pid, number)

    def wait(self, timeout: float = TIMEOUT) -> Result:
        # Closing the connection kills a process that still runs.
        with self._outputs[0], self._outputs[1], self._connection:
            self._connection.settimeout(timeout)
            try:
                code = forked.number_from(self._connection)
            except TimeoutError:
                raise Hang(f"HANG: {self._command}") from None
            stdout, stderr = (self._read(file) for file in self._outputs)
        return Result(self._command, code, stdout, stderr, time.monotonic() - self._started)

    @staticmethod
    def _read(file: IO[bytes]) -> str:
        file.seek(0)
        return file.read().decode("utf-8", "replace")


@cache
def forking_process(modules: str = "") -> str:
    """Start the process that forks commands for this test process, and ends with it; return its socket.

    `modules` is a PYTHONPATH, for campaigns that are not installed.
    """
    folder = tempfile.mkdtemp(prefix="forked-", dir="/tmp")  # the path of a socket must be short
    atexit.register(shutil.rmtree, folder)
    path = f"{folder}/socket"
    environment = os.environ | ({"PYTHONPATH": modules} if modules else {})
    process = subprocess.Popen(
        [sys.executable, "-m", "forked", path], cwd=TESTS, env=environment, stdin=subprocess.PIPE
    )
    atexit.register(process.communicate)
    wait_until(lambda: Path(path).exists() or process.poll() is not None, "the process that forks")
    return path


def forking_program(modules: str = "") -> tuple[str, ...]:
    """Return a scimill whose processes, of one or many ranks, are forked; for `start`."""
    return sys.executable, "-S", forked.__file__, forking_process(modules)


@cache
def forking_command(modules: str = "") -> Path:
    """Return a folder with a ``scimill`` that forks, for scripts of jobs."""
    command = Path(forking_process(modules)).with_name("scimill")
    command.write_text(f'#!/bin/sh\nexec {shlex.join(forking_program(modules))} "$@"\n')
    command.chmod(0o755)
    return command.parent


def quick_path(modules: str = "") -> str:
    """Return this process's PATH with the ``scimill`` that forks first."""
    return os.pathsep.join([str(forking_command(modules)), os.environ["PATH"]])


def start_forked(
    *args: object, instant: str = "never", cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Forked:
    """Start scimill on one rank; it dies at an instant of `faults.instants`."""
    return Forked([str(arg) for arg in args], instant, cwd, env or {})


def scimill(
    *args: object,
    ranks: int = 1,
    timeout: float = TIMEOUT,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    program: Sequence[str] = SCIMILL,
    instant: str = "never",
    dying_rank: int | None = 0,
) -> Result:
    """Run scimill to its end, in forked processes (`forked`) unless the program or its modules are others.

    A rank, or each one if `dying_rank` is None, dies at an instant of `faults.instants`.
    """
    env = env or {}
    if program is SCIMILL and "PYTHONPATH" not in env:
        if ranks == 1:
            return start_forked(*args, instant=instant, cwd=cwd, env=env).wait(timeout)
        program = forking_program()
        env = {**env, forked.INSTANT: f"{'all' if dying_rank is None else dying_rank} {instant}"}
    with start(*args, ranks=ranks, env=env, cwd=cwd, program=program) as job:
        return job.wait(timeout)


def succeed(*args: object, ranks: int = 1, env: Mapping[str, str] | None = None) -> Result:
    """Run scimill, which must exit with 0."""
    result = scimill(*args, ranks=ranks, env=env)
    assert result.returncode == 0, result
    return result


# ---- looking into a store, without scimill ----------------------------------------------------------------------


def dataset_hashes(path: Path) -> dict[str, str]:
    """SHA-256 of every dataset, and of every column of one with columns, except `TIMINGS`."""
    hashes: dict[str, str] = {}

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            values = np.asarray(item[()])
            parts = {f"{name}/{column}": values[column] for column in values.dtype.names or ()} or {name: values}
            digests = {key: hashlib.sha256(part.tobytes()).hexdigest() for key, part in parts.items()}
            hashes.update((key, digest) for key, digest in digests.items() if key not in TIMINGS)

    with h5py.File(path, "r", locking=False) as file:
        file.visititems(add)
    return hashes


def done_blocks(path: Path) -> list[int]:
    """Blocks marked done; none if there is no file yet. A run may be writing the file."""
    if not path.exists():
        return []
    with h5py.File(path, "r", locking=False) as file:
        return [int(block) for block in np.flatnonzero(file["blocks"]["state"] == DONE)]


def change_ledger(file: h5py.File, block: int, **values: object) -> None:
    """Change columns of a block's row, and not its checksum."""
    row = file["blocks"][block]
    for name, value in values.items():
        row[name] = value
    file["blocks"][block] = row


def block_contents(path: Path) -> dict[int, str]:
    """SHA-256 of each done block: its rows of all fields and tables and its ledger row, its timing too."""
    with h5py.File(path, "r", locking=False) as file:
        return {block: _block_hash(file, block) for block in done_blocks(path)}


def _block_hash(file: h5py.File, block: int) -> str:
    value = hashlib.sha256()
    for name, rows in _rows_per_block(file).items():
        value.update(np.asarray(file[name][block * rows : (block + 1) * rows]).tobytes())
    return value.hexdigest()


def _rows_per_block(file: h5py.File) -> dict[str, int]:
    layout = json.loads(file.attrs["layout"])
    rows = {field["name"]: layout["block_rows"] for field in layout["fields"]}
    rows |= {f"{t['name']}/{f['name']}": t["capacity"] for t in layout["tables"] for f in t["fields"]}
    return rows | {"blocks": 1}
