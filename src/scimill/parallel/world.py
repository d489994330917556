"""The ranks of a job: the only module that uses MPI.

A process without a launcher never starts MPI, so scimill also works on a login node. Under a launcher, the size of
MPI's world is compared with the launcher's. If they differ, launcher and library belong to different MPIs, and each of
the N processes would run as if it were the only one.

How a job ends:

- the same failure on all ranks (found by rank 0, broadcast by `World.on_root`): one message, all exit;
- a failure on one rank: its message, then ``MPI_Abort``, at once, with nothing collective before it.
"""

import atexit
import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from scimill.errors import ConfigError, ScimillError, Stopped

if TYPE_CHECKING:
    from mpi4py import MPI
    from numpy.typing import NDArray

T = TypeVar("T")

STARTED = time.monotonic()  # this module is loaded when the command starts; the walltime counts from here
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
EARLY_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
"""Those that schedulers send; they also stop a command that has not begun, or has no blocks."""
KERNEL_CACHE = "NUMBA_CACHE_LOCATOR_CLASSES"
"""numba's variable for its cache; see `kernel_cache`, which only numba imports, for it imports numba."""
READERS = ",".join(f"scimill.parallel.kernel_cache.{name}" for name in ("UserProvided", "InTree", "UserWide"))
READERS += ",IPythonCacheLocator,ZipCacheLocator"  # numba's own, for functions of a notebook or a zip file
STOP_TAG = 7501
FAILURE_TAG = 7502
FORWARDING_TIME = 0.3  # s; a launcher may lose what a rank prints just before it aborts
POLL_INTERVAL = 0.02  # s between checks for signals while a finished rank waits
ANNOUNCING_TIME = 0.1  # s for ranks that fail together to hear of each other; a message takes microseconds
ABORT_WAIT = 10.0  # s that a failed rank waits for the reporting rank to abort the job

