"""Reading I/O traces (CSV, strace or Darshan's DXT, recognised by content) and writing CSV traces."""

import csv
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from scimill.bench.kernels.similarity import UNKNOWN, Trace
from scimill.errors import InputError

COLUMNS = ("start", "end", "type", "offset", "bytes", "file")
NANOSECONDS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
LARGEST = 10**15  # bytes; tracers record failed calls as larger sizes (an error code read as unsigned)
MOST_KINDS = 256
KINDS = {
    "openat": "open", "openat2": "open", "open": "open", "creat": "open",
    "read": "read", "pread64": "read", "pread": "read", "readv": "read", "preadv": "read", "preadv2": "read",
    "write": "write", "pwrite64": "write", "pwrite": "write", "writev": "write", "pwritev": "write",
    "pwritev2": "write", "bior": "block_read", "biow": "block_write",
}  # fmt: skip
"""Our names for operations; all others keep their own."""
NO_FILES = ("/dev/", "/proc/", "/sys/", "/run/")
HEAD = 1 << 16  # bytes read to recognise the format of a file


@dataclass
class Events:
    """Operations in the order in which they are read, one list per column of `COLUMNS`; times in ns."""

    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    file: list[str] = field(default_factory=list)

    def add(self, start: int, end: int, kind: str, offset: int, size: int, file: str) -> None:
        """Append one operation."""
        self.start.append(start)
        self.end.append(end)
        self.kind.append(kind)
        self.offset.append(offset)
        self.size.append(size)
        self.file.append(file)

    def write(self, path: Path, only: str) -> int:
        """Write the operations on files that match a pattern as a CSV trace; return their number."""
        matches = {name: fnmatch.fnmatchcase(name, only) for name in set(self.file)}
        columns = zip(self.start, self.end, self.kind, self.offset, self.size, self.file, strict=True)
        rows = sorted(row for row in columns if matches[row[-1]])
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(["" if value == UNKNOWN else value for value in row] for row in rows)
        return len(rows)

    def trace(self, path: Path, only: str) -> Trace:
        """Make a trace of the operations on files that match a pattern; see `make_trace`."""
        names, kind = _encode(self.kind)
        files, file = _encode(self.file)
        numbers = (np.array(column, dtype=np.int64) for column in (self.start, self.end, self.offset, self.size))
        return make_trace(path, only, names, kind, files, file, *numbers)


