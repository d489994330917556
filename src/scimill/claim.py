"""The claim on an output: a lock file that one run holds, on file systems with and without shared locks.

The kernel's lock on ``NAME.lock`` decides, if hosts share such locks. Where they do not (NFS with ``nolock``, sshfs, …)
the file also is a lease: its holder renews it, and another host takes it over only after it has seen no renewal for
`EXPIRES` seconds. So clocks of hosts need not agree.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import re
import secrets
import socket
import stat
import threading
import time
from functools import cache
from pathlib import Path

from scimill.errors import StorageError
from scimill.parallel.report import say

MAGIC = "scimill lock"
FORMER = re.compile(rb"process \d+ on \S+")
"""What earlier versions wrote."""
SIZE = 1024  # bytes of a lock file; one write replaces all of them
RENEWED_EVERY = 10.0  # s
EXPIRES = 180.0  # s without a renewal after which the holder counts as dead
INTERVAL = 0.1  # s between attempts
SETTLES_IN = 2.0  # s until a file system without shared locks shows which of two hosts took a lease over
JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "COBALT_JOBID")

KERNEL_ENOTSUPP = 524  # not meant for programs, but some parallel file systems return it
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, KERNEL_ENOTSUPP)
_LOCAL_LOCKS = {
    # Type of file system, and the mount options of which one means that each host has locks of its own; none: always.
    r"nfs4?": r"nolock|local_lock=(all|flock)",
    r"lustre": r"localflock|noflock",
    r"fuse(\..*)?|fuseblk|beegfs.*|9p|virtiofs|cifs|smb3|afs|orangefs|pvfs2": "",
}


@dataclasses.dataclass(frozen=True)
class Holder:
    """A process that holds a claim, as its lock file describes it."""

    host: str
    boot: str
    """the kernel's random number of this start of the host"""
    namespace: str
    """which processes it sees"""
    process: int
    started: str
    """when the process started, in ticks since the host did"""
    job: str
    token: str
    """random; tells this claim from any other"""

    @classmethod
    def this_process(cls) -> "Holder":
        """Describe this process, with a new token."""
        job = next((os.environ[name] for name in JOB_VARIABLES if name in os.environ), "")
        return cls(*_host(), os.getpid(), _start_of(os.getpid()), job, secrets.token_hex(8))

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}" + (f", job {self.job}" if self.job else "")

    def is_dead(self) -> bool:
        """Return whether it certainly has ended; only processes of this host can be looked up."""
        if (self.host, self.boot, self.namespace) != _host():
            return False
        return _start_of(self.process) != self.started


@cache
def _host() -> tuple[str, str, str]:
    """Identify this host: its name, its start, the processes that it shows."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return socket.gethostname(), boot, str(Path("/proc/self/ns/pid").stat().st_ino)
    return socket.gethostname(), "", ""


def host_identity() -> str:
    """Return what tells hosts apart even if their names are equal."""
    return " ".join(_host()[:2])


def _start_of(process: int) -> str:
    """Return when a process started; empty if there is none."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]  # field 22 of proc(5); the name in parentheses may hold anything


def local_locks(folder: Path) -> str:
    """Describe why hosts do not share the file locks of a folder; empty if they do, or if one host alone uses it."""
    kind, options = mount(folder)
    local = next((local for kinds, local in _LOCAL_LOCKS.items() if re.fullmatch(kinds, kind)), None)
    if not local:
        return kind if local == "" else ""
    found = next((option for option in options if re.fullmatch(local, option)), None)
    return f"{kind} with {found}" if found else ""


def mount(folder: Path) -> tuple[str, list[str]]:
    """Return type and options of the file system of a folder; see proc_pid_mountinfo(5)."""
    place, best = folder.resolve(), (-1, "unknown", list[str]())
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        if place.is_relative_to(point) and len(point) >= best[0]:  # a later mount hides an earlier one
            kind, *_, options = after.split()
            best = len(point), kind, [*before.split()[5].split(","), *options.split(",")]
    return best[1], best[2]


