"""Reader of dlrm's binary files: rows of 40 int32."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.bench.dataset.pieces import Change, Changes, PickedBytes, pick_reader
from scimill.bench.dataset.plan import DataFile, KnownBytes
from scimill.bench.formats import source
from scimill.bench.formats.dlrm_bin.write import ROW_BYTES
from scimill.bench.formats.source import DatasetPart, Defect, FileScan, Integers
from scimill.bench.kernels import perturbation
from scimill.bench.kernels.clicks import COLUMNS
from scimill.bench.kernels.scaling import Picks
from scimill.parallel.world import World
from scimill.store.direct import Bytes

Rows = NDArray[Any]

ALIGNED_ROWS = 128  # 20480 bytes, whole pages: keeps unchanged copies aligned to pages
COMPANIONS = ("day_fea_count.npz",)
PATTERNS = "*.bin"


def change_rows(rows: Rows, change: Change, fixed: int, seed: int = 0) -> Rows:
    """Reorder rows, or roll all columns but the first `fixed`; shifts are drawn starting at word `seed`."""
    n, columns = rows.shape
    if change.is_copy or n < 2:
        return rows
    if change.shuffled:
        return np.ascontiguousarray(rows[change.order(n)])
    shifts = perturbation.draw_integers(change.key, seed, np.full(columns, n, dtype=np.int64))
    shifts[:fixed] = 0
    words = np.ascontiguousarray(rows).view({4: np.uint32, 8: np.uint64}[rows.dtype.itemsize])
    out = np.empty_like(words)
    perturbation.roll_columns(out, words, shifts, change.key ^ np.uint64(1), change.repeat)
    return out.view(rows.dtype)


class BinaryFiles:
    """A scanned dataset ``*_train.bin``, ``*_test.bin``, ``*_val.bin``, or one file with any other name."""

    format, record, unit = "bin", "row", ROW_BYTES

    def __init__(self, folder: Path, parts: Sequence[DatasetPart]) -> None:
        self.parts = parts
        self._companions = [
            DataFile(name, 0, (KnownBytes((folder / name).read_bytes()),))
            for name in COMPANIONS
            if (folder / name).exists()
        ]

    def read(self, part: int, piece: int, change: Change, cut: Integers | None) -> Bytes:
        """Read the rows of one piece."""
        here = self.parts[part]
        offset, count = int(here.pieces.offset[piece]), int(here.pieces.records[piece])
        content = source.read_bytes(here.files[0], offset * ROW_BYTES, count * ROW_BYTES)
        rows = content.view(np.int32).reshape(-1, COLUMNS)
        rows = rows if cut is None else rows[cut]
        return np.ascontiguousarray(change_rows(rows, change, fixed=1)).view(np.uint8).reshape(-1)

    def lengths(self, part: int, piece: int) -> Integers:
        """Return 1 for each row: sizes are in rows."""
        return np.ones(int(self.parts[part].pieces.records[piece]), dtype=np.int64)

    def total(self, counts: Sequence[int]) -> int:
        """Return the bytes of a dataset with these rows in each part, including companions."""
        return sum(counts) * ROW_BYTES + sum(file.size for file in self._companions)

    def files(self, picks: Sequence[Picks], changes: Changes) -> list[DataFile]:
        """Return one file for each part, with the name of the input's file."""
        read = pick_reader(self.read, changes)
        found = [
            DataFile(
                part.files[0].name, int(part_picks.records.sum()), (PickedBytes(number, part_picks, read, ROW_BYTES),)
            )
            for number, (part, part_picks) in enumerate(zip(self.parts, picks, strict=True))
        ]
        return [*found, *self._companions]


def scan_file(path: Path) -> FileScan:
    """Cut a file into pieces, using only its length."""
    found, size = FileScan(), path.stat().st_size
    rows, rest = divmod(size, ROW_BYTES)
    if rest or not rows:
        what = f"{size} bytes are not a whole number of {ROW_BYTES}-byte rows" if rest else "is empty"
        found.defects.append(Defect(path.name, what))
    found.add_rows(rows, ROW_BYTES, step=ALIGNED_ROWS)
    return found


def find(folder: Path) -> list[Path]:
    """Find the files of a dataset, training files first."""
    return sorted(folder.glob("*.bin"), key=lambda path: (not is_training(path), path.name))


def is_training(path: Path) -> bool:
    """Whether a file is for training: any file but ``…_test.bin`` and ``…_val.bin``."""
    return not path.stem.endswith(("_test", "_val"))


def scan(folder: Path, skip_damaged: bool, world: World) -> BinaryFiles:
    """Scan a dataset; collective.

    Raises
    ------
    InputError : the dataset has defects.

    """
    paths = world.on_root(find, folder)
    found = list(zip(paths, source.run_in_parallel(world, [partial(scan_file, path) for path in paths]), strict=True))
    training = [path.name for path, _ in found if is_training(path)]
    defects = [defect for _, scanned in found for defect in scanned.defects]
    if len(training) != 1:
        defects.append(Defect(", ".join(training) or "*_train.bin", "exactly one training file is needed"))
    source.report_defects(defects, folder, world, skip_damaged)
    parts = [
        source.make_part("training" if is_training(path) else "evaluation", [path], [scan])
        for path, scan in found
        if scan.offset
    ]
    return BinaryFiles(folder, source.usable_parts(parts, folder, world))
