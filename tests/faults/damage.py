"""Damage finished artifacts of each kind at random: `verify` must find it, `repair` must restore what was generated.

Usage: damage.py [--cases N] [--repairs N] [--seed S] [--kind KIND] [--only NUMBER]; test_damage.py tries fewer.

A case flips a bit, cuts or lengthens a file, or exchanges two pages or words of it; seed, kind and number choose it.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import bench_sets
from mpi import succeed
from scimill.artifacts import find, find_to_repair
from scimill.errors import ScimillError
from scimill.parallel.world import World

ALONE = World(None)
PAGE, HEADER = 4096, 512  # bytes
Files = dict[str, bytes]
NOT_COVERED = "tensorboard/"
"""TensorBoard appends to its files as it likes; metrics.csv has the same numbers."""


# ---- artifacts --------------------------------------------------------------------------------------------------


def make_store(path: Path, *more: object) -> None:
    """Generate 500 droplets."""
    succeed("droplets", "generate", path, "--count", 500, "--block-size", 100, "--tolerance", 1e-4, *more)


def make_run(path: Path) -> None:
    """Train on droplets."""
    store = path.with_name("store.h5")
    make_store(store)
    small = ("--epochs", 2, "--hidden", 8, "--batch-size", 64, "--threads", 1)
    succeed("droplets", "train", store, "--output", path, *small)
    store.unlink()


def make_database(path: Path) -> None:
    """Fill a database with structures, compress them, and choose half of them."""
    from atoms_data import fill, opened

    with opened(path) as database:
        fill(database, 100)
        database.compress_dataset()
        database.create_reduction("half", fraction=0.5)


KINDS: dict[str, Callable[[Path], None]] = {
    "store": make_store,
    "store without table": lambda path: make_store(path, "--keep-weird"),
    **{
        f"dataset {kind}": partial(bench_sets.make, kind=kind, size=size, block_size=1 << 16)
        for kind, size in bench_sets.SMALLEST.items()
    },
    "training run": make_run,
    "database": make_database,
}
GENERATED = [kind for kind in KINDS if kind.startswith(("store", "dataset"))]


def read(path: Path) -> Files:
    """Read the files of an artifact by their names below it."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def restore(path: Path, files: Files) -> None:
    """Write all files of an artifact again."""
    for place in (path, path.with_name(path.name + ".part")):
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


# ---- damages ----------------------------------------------------------------------------------------------------


def flip(data: bytearray, dice: random.Random, end: int | None = None) -> str:
    """Flip a bit."""
    place, bit = dice.randrange(min(end or len(data), len(data))), dice.randrange(8)
    data[place] ^= 1 << bit
    return f"bit {bit} of byte {place:,}"


def flip_header(data: bytearray, dice: random.Random) -> str:
    """Flip a bit near the start."""
    return flip(data, dice, HEADER)


def cut(data: bytearray, dice: random.Random) -> str:
    """Cut the file."""
    length = dice.randrange(len(data))
    del data[length:]
    return f"cut to {length:,} bytes"


def lengthen(data: bytearray, dice: random.Random) -> str:
    """Append random bytes or zeros."""
    count = dice.randint(1, 10_000)
    data += dice.choice([dice.randbytes(count), bytes(count)])
    return f"{count:,} bytes more"


def exchange(data: bytearray, dice: random.Random) -> str:
    """Exchange two different pages, or two words, so that every byte still is a written one."""
    size = PAGE if len(data) >= 2 * PAGE and dice.random() < 0.5 else 4
    for _ in range(1000):
        a, b = (size * dice.randrange(max(1, len(data) // size)) for _ in range(2))
        if data[a : a + size] != data[b : b + size]:
            data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
            return f"{size} bytes at {a:,} and {b:,} exchanged"
    return flip(data, dice)


DAMAGES = (flip, flip_header, cut, lengthen, exchange)


@dataclass
class Result:
    """Outcome of the cases of a kind."""

    found: int = 0
    missed: list[str] = field(default_factory=list)
    restored: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


def findings(path: Path) -> tuple[str, ...]:
    """Return the problems that verify finds."""
    try:
        return find(path).verify(ALONE).problems
    except ScimillError as error:
        return (str(error),)


def try_cases(kind: str, cases: list[int], repairs: int, seed: int, folder: Path) -> Result:
    """Make an artifact, damage it again and again, and repair it the first times."""
    path, result = folder / "artifact.h5" if kind.startswith("store") else folder / "artifact", Result()
    KINDS[kind](path)
    assert findings(path) == ()
    files = read(path)
    for number in cases:
        dice = random.Random(f"{seed} {kind} {number}")
        name = dice.choice([name for name in sorted(files) if files[name] and not name.startswith(NOT_COVERED)])
        data = bytearray(files[name])
        described = f"{kind} {number}: {name}: {dice.choice(DAMAGES)(data, dice)}"
        (path / name).write_bytes(data)
        if findings(path):
            result.found += 1
        else:
            result.missed.append(described)
        if repairs > 0 and kind in GENERATED:
            repairs -= 1
            _repair(path, files, described, result)
            restore(path, files)
        else:
            (path / name).write_bytes(files[name])
    return result


def _repair(path: Path, files: Files, described: str, result: Result) -> None:
    """Repair an artifact; what is refused must be left as it was."""
    damaged = read(path)
    try:
        find_to_repair(path).repair(ALONE)
    except ScimillError as error:
        result.refused += 1
        if read(path) != damaged:
            result.wrong.append(f"{described}: changed, although refused: {error}")
        return
    result.restored += 1
    if without_times(path, read(path)) != without_times(path, files) or findings(path):
        result.wrong.append(f"{described}: other bytes after the repair")


def without_times(path: Path, files: Files) -> Files:
    """Return the bytes of an artifact but for the times of a store's blocks."""
    from scimill.store.reader import Reader

    if not path.is_file():
        return files
    with Reader.open(path) as reader:
        offset, kind, count = reader.file["blocks"].id.get_offset(), reader.layout.ledger_type, reader.layout.blocks
    import numpy as np

    data = bytearray(files["."])
    rows = np.frombuffer(data, kind, count, offset)
    rows["seconds"] = rows["row_crc32c"] = 0
    return {".": bytes(data)}


def main() -> int:
    """Try all cases; return 1 if damage was missed or badly repaired."""
    parser = argparse.ArgumentParser(description="Damage artifacts, verify them and repair them.")
    parser.add_argument("--cases", type=int, default=500, help="number of cases of each kind")
    parser.add_argument("--repairs", type=int, default=50, help="number of repairs of each generated kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind")
    parser.add_argument("--only", type=int, help="only the case with this number")
    options = parser.parse_args()
    print(f"{'kind':<20} {'cases':>6} {'found':>6} {'repaired':>9} {'refused':>8} {'wrong':>6} {'s':>5}")
    bad: Counter[str] = Counter()
    for kind in options.kind or KINDS:
        started = time.process_time()
        cases = list(range(options.cases)) if options.only is None else [options.only]
        with tempfile.TemporaryDirectory() as place:
            result = try_cases(kind, cases, options.repairs, options.seed, Path(place))
        row = f"{kind:<20} {len(cases):>6} {result.found:>6} {result.restored:>9} {result.refused:>8}"
        print(f"{row} {len(result.wrong):>6} {time.process_time() - started:>5.0f}", *result.missed, *result.wrong,
              sep="\n  ", flush=True)  # fmt: skip
        bad[kind] = len(result.missed) + len(result.wrong)
    return int(bad.total() > 0)


if __name__ == "__main__":
    sys.exit(main())