LAUNCHERS = (
    # (rank, size) as the launchers export them, the innermost launcher first.
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("HOROVOD_RANK", "HOROVOD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
RANK_ONLY = ("PMIX_RANK", "PALS_RANKID", "ALPS_APP_PE")
"""Rank variables of launchers that do not export a size; only MPI knows it."""


def launched() -> tuple[int, int]:
    """Return rank and size from the launcher's environment: (0, 1) without one, size 0 if unknown."""
    for rank, size in LAUNCHERS:
        if os.environ.get(size, "").isdecimal():
            return int(os.environ.get(rank, "0")), int(os.environ[size])
    only_rank = next((os.environ[name] for name in RANK_ONLY if os.environ.get(name, "").isdecimal()), None)
    return (0, 1) if only_rank is None else (int(only_rank), 0)


class World:
    """The ranks of this job. Methods are collective, but for `alone`, `claims_report` and `abort`."""

    def __init__(self, comm: "MPI.Intracomm | None", *, is_team: bool = False) -> None:
        self.comm, self._is_team = comm, is_team
        self.rank: int = comm.rank if comm else 0
        self.size: int = comm.size if comm else 1

    @property
    def is_root(self) -> bool:
        """Whether this is rank 0, which reports and creates files."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.comm:
            self.comm.Barrier()

    def broadcast(self, value: T) -> T:
        """Return rank 0's value on all ranks."""
        return self.comm.bcast(value) if self.comm else value

    def gather_all(self, value: T) -> list[T]:
        """Return all ranks' values on all ranks."""
        return self.comm.allgather(value) if self.comm else [value]

    def all_to_all(
        self, send: "NDArray[Any]", send_counts: Sequence[int], receive: "NDArray[Any]", receive_counts: Sequence[int]
    ) -> None:
        """Send successive parts of an array to the ranks in order; receive their parts in order."""
        if self.comm:
            self.comm.Alltoallv([send, send_counts], [receive, receive_counts])
        else:
            receive[:] = send

    def pass_around(self, send: "NDArray[Any]", receive: "NDArray[Any]", step: int) -> None:
        """Send an array to the rank `step` ahead in the ring; receive one from the rank `step` behind."""
        if self.comm:
            self.comm.Sendrecv(send, (self.rank + step) % self.size, 0, receive, (self.rank - step) % self.size, 0)
        else:
            receive[...] = send

    def team_number(self, count: int) -> int:
        """Return which of `count` teams this rank belongs to, see `teams`."""
        return self.rank * count // self.size

    def teams(self, count: int) -> "World":
        """Divide the ranks into `count` teams of neighbours, as evenly as possible; return this rank's."""
        if count == 1 or not self.comm:
            return self
        team: Any = self.comm.Split(self.team_number(count), self.rank)
        return World(team, is_team=True)

    def on_root(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on rank 0; return its value or raise its error on all ranks."""
        outcome: tuple[T | None, ScimillError | None] = (None, None)
        if self.is_root:
            try:
                outcome = (function(*args), None)
            except ScimillError as error:
                outcome = (None, error)
        value, failure = self.broadcast(outcome)
        if failure is not None:
            self.fail(failure)
        return value  # type: ignore[return-value]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Mark errors raised inside as raised on all ranks, which all run the same code on the same input."""
        try:
            yield
        except ScimillError as failure:
            self.fail(failure)

    def alone(self) -> "World":
        """Return the world of this rank alone."""
        return World(None)

    def fail(self, failure: ScimillError) -> NoReturn:
        """Raise a failure that every rank found; rank 0 reports it.

        The other teams do not know of a team's failure: it ends the job like the failure of a single rank.
        """
        if not self._is_team:
            failure.add_note(COLLECTIVE)
        raise failure

    def claims_report(self) -> bool:
        """Return whether this failed rank should report: no other rank has announced a failure before it.

        If many ranks fail at once (a full disk), only the lowest reports: users want one message, not thousands.
        """
        if not self.comm or self.size == 1:
            return True
        from mpi4py.MPI import ANY_SOURCE

        # If all fail at once, only rank 0 announces it: the others listen longer first.
        if self._hear_failure(self.comm, [ANY_SOURCE], ANNOUNCING_TIME * (1 + self.rank.bit_length())):
            return False
        requests = [self.comm.isend(None, rank, FAILURE_TAG) for rank in range(self.size) if rank != self.rank]
        heard = self._hear_failure(self.comm, range(self.rank), ANNOUNCING_TIME)
        del requests  # MPI may read the messages until here
        return not heard

    @staticmethod
    def _hear_failure(comm: "MPI.Intracomm", ranks: Sequence[int], seconds: float) -> bool:
        """Listen for a moment; one probe is not enough, because MPI makes progress only while probing."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if any(comm.Iprobe(rank, FAILURE_TAG) for rank in ranks):
                return True
        return False

    def abort(self, code: int) -> NoReturn:
        """End the whole job at once, whatever other ranks do. MPI and HDF5 flush and close nothing."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self.comm and self.size > 1:
            time.sleep(FORWARDING_TIME)
            self.comm.Abort(code)
        os._exit(code)


COLLECTIVE = "raised on every rank"


def is_collective(error: BaseException) -> bool:
    """Return whether all ranks have raised this failure together, see `World.fail`."""
    return COLLECTIVE in getattr(error, "__notes__", [])


@cache
def world() -> World:
    """Start MPI if a launcher started this process; return the world.

    Raises
    ------
    ConfigError : the launcher's MPI is not the one that mpi4py has loaded, or there is no usable MPI.

    """
    defer_mpi()
    _, expected = launched()
    if expected == 1:
        return World(None)
    # Prefer ROMIO where it exists: Open MPI's own MPI-IO is slower and has lost data.
    os.environ.setdefault("OMPI_MCA_io_ompio_priority", "1")
    try:
        from mpi4py import MPI

        if not MPI.Is_initialized():
            MPI.Init_thread()
            atexit.register(_finalize)
    except ModuleNotFoundError:  # the message that names the extra
        raise
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"MPI does not start: {error}", remedy="load the MPI module, or run scripts/setup.sh"
        ) from None
    if expected not in (0, MPI.COMM_WORLD.size):
        raise ConfigError(
            f"the launcher started {expected} processes, but MPI sees {MPI.COMM_WORLD.size}: two different MPIs",
            where=f"mpi4py has loaded {library_version()}",
            remedy="use the mpirun (or srun --mpi=...) of that MPI, or install scimill with the launcher's MPI",
        )
    return World(MPI.COMM_WORLD)


def defer_mpi() -> None:
    """Keep the import of mpi4py, also by h5py, from starting MPI; `world` starts it under a launcher."""
    with contextlib.suppress(ImportError):  # not installed: one rank needs none
        import mpi4py

        mpi4py.rc.initialize = False


def _finalize() -> None:
    from mpi4py import MPI

    if not MPI.Is_finalized():
        MPI.Finalize()


def library_version() -> str:
    """Return name and version of the MPI library that mpi4py loads."""
    from mpi4py import MPI

    return MPI.Get_library_version().split(",")[0].split("\n")[0].strip("\x00 ")


def mpi_info(hints: Mapping[str, str]) -> "MPI.Info":
    """Convert MPI-IO hints (striping, collective buffering) to MPI's type."""
    from mpi4py import MPI

    return MPI.Info.Create(dict(hints))


def create_striped(path: Path, hints: Mapping[str, str]) -> None:
    """Create an empty file through MPI-IO: its striping can be chosen only at creation."""
    from mpi4py import MPI

    MPI.File.Open(MPI.COMM_SELF, str(path), MPI.MODE_CREATE | MPI.MODE_WRONLY, mpi_info(hints)).Close()


# ---- stopping ---------------------------------------------------------------------------------------------------


class Stop:
    """Whether this run should stop between blocks: on a signal to any rank, or before the walltime.

    A signal to one rank reaches all: that rank notifies rank 0, which notifies the others. `requested` is local and
    cheap; only `finish` is collective.

    Parameters
    ----------
    world : the ranks.
    walltime : seconds from the start of the command after which the scheduler ends it, or None.
    margin : seconds before the walltime at which to stop.

    """

    def __init__(self, world: World, walltime: float | None = None, margin: float = 0.0) -> None:
        self._world = world
        self._deadline = None if walltime is None else STARTED + walltime - margin
        self._longest = 0.0
        self._notified = False
        self._heard_from: set[int] = set()
        self.reason = ""
        self._previous = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.reason = f"signal {signal.Signals(number).name}"
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once

    def record_block_time(self, seconds: float) -> None:
        """Record how long a block took, so that no block starts that would exceed the walltime."""
        self._longest = max(self._longest, seconds)

    def requested(self) -> bool:
        """Return whether to stop before the next block."""
        if not self.reason and self._deadline is not None and time.monotonic() + self._longest > self._deadline:
            self.reason = "the walltime"
        if self._world.comm and self._world.size > 1:
            self._exchange(self._world.comm)
        return bool(self.reason)

    def _exchange(self, comm: "MPI.Intracomm") -> None:
        """Receive the other ranks' signals and send this rank's."""
        while comm.Iprobe(tag=STOP_TAG):
            rank, reason = comm.recv(tag=STOP_TAG)
            self._heard_from.add(rank)
            self.reason = self.reason or reason
        if not self.reason.startswith("signal"):
            return
        if comm.rank == 0 and not self._notified:
            self._notify(comm, range(1, comm.size))
        elif comm.rank > 0 and not self._notified and not self._heard_from:
            self._notify(comm, [0])

    def _notify(self, comm: "MPI.Intracomm", ranks: Iterable[int]) -> None:
        for rank in ranks:
            comm.send((comm.rank, self.reason), dest=rank, tag=STOP_TAG)  # a few bytes: buffered, never blocks
        self._notified = True

    def finish(self) -> str:
        """Wait for all ranks while passing on signals; return any rank's reason to stop, or an empty text."""
        if self._world.comm and self._world.size > 1:
            comm = self._world.comm
            arrived = comm.Ibarrier()
            while not arrived.Test():
                self.requested()
                time.sleep(POLL_INTERVAL)
            self._drain(comm)
        return next((reason for reason in self._world.gather_all(self.reason) if reason), "")

    def _drain(self, comm: "MPI.Intracomm") -> None:
        """Receive the remaining messages, so that none is in flight when MPI ends."""
        notified = comm.allgather(self._notified)
        senders = range(1, comm.size) if comm.rank == 0 else [0]
        for rank in senders:
            if notified[rank] and rank not in self._heard_from:
                comm.recv(source=rank, tag=STOP_TAG)

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)


# ---- starting and ending ----------------------------------------------------------------------------------------


def launch(command: Callable[[], int]) -> NoReturn:
    """Run a command as the main program of every rank; exit with its code as the module describes.

    Only rank 0 writes to standard output.
    """
    for number in EARLY_SIGNALS:
        signal.signal(number, _stop_at_once)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError):  # replaced by a program that runs scimill
            stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # names need not be UTF-8
    rank, size = launched()
    if rank > 0:
        os.environ.setdefault(KERNEL_CACHE, READERS)
        sys.stdout = open(os.devnull, "w", errors="replace")  # noqa: SIM115, PTH123  (for the life of the process)
    try:
        code = command()
    except SystemExit as request:
        code = request.code if isinstance(request.code, int) else int(request.code is not None)
    except BaseException as error:
        _hear_no_more_signals()
        code = _fail(error, rank, size)
    _hear_no_more_signals()
    _leave(code, rank, size)


