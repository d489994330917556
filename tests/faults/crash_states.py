"""States that a power cut can leave of a run, each opened, resumed and compared.

Usage: crash_states.py [--states N] [--seed S] [--kind KIND] [--only NUMBER]; test_crash_states.py tries fewer.

A small run is traced by strace: every write, sync, rename and change of a size. A state is what the disk holds if the
power fails at some operation. Names and sizes reach the disk in their order (as with the journals of ext4 and XFS), at
least up to the last sync of that file or folder. Bytes that were not synced reach it or not, in any order and in part,
by sectors of 512 bytes. The journal may be ahead of the data, or behind.

Each state has a number, from which it is made again: dice with the seed, the kind and the number choose it.
"""

import argparse
import dataclasses
import hashlib
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from scimill import config as configuration
from scimill.bench.generate import generate
from scimill.bench.params import BenchGenerateConfig
from scimill.config import Layer
from scimill.errors import ScimillError
from scimill.parallel.world import Stop, World
from scimill.store.blocks import run_blocks
from scimill.store.layout import Field, Layout, Table
from scimill.store.output import Output
from scimill.store.provenance import Provenance
from scimill.store.verify import verify
from scimill.store.writer import BlockData, open_writer

ALONE = World(None)
SECTOR = 512  # bytes that a disk writes whole or not at all
BLOCKS, BLOCK_ROWS = 20, 300
NAME = "out"


# ---- the runs ---------------------------------------------------------------------------------------------------


def fill_store(folder: Path, *, table: bool) -> None:
    """Make or resume a store of which all bytes are known."""
    fields = tuple(Field(name, "float32", "1", "numbers") for name in ("a", "b"))
    tables = (Table("found", 40, (Field("number", "int32", "1", "numbers"),)),) if table else ()
    layout = Layout(BLOCKS * BLOCK_ROWS, BLOCK_ROWS, fields, tables)
    output = Output(folder / NAME, resume=True)
    stop = Stop(ALONE)
    writer = open_writer(ALONE, output, layout, Provenance("test", 1, "known: bytes", 0), lambda _: "", stop)
    if writer is not None:
        run_blocks(ALONE, writer, partial(block, table=table), stop, what="fill", unit="rows")
    stop.restore()


def block(number: int, *, table: bool) -> BlockData:
    """Return the content of a block of the store."""
    dice = np.random.default_rng(number)
    rows = {name: dice.random(BLOCK_ROWS, dtype=np.float32) for name in ("a", "b")}
    found = {"found": {"number": np.arange(1, 1 + number % 40, dtype=np.int32)}} if table else {}
    return BlockData(rows, found)


def fill_dataset(folder: Path) -> None:
    """Make or resume a dataset of several files."""
    values = {"workload": "dlrm", "format": "npz", "size": "700KB", "block_size": 1 << 16, "direct": False}
    config = configuration.build(BenchGenerateConfig, [Layer("test", values)])
    generate(config, Output(folder / NAME, resume=True), ALONE)


KINDS: dict[str, Callable[[Path], None]] = {
    "store": partial(fill_store, table=False),
    "table": partial(fill_store, table=True),
    "dataset": fill_dataset,
}
VARYING = re.compile(rb'"(date|host|manifest_crc32c)": ("[^"]*"|\d+)')


def content(folder: Path) -> str:
    """Return a digest of what is finished in a folder, but for its date and the times of blocks."""
    digest = hashlib.sha256()
    path = folder / NAME
    if path.is_file():
        import h5py

        with h5py.File(path, "r", locking=False) as file:
            digest.update(file["blocks"]["crc32c"].tobytes())
            for name in ("a", "b", *(["found/number"] if "found" in file else [])):
                digest.update(file[name][:].tobytes())
        return digest.hexdigest()
    for file in sorted(file for file in path.rglob("*") if file.is_file() and file.name != "run.json"):
        digest.update(str(file.relative_to(path)).encode() + VARYING.sub(b"", file.read_bytes()))
    return digest.hexdigest()


