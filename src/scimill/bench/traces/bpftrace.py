"""Recording by bpftrace: the program that it runs, and what its output says."""

import os
from dataclasses import dataclass
from pathlib import Path

from scimill.bench.traces.formats import KINDS, NO_FILES, Descriptors
from scimill.errors import ConfigError, InputError

FOLDERS = (Path("/sys/kernel/tracing/events"), Path("/sys/kernel/debug/tracing/events"))
"""Where a kernel lists its tracepoints."""
ENVIRONMENT = {
    "BPFTRACE_STRLEN": "200",  # bytes of a path: the most that the stack of a program has room for
    "BPFTRACE_PERF_RB_PAGES": "1024",  # pages of the buffer of each processor
}
CLONE_FILES, O_CLOEXEC, AT_FDCWD = 0x400, 0o2000000, -100
F_DUPFD, F_DUPFD_CLOEXEC = 0, 1030

_PATH, _FLAGS = "@path[tid] = args->filename;", "@argument[tid] = (int64)args->flags;"
_FD, _AT = "@fd[tid] = (int64)args->fd;", "@argument[tid] = (int64)args->{};"
_DIRECTORY = "@fd[tid] = (int64)args->dfd;"
_HERE = f"@fd[tid] = (int64){AT_FDCWD};"
ENTRIES = {
    # system call: what is kept of its arguments
    "openat": _DIRECTORY + _PATH + _FLAGS,
    "openat2": _DIRECTORY + _PATH,
    "open": _HERE + _PATH + _FLAGS,
    "creat": _HERE + "@path[tid] = args->pathname;",
    "chdir": _HERE + _PATH,
    **dict.fromkeys(("read", "readv", "write", "writev", "lseek", "close", "fchdir"), _FD),
    **dict.fromkeys(("pread64", "pwrite64"), _FD + _AT.format("pos")),
    **dict.fromkeys(("preadv", "preadv2", "pwritev", "pwritev2"), _FD + _AT.format("pos_l")),
    "dup": "@fd[tid] = (int64)args->fildes;",
    "dup2": "@fd[tid] = (int64)args->oldfd;",
    "dup3": "@fd[tid] = (int64)args->oldfd;" + _FLAGS,
    "fcntl": _FD + _AT.format("cmd"),
    "execve": "",
}
_HAVE_PATH = [name for name, entry in ENTRIES.items() if "@path" in entry]


def program_for_kernel() -> str:
    """Return the program that prints a line for each call of the children of the command that bpftrace runs.

    Raises
    ------
    ConfigError : the kernel's tracepoints cannot be seen.

    """
    folder = next((folder for folder in FOLDERS if os.access(folder / "syscalls", os.R_OK)), None)
    if folder is None:
        raise ConfigError(
            "the tracepoints of the kernel cannot be seen", where=str(FOLDERS[0]),
            remedy="run as root; mount -t tracefs tracefs /sys/kernel/tracing; or use strace",
        )  # fmt: skip
    return program_for([name for name in ENTRIES if (folder / "syscalls" / f"sys_enter_{name}").exists()])


def program_for(calls: list[str]) -> str:
    """Return the program for the calls that a kernel has.

    Its lines are ``thread start end call result descriptor argument path``; of a new task ``thread 0 time task number 0
    flags``.
    """
    task = 'printf("%d 0 %llu task %d 0 %llu\\n", tid, nsecs, args->pid, args->clone_flags);'
    watch = f"/pid == cpid || @watched[tid]/ {{ @watched[args->pid] = 1; {task} }}"
    probes = [f"tracepoint:task:task_newtask {watch}", "tracepoint:sched:sched_process_exit { delete(@watched[tid]); }"]
    for name in calls:
        path, value = ("%s", ", str(uptr(@path[tid]))") if name in _HAVE_PATH else ("", "")
        numbers = "tid, @begin[tid], nsecs, args->ret, @fd[tid], @argument[tid]"
        line = f'printf("%d %llu %llu {name} %lld %lld %lld {path}\\n", {numbers}{value});'
        forget = " ".join(f"delete(@{name}[tid]);" for name in ("begin", "fd", "argument"))
        probes += [
            f"tracepoint:syscalls:sys_enter_{name} /@watched[tid]/ {{ @begin[tid] = nsecs; {ENTRIES[name]} }}",
            f"tracepoint:syscalls:sys_exit_{name} /@begin[tid]/ {{ {line} {forget} }}",
        ]
    maps = " ".join(f"clear(@{name});" for name in ("watched", "begin", "fd", "argument", "path"))
    return "\n".join([*probes, f"END {{ {maps} }}"])