def _encode(words: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the distinct words, and for each word its index among them."""
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(word, len(numbers)) for word in words]
    return list(numbers), np.array(codes, dtype=np.int64)


def make_trace(
    path: Path,
    only: str,
    names: Sequence[str],
    kind: NDArray[np.int64],
    files: Sequence[str],
    file: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    offset: NDArray[np.int64],
    size: NDArray[np.int64],
) -> Trace:
    """Check the columns, drop failed operations and other files, and sort the rest by start time.

    Raises
    ------
    InputError : an operation ends before it starts, there are too many kinds, or no operation is left.

    """
    if len(names) > MOST_KINDS:
        raise InputError(
            f"more than {MOST_KINDS} kinds of operation", where=str(path), remedy="check that column 3 is the type"
        )
    backward = np.flatnonzero(end < start)
    if backward.size:
        raise InputError(f"operation {backward[0] + 1} ends before it starts", where=str(path))
    wanted = np.array([fnmatch.fnmatchcase(name, only) for name in files] + [only == "*"])
    keep = np.flatnonzero(wanted[file] & (size <= LARGEST))
    if not keep.size:
        raise InputError("the trace holds no operations", where=str(path), remedy="check the trace and --only")
    order = keep[np.argsort(start[keep], kind="stable")]
    merged = sorted({KINDS.get(name.lower(), name.lower()) for name in names})
    renamed = np.array([merged.index(KINDS.get(name.lower(), name.lower())) for name in names], dtype=np.int64)
    columns = (column[order] for column in (renamed[kind], start, end, offset, size, file))
    return Trace(tuple(merged), *columns)


def read_trace(path: Path, time_unit: str = "ns", only: str = "*") -> Trace:
    """Read a trace in any of the known formats.

    Parameters
    ----------
    path : a CSV file ``start,end,type[,offset,bytes,file]`` with or without these names as its first line, the output
        of ``strace -f -ttt -T -y``, or the output of ``darshan-dxt-parser``.
    time_unit : unit of the times of a CSV file.
    only : pattern of the paths to keep.

    Raises
    ------
    InputError : the file is missing, damaged, not a trace, or without operations on matching paths.

    """
    form = recognise(path)
    if form == "csv":
        return _read_csv(path, time_unit, only)
    if form not in ("strace", "dxt"):
        raise InputError("not an I/O trace", where=str(path), allowed=form)
    return read_lines(path, Strace() if form == "strace" else Dxt()).trace(path, only)


def read_lines(path: Path, reader: "Strace | Dxt") -> Events:
    """Read a trace line by line.

    Raises
    ------
    InputError : a line is not in the format of the trace.

    """
    with _open_text(path) as file:
        for number, line in enumerate(file, 1):
            reader.read_line(line, f"{path}, line {number}")
    return reader.events


def is_trace(path: Path) -> bool:
    """Whether a file looks like a trace."""
    return path.is_file() and recognise(path) in ("csv", "strace", "dxt")


def recognise(path: Path) -> str:
    """Return "csv", "strace" or "dxt" from the first lines; otherwise a text that says what is allowed."""
    try:
        with path.open("rb") as file:
            lines = file.read(HEAD).decode("utf-8", "replace").splitlines()
    except OSError as error:
        raise InputError.unreadable("trace", error, path) from None
    if any(line.startswith("# DXT,") for line in lines):
        return "dxt"
    if any(line.startswith("# darshan log version") for line in lines):
        return (
            "the output of darshan-dxt-parser, of a run with DXT_ENABLE_IO_TRACE=1 (counters alone hold no operations)"
        )
    if any(_STRACE.match(line) for line in lines[:50]):
        return "strace"
    if lines and _CSV.match(lines[0].strip().lower()):
        return "csv"
    return "CSV start,end,type[,offset,bytes,file]; output of strace -f -ttt -T -y or of darshan-dxt-parser"


def _open_text(path: Path) -> IO[str]:
    return path.open(encoding="utf-8", errors="replace")


# ---- CSV --------------------------------------------------------------------------------------------------------

_CSV = re.compile(r"(start,end,type\b|[\d.]+,[\d.]+,[a-z]\w*(,|$))")


def _read_csv(path: Path, time_unit: str, only: str) -> Trace:
    """Read a CSV trace; missing columns and empty fields are unknown."""
    table = _csv_table(path, time_unit)
    kind, file = (table[name].combine_chunks().dictionary_encode() for name in ("type", "file"))
    start, end = _nanoseconds(table, time_unit)
    numbers = (_to_int64(table[name], UNKNOWN) for name in ("offset", "bytes"))
    names = [str(name) for name in kind.dictionary.to_pylist()]
    files = [str(name) for name in file.dictionary.to_pylist()]
    codes = (_to_int64(kind.indices, 0), files, _to_int64(file.indices, UNKNOWN))
    return make_trace(path, only, names, *codes, start, end, *numbers)


def _csv_table(path: Path, time_unit: str) -> Any:
    """Read the columns with their types.

    Raises
    ------
    InputError : a line is not an operation.

    """
    import pyarrow as pa
    from pyarrow import csv as arrow

    with _open_text(path) as file:
        first = file.readline().strip().lower().split(",")
    header = first if first[:3] == list(COLUMNS[:3]) else list(COLUMNS[: len(first)])
    time = pa.int64() if time_unit == "ns" else pa.float64()
    types = dict(zip(COLUMNS, (time, time, pa.string(), pa.int64(), pa.int64(), pa.string()), strict=True))
    reading = arrow.ReadOptions(column_names=header, skip_rows=int(first[:3] == list(COLUMNS[:3])), use_threads=False)
    converting = arrow.ConvertOptions(
        column_types=types, include_columns=list(COLUMNS), include_missing_columns=True, strings_can_be_null=True,
        null_values=[""],
    )  # fmt: skip
    try:
        table = arrow.read_csv(path, read_options=reading, convert_options=converting)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"damaged CSV trace: {error}", where=str(path), allowed=",".join(COLUMNS)) from None
    if any(table[name].null_count for name in COLUMNS[:3]):
        raise InputError("a line has no start, end or type", where=str(path), allowed=",".join(COLUMNS))
    return table


def _nanoseconds(table: Any, unit: str) -> list[NDArray[np.int64]]:
    """Return start and end in ns; fractions count from the first start, to keep their digits."""
    columns = [table[name].to_numpy() for name in ("start", "end")]
    if unit == "ns":
        return [column.astype(np.int64) for column in columns]
    zero = columns[0].min(initial=np.inf)
    return [np.rint((column - zero) * NANOSECONDS[unit]).astype(np.int64) for column in columns]


def _to_int64(column: Any, missing: int) -> NDArray[np.int64]:
    """Convert a column to int64, with `missing` for empty fields."""
    values: NDArray[np.int64] = column.fill_null(missing).to_numpy().astype(np.int64)
    return values


# ---- strace -----------------------------------------------------------------------------------------------------

_STRACE = re.compile(r"(?:(?:\[pid +)?(\d+)\]? +)?(\d{9,}\.\d+) (.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(?:<(.*?)>)?.*?(?: <(\d+\.\d+)>)?$")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_DESCRIPTOR = re.compile(r"(\d+)<(/.*?)>")
_FORKS = ("clone", "clone3", "fork", "vfork")
_OFFSETS = ("pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2")
CALLS = (*(name for name in KINDS if name not in ("pread", "pwrite", "bior", "biow")), "lseek", *_FORKS)
"""System calls that a recording needs."""


class Descriptors:
    """Which threads share file descriptors, and the position in each file; collects the operations."""

    def __init__(self) -> None:
        self.events = Events()
        self._owner: dict[str, str] = {}
        self._position: dict[tuple[str, str, str], int] = {}

    def owner(self, process: str) -> str:
        """Return the process or thread whose descriptors a process uses."""
        return self._owner.get(process, process)

    def note_call(
        self, process: str, name: str, times: tuple[int, int], of: tuple[str, str], result: int, offset: int
    ) -> None:
        """Note a successful open, transfer or seek, and the new position in the file.

        Parameters
        ----------
        process : the process that made the call.
        name : name of the call.
        times : start and end in ns.
        of : descriptor and path.
        result : bytes transferred, or the position after a seek.
        offset : offset of the calls in `_OFFSETS`.

        """
        key, kind = (self.owner(process), *of), KINDS.get(name)
        if name == "lseek":
            self._position[key] = result
        elif kind == "open":
            self._position[key] = 0
            self.events.add(*times, kind, UNKNOWN, UNKNOWN, of[1])
        elif kind and name in _OFFSETS:
            self.events.add(*times, kind, offset, result, of[1])
        elif kind:
            at = self._position.get(key, 0)
            self._position[key] = at + result
            self.events.add(*times, kind, at, result, of[1])

    def fork(self, parent: str, child: str, shares: bool) -> None:
        """Let a thread share its parent's descriptors, or give a process copies at the same positions."""
        owner = self.owner(parent)
        if shares:
            self._owner[child] = owner
            return
        self._owner.pop(child, None)
        copies = {(child, fd, path): at for (of, fd, path), at in self._position.items() if of == owner}
        self._position.update(copies)


class Strace(Descriptors):
    """Reader of strace output; also keeps the calls that have not finished."""

    def __init__(self) -> None:
        super().__init__()
        self._unfinished: dict[str, tuple[str, str]] = {}

    def read_line(self, line: str, where: str) -> None:
        """Read one line of the output.

        Raises
        ------
        InputError : the line has no time, or is not from strace.

        """
        match = _STRACE.match(line)
        if match is None:
            if line.startswith(("strace: ", "\n")):
                return
            raise InputError("not a line of strace -f -ttt -T -y output", where=where)
        process, time, text = match[1] or "", match[2], match[3]
        if text.endswith("<unfinished ...>"):
            self._unfinished[process] = (time, text.removesuffix("<unfinished ...>"))
            return
        resumed = _RESUMED.match(text)
        if resumed:
            time, head = self._unfinished.pop(process, (time, resumed[1] + "("))
            text = head + resumed[2]
        call = _CALL.match(text)
        if call:
            self._finish_call(process, time, call)

    def _finish_call(self, process: str, time: str, call: re.Match[str]) -> None:
        """Note a finished call if it succeeded."""
        name, arguments, result = call[1], call[2], int(call[3])
        if result < 0:
            return
        if name in _FORKS:
            self.fork(process, str(result), "CLONE_FILES" in arguments or name == "vfork")
        elif KINDS.get(name) == "open":
            self._note_transfer(process, time, call, (call[3], call[4] or ""))
        elif descriptor := _DESCRIPTOR.match(arguments):
            self._note_transfer(process, time, call, (descriptor[1], descriptor[2]))

    def _note_transfer(self, process: str, time: str, call: re.Match[str], of: tuple[str, str]) -> None:
        """Note what a call did to a file, unless it is one of `NO_FILES`."""
        if not of[1].startswith("/") or of[1].startswith(NO_FILES):
            return
        start = _seconds(time)
        times = (start, start + _seconds(call[5] or "0"))
        offset = int(_find_offset(call[2], call[1])) if call[1] in _OFFSETS else 0
        self.note_call(process, call[1], times, of, int(call[3]), offset)


def _find_offset(arguments: str, name: str) -> str:
    """Return the offset argument of a call: the last one, or the one before the flags."""
    words = arguments.rsplit(", ", 2)
    return words[-2] if name.endswith("v2") else words[-1]


def _seconds(text: str) -> int:
    """Convert a decimal number of seconds to nanoseconds, exactly."""
    whole, _, fraction = text.partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0")[:9] or 0)


# ---- Darshan ----------------------------------------------------------------------------------------------------

_DXT_FILE = re.compile(r"# DXT, file_id: \d+, file_name: (.*)")
_DXT_ROW = re.compile(r" *(X_\w+) +-?\d+ +(read|write) +\d+ +(\d+) +(\d+) +([\d.]+) +([\d.]+)")


class Dxt:
    """Reader of ``darshan-dxt-parser`` output. MPI-IO's rows are left out: POSIX's repeat them."""

    def __init__(self) -> None:
        self.events = Events()
        self._file = ""

    def read_line(self, line: str, where: str) -> None:
        """Read one line of the output.

        Raises
        ------
        InputError : a row is not an operation.

        """
        header = _DXT_FILE.match(line)
        if header:
            self._file = header[1].strip()
        if line.startswith("#") or not line.strip():
            return
        row = _DXT_ROW.match(line)
        if row is None:
            raise InputError("not a row of darshan-dxt-parser output", where=where)
        if row[1] != "X_MPIIO":
            times = (_seconds(row[5]), _seconds(row[6]))
            self.events.add(*times, row[2], int(row[3]), int(row[4]), self._file)