# ---- what was done ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Operation:
    """One change of the file system; `inode` is the number of the file, in the order of creation."""

    kind: str
    """make, folder, write, size, move, remove, sync"""
    inode: int = 0
    name: str = ""
    target: str = ""
    offset: int = 0
    data: bytes = b""


CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)(.*)$")
ARGUMENT = re.compile(r'\s*(?:"((?:\\x[0-9a-f]{2})*)"|([^,"]+))')
CALLS = (
    "openat,write,pwrite64,lseek,ftruncate,truncate,fallocate,rename,unlink,unlinkat,rmdir,mkdir,fsync,fdatasync,close"
)


def record(kind: str, folder: Path) -> list[Operation]:
    """Run one of the kinds under strace; return what it changed below a folder."""
    log = folder.with_suffix(".strace")
    strace = ["strace", "-f", "-y", "-xx", "-s", str(1 << 24), "-e", f"trace={CALLS}", "-e", "signal=none", "-o", log]
    program = [sys.executable, __file__, "--fill", kind, "--folder", folder]
    subprocess.run([*strace, *program], check=True)
    return list(Recording(folder).operations(log))


class Recording:
    """Translates the lines of strace into operations below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._inodes: dict[str, int] = {}
        self._made = 0
        self._places: dict[int, int] = {}

    def operations(self, log: Path) -> Iterator[Operation]:
        """Yield the operations of a trace."""
        for line in log.read_text().splitlines():
            found = CALL.match(line)
            if found and int(found[3]) >= 0:
                yield from self._translate(found[1], _arguments(found[2]), int(found[3]), found[4])

    def _name(self, path: str) -> str | None:
        """Return a path's name below the folder; None if it is elsewhere."""
        return path[len(self._folder) + 1 :] if path.startswith(self._folder + "/") else None

    def _translate(self, call: str, words: list[str], result: int, rest: str) -> Iterator[Operation]:
        if call == "openat":
            name = self._name(words[1])
            self._places[result] = 0
            if name is not None and "O_CREAT" in words[2] and name not in self._inodes:
                yield self._make(name)
            return
        if call in ("rename", "unlink", "rmdir", "mkdir", "unlinkat", "truncate"):
            yield from self._by_name(call, words)
            return
        number, _, path = words[0].partition("<")
        name = self._name(path.rstrip(">"))
        if call == "lseek":
            self._places[int(number)] = result
        if call == "close":
            self._places.pop(int(number), None)
        if name is not None and name in self._inodes:
            yield from self._by_descriptor(call, int(number), self._inodes[name], words, result)
        elif call in ("fsync", "fdatasync") and path.rstrip(">").startswith(self._folder):
            yield Operation("sync", -1)

    def _make(self, name: str, kind: str = "make") -> Operation:
        self._made += 1
        self._inodes[name] = self._made
        return Operation(kind, self._made, name)

    def _by_name(self, call: str, words: list[str]) -> Iterator[Operation]:
        names = [self._name(word) for word in (words[1:] if call == "unlinkat" else words)]
        name = names[0]
        if name is None:
            return
        if call == "mkdir":
            yield self._make(name, "folder")
        elif call == "truncate":
            yield Operation("size", self._inodes[name], offset=int(words[1]))
        elif call == "rename":
            target = names[1]
            assert target is not None
            for old in [old for old in self._inodes if old == name or old.startswith(name + "/")]:
                self._inodes[target + old[len(name) :]] = self._inodes.pop(old)
            yield Operation("move", name=name, target=target)
        else:
            self._inodes.pop(name, None)
            yield Operation("remove", name=name)

    def _by_descriptor(self, call: str, number: int, inode: int, words: list[str], result: int) -> Iterator[Operation]:
        if call in ("write", "pwrite64"):
            data = words[1].encode("latin-1")[:result]
            offset = int(words[3]) if call == "pwrite64" else self._places.get(number, 0)
            if call == "write":
                self._places[number] = offset + result
            yield Operation("write", inode, offset=offset, data=data)
        elif call == "ftruncate":
            yield Operation("size", inode, offset=int(words[1]))
        elif call == "fallocate":
            yield Operation("grow", inode, offset=int(words[2]) + int(words[3]))
        elif call in ("fsync", "fdatasync"):
            yield Operation("sync", inode)