def _stop_at_once(number: int, _frame: FrameType | None) -> NoReturn:
    """Stop on a signal that no `Stop` awaits: before the work begins, after it, or in a command without blocks."""
    signal.signal(number, signal.SIG_DFL)
    raise Stopped(f"stopped by signal {signal.Signals(number).name}", remedy="run the same command again")


def _hear_no_more_signals() -> None:
    """Let signals end the process at once again: it has only its message left to print."""
    for number in EARLY_SIGNALS:
        if signal.getsignal(number) is _stop_at_once:
            signal.signal(number, signal.SIG_DFL)


def _fail(error: BaseException, rank: int, size: int) -> int:
    """Report a failure; abort the job if the other ranks do not know of it."""
    if isinstance(error, KeyboardInterrupt):
        error, code = ScimillError("interrupted"), 130
    else:
        code = error.exit_code if isinstance(error, ScimillError) else 1
    known_to_all = is_collective(error) or not _has_started()
    if not known_to_all:
        if not world().claims_report():
            time.sleep(ABORT_WAIT)
            world().abort(code)
        print(f"scimill: rank {rank} of {size} failed and ends the job", file=sys.stderr)
    if rank == 0 or not known_to_all:
        text = str(error) if isinstance(error, ScimillError) else "".join(traceback.format_exception(error))
        print(text, file=sys.stderr, flush=True)
    if not known_to_all or size == 1:
        world().abort(code)  # skip the interpreter's exit, where HDF5 would close a file that it cannot write
    return code


def _has_started() -> bool:
    """Return whether MPI runs, so that other ranks may be waiting in it."""
    return world.cache_info().currsize > 0 and world().size > 1


def _leave(code: int, rank: int, size: int) -> NoReturn:
    """Exit. Before MPI starts, a launcher kills all ranks when one exits: let rank 0 report first."""
    if code and rank > 0 and not _has_started():
        time.sleep(3.0)
    if code and _has_started():
        # Skip the interpreter's exit, as in `_fail`.
        _finalize()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