@dataclass(frozen=True)
class Call:
    """One line of the output."""

    thread: str
    start: int
    end: int
    name: str
    result: int
    descriptor: int
    argument: int
    path: str


class Bpftrace(Descriptors):
    """State of reading the output of the program: also which file each descriptor is.

    Parameters
    ----------
    folder : the directory in which the command began.

    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder: dict[str, str] = {}
        self._first_folder = str(folder)
        self._paths: dict[str, dict[int, tuple[str, bool]]] = {}

    def read(self, path: Path) -> None:
        """Take a whole output; the buffers of several processors come one behind the other, so it is sorted.

        Raises
        ------
        InputError : a line that does not belong into it, or bpftrace lost some.

        """
        calls: list[Call] = []
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                if line.startswith("Lost "):
                    what = f"bpftrace was too slow: {line.strip().lower()}"
                    raise InputError(what, where=str(path), remedy="use strace, or set BPFTRACE_PERF_RB_PAGES")
                if line.strip() and not line.startswith("Attaching "):
                    calls.append(parse(line, f"{path}, line {number}"))
        for call in sorted(calls, key=lambda call: call.end):
            if call.result >= 0:
                self._take(call)

    def _take(self, call: Call) -> None:
        """Note a call that succeeded."""
        owner = self.owner(call.thread)
        paths = self._paths.setdefault(owner, {})
        if call.name == "task":
            self._task(call, owner)
        elif call.name == "execve":
            self._paths[owner] = {fd: of for fd, of in paths.items() if not of[1]}
        elif call.name == "close":
            paths.pop(call.descriptor, None)
        elif call.name in ("chdir", "fchdir"):
            self._folder[owner] = self._full(call, owner) if call.path else paths.get(call.descriptor, ("", False))[0]
        elif call.name in ("dup", "dup2", "dup3", "fcntl"):
            self._copy(call, owner)
        elif KINDS.get(call.name) == "open":
            paths[call.result] = (os.path.normpath(self._full(call, owner)), bool(call.argument & O_CLOEXEC))
            self._moved(call, call.result, owner)
        else:
            self._moved(call, call.descriptor, owner)

    def _moved(self, call: Call, descriptor: int, owner: str) -> None:
        """Note an open, a transfer or a seek on a file that is known."""
        path = self._paths[owner].get(descriptor, ("", False))[0]
        if path and not path.startswith(NO_FILES):
            of = (str(descriptor), path)
            self.moved(call.thread, call.name, (call.start, call.end), of, call.result, call.argument)

    def _full(self, call: Call, owner: str) -> str:
        """Path of a call, from the root on."""
        here = self._folder.get(owner, self._first_folder)
        base = here if call.descriptor == AT_FDCWD else self._paths[owner].get(call.descriptor, (here, False))[0]
        return str(Path(base) / call.path)

    def _copy(self, call: Call, owner: str) -> None:
        """Let another descriptor be the same file."""
        if call.name == "fcntl" and call.argument not in (F_DUPFD, F_DUPFD_CLOEXEC):
            return
        paths, closes = self._paths[owner], call.argument == F_DUPFD_CLOEXEC or call.argument & O_CLOEXEC
        of = paths.get(call.descriptor)
        if of:
            paths[call.result] = (of[0], call.name in ("fcntl", "dup3") and bool(closes))
        else:
            paths.pop(call.result, None)

    def _task(self, call: Call, owner: str) -> None:
        """Let a thread share its parent's descriptors, and a process have copies of them."""
        child, shares = str(call.result), bool(call.argument & CLONE_FILES)
        self.fork(call.thread, child, shares)
        if not shares:
            self._paths[child] = dict(self._paths[owner])
            self._folder[child] = self._folder.get(owner, self._first_folder)


def parse(line: str, where: str) -> Call:
    """Read one line.

    Raises
    ------
    InputError : it is not a line of the program.

    """
    thread, *words = line.rstrip("\n").split(" ", 7)
    path = words.pop() if len(words) == 7 else ""
    try:
        start, end, name, result, descriptor, argument = words
        return Call(str(int(thread)), int(start), int(end), name, int(result), _signed(descriptor), int(argument), path)
    except ValueError:
        raise InputError("not a line of bpftrace's", where=where) from None


def _signed(text: str) -> int:
    """Read a descriptor; the kernel keeps a negative one, `AT_FDCWD`, as an unsigned number of 32 bits."""
    return (int(text) + 2**31) % 2**32 - 2**31