def _arguments(text: str) -> list[str]:
    """Split the arguments of a call; strings become their bytes, as characters."""
    words = []
    for quoted, plain in ARGUMENT.findall(text):
        if quoted or not plain.strip():
            words.append(bytes.fromhex(quoted.replace("\\x", "")).decode("latin-1"))
        else:
            words.append(_unquote_descriptor(plain.strip()))
    return words


def _unquote_descriptor(word: str) -> str:
    """Translate the path in ``3</path>``, which strace also writes in hexadecimal."""
    return re.sub(
        r"(?:\\x[0-9a-f]{2})+", lambda found: bytes.fromhex(found[0].replace("\\x", "")).decode("latin-1"), word
    )


# ---- what a power cut leaves ------------------------------------------------------------------------------------

NAMING = ("make", "folder", "size", "grow", "move", "remove")


@dataclasses.dataclass
class File:
    """A file as the disk holds it."""

    data: bytearray = dataclasses.field(default_factory=bytearray)

    def resize(self, size: int) -> None:
        """Cut the file, or lengthen it by zeros."""
        del self.data[size:]
        self.data.extend(bytes(max(0, size - len(self.data))))

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes."""
        self.resize(max(len(self.data), offset + len(data)))
        self.data[offset : offset + len(data)] = data


def choose_state(operations: list[Operation], dice: random.Random) -> dict[str, bytes | None]:
    """Return the names that a power cut at a random operation leaves, with their bytes; None for a folder."""
    cut = dice.randint(0, len(operations))
    synced: dict[int, int] = {}
    for number, operation in enumerate(operations[:cut]):
        if operation.kind == "sync":
            synced[operation.inode] = number
    journal = dice.choice([cut, dice.randint(max(synced.values(), default=0), cut)])
    keeps = _keeper(dice)
    files: dict[int, File] = {}
    names: dict[str, int | None] = {}
    for number, operation in enumerate(operations[:cut]):
        if operation.kind in NAMING and number < journal:
            _rename(operation, files, names)
        elif operation.kind == "write" and operation.inode in files:
            is_durable = number < synced.get(operation.inode, -1)
            for offset, data in [(operation.offset, operation.data)] if is_durable else keeps(operation):
                files[operation.inode].write(offset, data)
    return {name: None if inode is None else bytes(files[inode].data) for name, inode in names.items()}


def _rename(operation: Operation, files: dict[int, File], names: dict[str, int | None]) -> None:
    """Apply a change of names or sizes."""
    if operation.kind == "make":
        files[operation.inode], names[operation.name] = File(), operation.inode
    elif operation.kind == "folder":
        names[operation.name] = None
    elif operation.kind == "size":
        files[operation.inode].resize(operation.offset)
    elif operation.kind == "grow":
        files[operation.inode].resize(max(operation.offset, len(files[operation.inode].data)))
    elif operation.kind == "remove":
        names.pop(operation.name, None)
    else:
        for old in [old for old in names if old == operation.name or old.startswith(operation.name + "/")]:
            names[operation.target + old[len(operation.name) :]] = names.pop(old)


def _keeper(dice: random.Random) -> Callable[[Operation], list[tuple[int, bytes]]]:
    """Return which parts of a write that was not synced reach the disk: all, none, some writes, some sectors."""
    share = dice.choice([0.0, 1.0, 0.5, 0.1, 0.9])
    torn = dice.random() < 0.5

    def keeps(operation: Operation) -> list[tuple[int, bytes]]:
        if not torn:
            return [(operation.offset, operation.data)] if dice.random() < share else []
        return [piece for piece in _sectors(operation) if dice.random() < share]

    return keeps


def _sectors(operation: Operation) -> Iterator[tuple[int, bytes]]:
    """Divide a write at the boundaries of sectors."""
    place, end = operation.offset, operation.offset + len(operation.data)
    while place < end:
        stop = min(end, (place // SECTOR + 1) * SECTOR)
        yield place, operation.data[place - operation.offset : stop - operation.offset]
        place = stop


# ---- trying a state ---------------------------------------------------------------------------------------------


def lay(state: dict[str, bytes | None], folder: Path) -> None:
    """Make the files of a state."""
    for name, data in sorted(state.items()):
        path = folder / name
        if data is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def complain(kind: str, state: dict[str, bytes | None], folder: Path, expected: str) -> str:
    """Resume from a state; return what is wrong, if anything."""
    lay(state, folder)
    if (folder / NAME).exists() and (complaint := _published(kind, folder, expected)):
        return complaint
    try:
        KINDS[kind](folder)
    except ScimillError as error:
        return f"not resumed: {error}"
    if content(folder) != expected:
        return "other bytes after resuming"
    left = sorted(path.name for path in folder.iterdir() if path.name != NAME)
    return f"left behind: {', '.join(left)}" if set(left) - {f"{NAME}.lock"} else ""


def _published(kind: str, folder: Path, expected: str) -> str:
    """Return what is wrong with an output that has its final name."""
    if kind == "dataset":
        return "" if content(folder) == expected else "published too early"
    try:
        problems = verify(folder / NAME, ALONE).problems
    except ScimillError as error:
        problems = (str(error),)
    return f"published too early: {problems[0]}" if problems else ""


def try_states(kind: str, operations: list[Operation], expected: str, seed: int, numbers: range) -> "Outcome":
    """Try states by their numbers, each only once."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory(dir=scratch()) as place:
        for number in numbers:
            state = choose_state(operations, random.Random(f"{seed} {kind} {number}"))
            key = hashlib.sha256(repr(sorted(state.items())).encode()).digest()
            if key in outcome.seen:
                continue
            outcome.seen.add(key)
            folder = Path(place) / "case"
            folder.mkdir()
            if complaint := complain(kind, state, folder, expected):
                outcome.wrong.append(f"{kind} {number}: {complaint}")
            shutil.rmtree(folder)
    return outcome


