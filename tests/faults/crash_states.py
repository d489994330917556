"""States that a power cut can leave of a run, each opened, resumed and compared.

Usage: crash_states.py [--states N] [--seed S] [--kind KIND] [--only NUMBER]; test_crash_states.py tries fewer.

A small run is traced by strace: every write, sync, rename and change of a size. A state is what the disk holds if the
power fails at some operation. Names and sizes reach the disk in their order (as with the journals of ext4 and XFS), at
least up to the last sync. Bytes that were not synced reach it or not, in any order and in part, by sectors of 512 bytes
or pages of 4096. Names and sizes may be ahead of the bytes, or behind.

Each state has a number, from which it is made again. First come the cuts after each operation, then in turn a cut that
loses one write, page or sector and a random cut; the seed, the kind and the number choose the random ones.
"""

import argparse
import dataclasses
import gc
import hashlib
import itertools
import mmap
import multiprocessing
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from scimill import claim
from scimill import config as configuration
from scimill.artifacts import find
from scimill.bench import generate
from scimill.bench.formats import catalogue
from scimill.bench.params import BenchGenerateConfig
from scimill.config import Layer
from scimill.errors import ScimillError
from scimill.parallel.world import Stop, World
from scimill.store import checksums
from scimill.store.blocks import run_blocks
from scimill.store.layout import Field, Layout, Table
from scimill.store.output import Output
from scimill.store.provenance import Provenance
from scimill.store.seal import read_seal
from scimill.store.writer import BlockData, open_writer

ALONE = World(None)
BLOCKS, BLOCK_ROWS = 20, 300
NAME = "out"
KINDS = ("store", "table", "dataset")


# ---- the runs ---------------------------------------------------------------------------------------------------


FIELDS = tuple(Field(name, "float32", "1", "numbers") for name in ("a", "b"))
FOUND = Table("found", 40, (Field("number", "int32", "1", "numbers"),))
LAYOUTS = {
    "store": Layout(BLOCKS * BLOCK_ROWS, BLOCK_ROWS, FIELDS),
    "table": Layout(BLOCKS * BLOCK_ROWS, BLOCK_ROWS, FIELDS, (FOUND,)),
}
DATASET = configuration.build(
    BenchGenerateConfig,
    [Layer("test", {"workload": "dlrm", "format": "npz", "size": "700KB", "block_size": 1 << 16, "direct": False})],
)


def fill(kind: str, folder: Path) -> None:
    """Make or resume an output of which all bytes are known."""
    output = Output(folder / NAME, resume=True)
    if kind == "dataset":
        generate.generate(DATASET, output, ALONE)
        return
    layout, stop = LAYOUTS[kind], Stop(ALONE)
    writer = open_writer(ALONE, output, layout, Provenance("test", 1, "known: bytes", 0), lambda _: "", stop)
    if writer is not None:
        run_blocks(ALONE, writer, partial(block, kind), stop, what="fill", unit="rows")
    stop.restore()


@cache
def block(kind: str, number: int) -> BlockData:
    """Return the content of a block of a store."""
    dice = np.random.default_rng(number)
    rows = {field.name: dice.random(BLOCK_ROWS, dtype=np.float32) for field in FIELDS}
    found = {"found": {"number": np.arange(1, 1 + number % 40, dtype=np.int32)}}
    return BlockData(rows, found if kind == "table" else {})


Content = dict[str, bytes]
"""The parts of a finished output by name, but for its date and the times of blocks."""
VARYING = re.compile(rb'"(date|host|manifest_crc32c)": ("[^"]*"|\d+)')


def content(kind: str, folder: Path) -> Content:
    """Return what a finished output holds."""
    path = folder / NAME
    if kind == "dataset":
        files = [f"{place}/{name}" for place, _, names in os.walk(path) for name in names if name != "run.json"]
        return {file[len(str(path)) :]: _without_times(file) for file in files}
    raw, ledger, parts = path.read_bytes(), LAYOUTS[kind].ledger_type, {}
    for offset, length in read_seal(path).extents:
        data = raw[offset : offset + length]
        is_ledger = length == BLOCKS * ledger.itemsize
        parts[f"byte {offset}"] = np.frombuffer(data, ledger)["crc32c"].tobytes() if is_ledger else data
    return parts


def _without_times(file: str) -> bytes:
    data = Path(file).read_bytes()
    return VARYING.sub(b"", data) if file.endswith(".json") else data


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
    folder.mkdir()
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
SECTOR, PAGE, WHOLE = 512, 4096, 1 << 62
"""Bytes that reach the disk together, if they are not synced: a sector, a page, all of a write."""