class ClaimHeld(StorageError):
    """Another process holds the claim."""


class Claim:
    """The exclusive right to write an output, held by a process until it releases it or exits.

    It prevents a job that was submitted twice from writing the same file twice.

    Parameters
    ----------
    lock : the lock file; never the output itself, which MPI-IO may lock too.
    break_lock : take over another host's lease without waiting for it to expire.
    keeps_file : leave the lock file, empty, when releasing. Where a lock is taken often, removing it is unsafe on NFS:
        another host may lock the removed file, and be shown from its cache that it is still there.

    """

    def __init__(self, lock: Path, *, break_lock: bool = False, keeps_file: bool = False) -> None:
        self._path, self._break_lock, self._keeps_file = lock, break_lock, keeps_file
        self._holder = Holder.this_process()
        self._descriptor: int | None = None
        self._blank: bytes | None = None
        self._released = threading.Event()

    def acquire(self, patience: float = 0.0) -> None:
        """Take the claim; wait so many seconds for another process to release it.

        Raises
        ------
        ClaimHeld : another process holds it.
        StorageError : the lock file is not scimill's.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                return self._acquire()
            except ClaimHeld:
                if time.monotonic() > deadline:
                    raise
            except OSError as error:  # another host has just removed the lock file
                if error.errno != errno.ESTALE or time.monotonic() > deadline:
                    raise
            time.sleep(INTERVAL)

    @property
    def descriptor(self) -> int:
        """Descriptor of the lock file; if this process is killed, those that inherited it keep the claim."""
        assert self._descriptor is not None
        return self._descriptor

    def _acquire(self) -> None:
        descriptor, is_new = self._open()
        try:
            reason = self._lock(descriptor) or local_locks(self._path.parent)
            content = self._read_own(descriptor)
            self._blank = content if _is_blank(content) and not is_new else None
            if self._keeps_file and not reason:  # to take over a lease from an empty file takes seconds
                self._blank = b""
            if reason:
                say(f"hosts do not share file locks here ({reason}): {self._path.name} is a lease")
                self._await_expiry(content, is_new=is_new)
            self._write(descriptor, is_lease=bool(reason))
            if reason:
                self._settle(is_new=is_new)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        if reason:
            threading.Thread(target=self._renew, args=(descriptor,), daemon=True).start()

    def _open(self) -> tuple[int, bool]:
        """Open the lock file; return also whether it is new. Never follow a link, nor wait for the end of a pipe."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
        while True:
            with contextlib.suppress(FileExistsError):
                return os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
            try:
                return os.open(self._path, flags), False
            except FileNotFoundError:
                continue  # its holder has just released it
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                    raise self._foreign() from None
                raise

    def _lock(self, descriptor: int) -> str:
        """Lock the file; return why that does not work here."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refused(os.pread(descriptor, SIZE + 1, 0)) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return "no file locks"
        return ""

    def _read_own(self, descriptor: int) -> bytes:
        """Return the content of the lock file; refuse a file that scimill did not write."""
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise self._foreign()
        content = os.pread(descriptor, SIZE + 1, 0)
        is_ours = _is_blank(content) or content.startswith(MAGIC.encode()) or FORMER.fullmatch(content)
        if len(content) > SIZE or not is_ours:
            raise self._foreign()
        try:
            is_in_place = os.path.samestat(self._path.lstat(), os.fstat(descriptor))
        except FileNotFoundError:
            is_in_place = False
        if not is_in_place:
            raise self._refused(b"")  # the other run removed its lock and ended after we had opened it
        return content

    def _await_expiry(self, content: bytes, *, is_new: bool) -> None:
        """Wait until a lease counts as expired.

        Raises
        ------
        StorageError : its holder renews it.
        """
        holder = _holder(content)
        if is_new or self._break_lock or (holder is not None and holder.is_dead()):
            return
        patience = SETTLES_IN if _is_blank(content) else EXPIRES
        if not _is_blank(content):
            whom = holder or "its holder"
            say(f"waiting {patience:.0f} s to see whether {whom} still runs; --break-lock does not wait")
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            time.sleep(min(1.0, patience / 10))
            if (seen := self._read()) != content:
                raise self._refused(seen if _holder(seen) else content)

    def _settle(self, *, is_new: bool) -> None:
        """Make sure that no other host took the lease over at the same time."""
        if not is_new:
            time.sleep(SETTLES_IN)
            self.confirm()

    def _read(self) -> bytes:
        """Read the lock file anew, not from the cache of this host."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return b""
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # NFS keeps the pages of a file that is open
            return os.pread(descriptor, SIZE + 1, 0)
        finally:
            os.close(descriptor)

    def _write(self, descriptor: int, *, is_lease: bool = True, renewals: int = 0) -> None:
        """Write who holds the claim. A full disk must not keep a run from resuming, unless this is a lease."""
        described = json.dumps({**dataclasses.asdict(self._holder), "renewals": renewals})
        content = f"{MAGIC}: {self._holder}\n{described}\n".encode().ljust(SIZE)
        try:
            os.pwrite(descriptor, content, 0)
            os.ftruncate(descriptor, SIZE)
            if is_lease:
                os.fsync(descriptor)
        except OSError:
            if is_lease:
                raise

    def _renew(self, descriptor: int) -> None:
        """Renew the lease until it is released or lost."""
        renewals = 0
        while not self._released.wait(RENEWED_EVERY):
            renewals += 1
            with contextlib.suppress(OSError):  # a server that is away for a while; others wait longer than that
                if self._other_holder() is not None:
                    return
                self._write(descriptor, renewals=renewals)

    def _other_holder(self) -> Holder | None:
        holder = _holder(self._read())
        return None if holder is None or holder.token == self._holder.token else holder

    def confirm(self) -> None:
        """Make sure that this process still holds the claim.

        Raises
        ------
        StorageError : another run has taken it over.
        """
        if other := self._other_holder():
            raise ClaimHeld(f"another run took this output over: {other}", where=str(self._path), remedy=WAIT)

    def release(self) -> None:
        """Release the claim, if this process holds it."""
        if self._descriptor is None:
            return
        self._released.set()
        with contextlib.suppress(OSError):
            if self._other_holder() is not None:
                pass
            elif self._blank is not None:  # perhaps not scimill's: left as it was
                os.ftruncate(self._descriptor, len(self._blank))
                os.pwrite(self._descriptor, self._blank, 0)
            else:
                self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # processes that have inherited it must not keep it
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        with contextlib.suppress(OSError):  # a network file system may report here what happened before
            os.close(self._descriptor)
        self._descriptor = None

    def _refused(self, content: bytes) -> ClaimHeld:
        owner = (
            _holder(content) or (FORMER.fullmatch(content) and content.decode()) or "one that has just begun or ended"
        )
        what = f"another run is writing this output: {owner}"
        return ClaimHeld(what, where=str(self._path), remedy=WAIT)

    def _foreign(self) -> StorageError:
        what = "scimill did not write the file that has the name of its lock"
        return StorageError(what, where=str(self._path), remedy="move it away, or choose another output")


WAIT = "wait until it ends or stop it, then use --resume"


def _is_blank(content: bytes) -> bool:
    """Return whether a lock file says nothing: just made, or made before the power failed."""
    return not content.strip(b"\0 ")


def _holder(content: bytes) -> Holder | None:
    """Read who holds a claim; None if the lock file does not say so."""
    with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
        described = json.loads(content.split(b"\n")[1])
        return Holder(**{field.name: described[field.name] for field in dataclasses.fields(Holder)})
    return None