@dataclasses.dataclass
class Outcome:
    """States tried, and the wrong ones."""

    seen: set[bytes] = dataclasses.field(default_factory=set)
    wrong: list[str] = dataclasses.field(default_factory=list)


def scratch() -> str | None:
    """Return a folder in memory, if there is one: a sync takes no time there."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


# ---- all states -------------------------------------------------------------------------------------------------


def run(kinds: list[str], states: int, seed: int, only: int | None = None, processes: int = 2) -> Outcome:
    """Record each kind and try its states; print a row for each."""
    whole = Outcome()
    for kind in kinds:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=scratch()) as place:
            folder = Path(place) / "run"
            folder.mkdir()
            operations, expected = record(kind, folder), content(folder)
        numbers = range(states) if only is None else range(only, only + 1)
        parts = [numbers[first::processes] for first in range(processes)]
        attempt = partial(try_states, kind, operations, expected, seed)
        if processes == 1:
            outcomes = [attempt(numbers)]
        else:
            with multiprocessing.get_context("fork").Pool(processes) as pool:
                outcomes = pool.map(attempt, parts)
        seen = set().union(*(outcome.seen for outcome in outcomes))
        wrong = [complaint for outcome in outcomes for complaint in outcome.wrong]
        seconds = time.monotonic() - started
        counts = Counter(operation.kind for operation in operations)
        done = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        print(f"{kind}: {len(seen):,} distinct states, {len(wrong)} wrong, {seconds:.0f} s ({done})", flush=True)
        print(*wrong[:20], sep="\n", end="\n" if wrong else "")
        whole.seen |= seen
        whole.wrong += wrong
    return whole


def main() -> int:
    """Try the states that the command line asks for; return 1 if any is wrong."""
    parser = argparse.ArgumentParser(description="Resume a run from states that a power cut can leave.")
    parser.add_argument("--states", type=int, default=40_000, help="number of states of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind of run")
    parser.add_argument("--only", type=int, help="only the state with this number")
    parser.add_argument("--fill", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        KINDS[options.fill](options.folder)
        return 0
    outcome = run(options.kind or list(KINDS), options.states, options.seed, options.only)
    print(f"{len(outcome.seen):,} distinct states, {len(outcome.wrong)} wrong")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