Effect = tuple[str, int, bytes]
"""What reached the disk of a file: size, grow or write; the offset; bytes."""


@lru_cache(maxsize=256)  # many states differ in one file
def contents(effects: tuple[Effect, ...]) -> bytes:
    """Return the bytes of a file."""
    data = bytearray()
    for kind, offset, written in effects:
        end = offset + len(written)
        data.extend(bytes(max(0, end - len(data))))
        if kind == "size":
            del data[offset:]
        data[offset:end] = written
    return bytes(data)


@dataclasses.dataclass(frozen=True)
class Cut:
    """A power cut."""

    at: int
    """number of operations that were done"""
    journal: int
    """names and sizes are those after so many operations"""
    keeps: Callable[[int, int, int], bool] = lambda *_: True
    """whether a unit of a write reaches the disk: number of the write, file, number of the unit in the file"""
    unit: int = WHOLE
    sized: bool = False
    """files have their sizes even if their bytes are lost"""


def leave(operations: list[Operation], cut: Cut) -> dict[str, bytes | None]:
    """Return the names that a power cut leaves, with their bytes; None for a folder."""
    synced = {operation.inode: n for n, operation in enumerate(operations[: cut.at]) if operation.kind == "sync"}
    files: dict[int, list[Effect]] = {}
    names: dict[str, int | None] = {}
    for number, operation in enumerate(operations[: cut.at]):
        if operation.kind in NAMING and number < cut.journal:
            _rename(operation, files, names)
        elif operation.kind == "write" and operation.inode in files:
            is_durable = number < synced.get(operation.inode, -1)
            if cut.sized and number < cut.journal:
                files[operation.inode].append(("grow", operation.offset + len(operation.data), b""))
            for offset, data in units(operation, WHOLE if is_durable else cut.unit):
                if is_durable or cut.keeps(number, operation.inode, offset // cut.unit):
                    files[operation.inode].append(("write", offset, data))
    return {name: None if inode is None else contents(tuple(files[inode])) for name, inode in names.items()}


def _rename(operation: Operation, files: dict[int, list[Effect]], names: dict[str, int | None]) -> None:
    """Apply a change of names or sizes."""
    if operation.kind == "make":
        files[operation.inode], names[operation.name] = [], operation.inode
    elif operation.kind == "folder":
        names[operation.name] = None
    elif operation.kind in ("size", "grow"):
        files[operation.inode].append((operation.kind, operation.offset, b""))
    elif operation.kind == "remove":
        names.pop(operation.name, None)
    else:
        for old in [old for old in names if old == operation.name or old.startswith(operation.name + "/")]:
            names[operation.target + old[len(operation.name) :]] = names.pop(old)


@cache
def units(operation: Operation, unit: int) -> list[tuple[int, bytes]]:
    """Divide a write into what reaches the disk together."""
    first, end = operation.offset, operation.offset + len(operation.data)
    places = [first, *range((first // unit + 1) * unit, end, unit), end]
    return [(start, operation.data[start - first : stop - first]) for start, stop in itertools.pairwise(places)]


class Cuts:
    """All power cuts of a run by number: after each operation, then with one part lost, then at random."""

    def __init__(self, operations: list[Operation], seed: str) -> None:
        self._operations, self._seed = operations, seed
        self._pending = [self._find_pending(at) for at in range(len(operations) + 1)]
        self._ends = list(self._after_each())
        self._losses = list(self._one_lost())
        random.Random(seed).shuffle(self._losses)

    def __getitem__(self, number: int) -> Cut:
        if number < len(self._ends):
            return self._ends[number]
        place, is_random = divmod(number - len(self._ends), 2)
        dice = random.Random(f"{self._seed} {number}")
        return self._at_random(dice) if is_random or place >= len(self._losses) else self._losses[place]

    def _find_pending(self, at: int) -> tuple[int, list[int]]:
        """Return the least number of operations in the journal, and the writes that were not synced."""
        synced = {operation.inode: n for n, operation in enumerate(self._operations[:at]) if operation.kind == "sync"}
        writes = [n for n, operation in enumerate(self._operations[:at]) if operation.kind == "write"]
        pending = [n for n in writes if n > synced.get(self._operations[n].inode, -1)]
        return max(synced.values(), default=-1) + 1, pending

    def _after_each(self) -> Iterator[Cut]:
        """Yield all prefixes, with names before and after bytes."""
        for at, (least, _) in enumerate(self._pending):
            yield Cut(at, at)
            yield from (Cut(at, at, lambda *_: False, sized=sized) for sized in (False, True))
            yield from (Cut(at, journal) for journal in range(least, at) if self._operations[journal].kind in NAMING)

    def _one_lost(self) -> Iterator[Cut]:
        """Yield all cuts that lose one write, one page or one sector."""
        for at, (_, pending) in enumerate(self._pending):
            for lost in pending:
                yield Cut(at, at, partial(_keep_all_but, lost, None))
            if pending and pending[-1] == at - 1:
                last = self._operations[at - 1]
                for unit in (SECTOR, PAGE):
                    for offset, _ in units(last, unit):
                        yield Cut(at, at, partial(_keep_all_but, at - 1, offset // unit), unit)

    def _at_random(self, dice: random.Random) -> Cut:
        """Choose a cut while bytes are not synced: any of them are lost, or each part is as it was at some instant."""
        weights = [len(pending) for _, pending in self._pending]
        (at,) = dice.choices(range(len(weights)), weights)
        least = self._pending[at][0]
        journal = dice.choice([at, dice.randint(least, at)])
        unit, share = dice.choice([SECTOR, PAGE, WHOLE]), dice.choice([0.1, 0.5, 0.9])
        instants: dict[tuple[int, int], int] = {}

        def is_early(number: int, inode: int, place: int) -> bool:
            return number < instants.setdefault((inode, place), least + int(dice.random() * (at + 1 - least)))

        keeps = dice.choice([is_early, lambda *_: dice.random() < share])
        return Cut(at, journal, keeps, unit, sized=dice.random() < 0.5)


def _keep_all_but(lost: int, lost_place: int | None, number: int, _: int, place: int) -> bool:
    return number != lost or lost_place not in (None, place)


# ---- trying a state ---------------------------------------------------------------------------------------------


def lay(state: dict[str, bytes | None], folder: Path) -> None:
    """Make the files of a state."""
    folder.mkdir(parents=True)
    for name, data in sorted(state.items()):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if data is None:
            path.mkdir()
        else:
            path.write_bytes(data)


def complain(kind: str, folder: Path, expected: Content) -> str:
    """Resume what is in a folder; return what is wrong, if anything.

    A block that is marked as done and has its checksum, but is wrong, would give other bytes: resuming keeps it.
    """
    if (folder / NAME).exists() and (complaint := _published(kind, folder, expected)):
        return complaint
    try:
        fill(kind, folder)
    except ScimillError as error:
        return f"not resumed: {error}"
    if content(kind, folder) != expected:
        return "other bytes after resuming"
    left = sorted(path.name for path in folder.iterdir() if path.name != NAME)
    return f"left behind: {', '.join(left)}" if set(left) - {f"{NAME}.lock"} else ""


def _published(kind: str, folder: Path, expected: Content) -> str:
    """Return what is wrong with an output that has its final name."""
    try:
        problems = find(folder / NAME).verify(ALONE).problems
    except ScimillError as error:
        problems = (str(error),)
    if problems or content(kind, folder) != expected:
        return f"published too early: {(*problems, 'other bytes')[0]}"
    return ""


class Trial:
    """Tries the states of one kind in a process of its own, each only once."""

    of_process: ClassVar["Trial"]

    def __init__(self, kind: str, operations: list[Operation], expected: Content, seed: int, place: Path) -> None:
        self._kind, self._operations, self._expected, self._place = kind, operations, expected, place
        self._cuts = Cuts(operations, f"{seed} {kind}")
        self._tried = Tried()

    def start(self) -> None:
        """Prepare the process: what is the same for all states is computed once, and nothing is printed."""
        Trial.of_process = self
        gc.freeze()
        gc.set_threshold(50_000)  # a state leaves little to collect
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        for module, name in REPEATED:
            setattr(module, name, remember(getattr(module, name)))

    def __call__(self, number: int) -> tuple[bytes, str]:
        """Try a state; return its digest, and what is wrong."""
        state = leave(self._operations, self._cuts[number])
        digest = digest_of(state)
        if not self._tried.add(digest):
            return digest, ""
        place = self._place / str(os.getpid())
        lay(state, place)
        complaint = complain(self._kind, place, self._expected)
        shutil.rmtree(place)
        return digest, complaint and f"{self._kind} {number}: {complaint}"


class Tried:
    """Digests of the states that any of the processes forked from this one has tried.

    Two processes that add a digest at the same instant both try its state: that costs time, nothing else.
    """

    PLACES = 1 << 22

    def __init__(self) -> None:
        self._keys = np.frombuffer(mmap.mmap(-1, 8 * self.PLACES), np.uint64)  # this memory is shared

    def add(self, digest: bytes) -> bool:
        """Add a digest; return whether it is new."""
        key = np.uint64(int.from_bytes(digest[:8], "little") | 1)  # 0 is a free place
        place = int(key) % self.PLACES
        while (found := self._keys[place]) not in (0, key):
            place = (place + 1) % self.PLACES
        self._keys[place] = key
        return bool(found == 0)


def remember(function: Callable[..., object]) -> Callable[..., object]:
    """Let a function without side effects compute its result once for all calls with equal arguments."""
    results: dict[object, tuple[object, object]] = {}

    def remembering(*args: object) -> object:
        key = tuple(arg if isinstance(arg, str | int | Path) else id(arg) for arg in args)
        if key not in results:
            results[key] = args, function(*args)  # the arguments too, so that no other object gets their place
        return results[key][1]

    return remembering


REPEATED = (
    (configuration, "parse_yaml"), (configuration, "to_yaml"), (catalogue, "make_plan"), (generate, "compile_kernels"),
    (claim, "local_locks"), (claim, "_start_of"), (checksums, "_product"),
)  # fmt: skip


def try_state(number: int) -> tuple[bytes, str]:
    """Try a state in a process that `Trial.start` prepared."""
    return Trial.of_process(number)


def digest_of(state: dict[str, bytes | None]) -> bytes:
    """Return what tells a state from others."""
    digest = hashlib.sha256()
    for name, data in sorted(state.items()):
        digest.update(name.encode() + (b" folder " if data is None else _digest(data)))
    return digest.digest()


@lru_cache(maxsize=256)
def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def scratch() -> str | None:
    """Return a folder in memory, if there is one: a sync takes no time there."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


# ---- all states -------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Outcome:
    """States tried, and the wrong ones."""

    seen: set[bytes] = dataclasses.field(default_factory=set)
    wrong: list[str] = dataclasses.field(default_factory=list)


def run(kind: str, states: int, seed: int, only: int | None = None, processes: int = 2) -> Outcome:
    """Record a run of a kind and try so many different states; print a row."""
    started, cpu = time.monotonic(), cpu_seconds()
    outcome, tried = Outcome(), 0
    with tempfile.TemporaryDirectory(dir=scratch()) as place:
        operations, expected = record(kind, Path(place) / "run"), content(kind, Path(place) / "run")
        start = Trial(kind, operations, expected, seed, Path(place)).start
        with multiprocessing.get_context("fork").Pool(processes, start) as pool:
            while len(outcome.seen) < (states if only is None else 1):
                numbers = range(tried, tried + states - len(outcome.seen)) if only is None else [only]
                for digest, complaint in pool.imap_unordered(try_state, numbers, chunksize=1 + len(numbers) // 1000):
                    outcome.seen.add(digest)
                    outcome.wrong += [complaint] if complaint else []
                tried += len(numbers)
            pool.close()
            pool.join()
    counts = Counter(operation.kind for operation in operations)
    print(
        f"{kind}: {len(outcome.seen):,} distinct states, {len(outcome.wrong)} wrong; {tried:,} tried in"
        f" {time.monotonic() - started:.0f} s, {cpu_seconds() - cpu:.0f} s of processors"
        f" ({', '.join(f'{count} {name}' for name, count in sorted(counts.items()))})",
        *outcome.wrong[:20], sep="\n", flush=True,
    )  # fmt: skip
    return outcome


def cpu_seconds() -> float:
    """Return the processor time of this process and of those that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main() -> int:
    """Try the states that the command line asks for; return 1 if any is wrong."""
    parser = argparse.ArgumentParser(description="Resume a run from states that a power cut can leave.")
    parser.add_argument("--states", type=int, default=34_000, help="number of states of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind of run")
    parser.add_argument("--only", type=int, help="only the state with this number")
    parser.add_argument("--fill", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        fill(options.fill, options.folder)
        return 0
    outcomes = [run(kind, options.states, options.seed, options.only) for kind in options.kind or KINDS]
    seen, wrong = (sum(len(getattr(outcome, name)) for outcome in outcomes) for name in ("seen", "wrong"))
    print(f"{seen:,} distinct states, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
