"""Reader of dlrm's array files: .npz archives, the .npy triplets of DLRMv2, and parquet, column by column."""

import re
import zipfile
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.bench.dataset.pieces import Change, Changes, PickedBytes, SegmentRange, pick_reader
from scimill.bench.dataset.plan import DataFile, FileSegment, KnownBytes, SizeOnly
from scimill.bench.formats import dlrm, source
from scimill.bench.formats.dlrm_arrays import npz
from scimill.bench.formats.dlrm_arrays.npy import ARRAYS, npy_files
from scimill.bench.formats.dlrm_bin.read import change_rows
from scimill.bench.formats.npy import read_npy_header
from scimill.bench.formats.source import DatasetPart, Defect, FileScan, Integers
from scimill.bench.kernels.scaling import Picks
from scimill.parallel.world import World
from scimill.store.direct import Bytes

COMPANION = "day_fea_count.npz"
LOCAL_HEADER = 30  # bytes of a zip file's local header without name and extra field
LENGTHS_AT = 26  # place of the lengths of name and extra field in the local header

Rows = NDArray[Any]


@dataclass(frozen=True)
class ColumnGroup:
    """One array of a dataset: its name, the columns of a row that it holds, and its dtype in the output."""

    name: str
    span: tuple[int, int]
    dtype: str

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.span[1] - self.span[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * np.dtype(self.dtype).itemsize


NPZ = tuple(ColumnGroup(name.removesuffix(".npy"), span, npz.DTYPE) for name, span in npz.MEMBERS)
PARQUET = tuple(ColumnGroup(name, (column, column + 1), "<i4") for column, name in enumerate(dlrm.NAMES))
NPY = tuple(ColumnGroup(name, span, dtype) for name, dtype, span in ARRAYS)


@dataclass(frozen=True)
class StoredArray:
    """An array in a file: `offset` of its values, or -1 if they are compressed and must be read as a whole."""

    path: Path
    member: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def rows(self, first: int, count: int) -> Rows:
        """Read rows [first, first + count); shape (count, columns)."""
        if self.offset < 0:
            return _load_array(self.path, self.member).reshape(self.shape[0], -1)[first : first + count]
        width = int(np.prod(self.shape[1:], dtype=int)) * np.dtype(self.dtype).itemsize
        content = source.read_bytes(self.path, self.offset + first * width, count * width)
        return content.view(self.dtype).reshape(count, -1)


@lru_cache(maxsize=3)
def _load_array(path: Path, member: str) -> Rows:
    """Read a compressed array; the arrays of one file stay cached."""
    with np.load(path) as archive:
        array: Rows = archive[member]
    return array


@dataclass(frozen=True)
class ParquetColumn(StoredArray):
    """A column of a parquet file; `row_groups` holds the first row of each row group, and the end."""

    row_groups: tuple[int, ...] = ()

    def rows(self, first: int, count: int) -> Rows:
        """Read rows [first, first + count); shape (count, 1)."""
        low, high = bisect_right(self.row_groups, first) - 1, bisect_left(self.row_groups, first + count)
        found = np.concatenate([_group_column(self.path, group, self.member) for group in range(low, high)])
        return found[first - self.row_groups[low] :][:count].reshape(-1, 1)


@lru_cache(maxsize=2 * len(PARQUET))
def _group_column(path: Path, group: int, name: str) -> Rows:
    """Read one column of one row group."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        column: Rows = file.read_row_group(group, columns=[name], use_threads=False).column(0).to_numpy()
    return column


def read_parquet(path: Path, column: int) -> ParquetColumn:
    """Read the place of a column from the footer.

    Raises
    ------
    ValueError : the file is not a parquet file (pyarrow.ArrowInvalid), or does not have 40 columns.

    """
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    if metadata.num_columns != len(PARQUET):
        raise ValueError(f"it has {metadata.num_columns} columns, not {len(PARQUET)}")
    groups = accumulate((metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)), initial=0)
    field = metadata.schema.to_arrow_schema().field(column)
    dtype = np.dtype(field.type.to_pandas_dtype()).str
    return ParquetColumn(path, field.name, -1, (metadata.num_rows,), dtype, tuple(groups))


def read_array(path: Path, member: str) -> StoredArray:
    """Read the header of an array: a .npy file, or a member of an .npz file.

    Raises
    ------
    ValueError, KeyError, zipfile.BadZipFile : there is no array, or no such member.

    """
    if path.suffix == ".npy":
        with path.open("rb") as file:
            return _array(path, "", file)
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(f"{member}.npy")
        with archive.open(entry) as file:
            array = _array(path, member, file)
        if entry.compress_type != zipfile.ZIP_STORED:
            return StoredArray(path, member, -1, array.shape, array.dtype)
    lengths = source.read_bytes(path, entry.header_offset + LENGTHS_AT, 4).view("<u2")
    start = entry.header_offset + LOCAL_HEADER + int(lengths.sum())
    return StoredArray(path, member, start + array.offset, array.shape, array.dtype)


def _array(path: Path, member: str, file: Any) -> StoredArray:
    shape, is_fortran, dtype = read_npy_header(file)
    if is_fortran:
        raise ValueError("it is in Fortran order")
    if dtype.hasobject:
        raise ValueError("it holds objects instead of numbers")
    return StoredArray(path, member, file.tell(), shape, dtype.str)


class ArrayFiles:
    """A scanned dataset of several arrays per file."""

    record = "row"

    def __init__(
        self, form: str, folder: Path, parts: Sequence[DatasetPart], arrays: Mapping[tuple[Path, str], StoredArray]
    ) -> None:
        self.format, self.parts, self._arrays = form, parts, arrays
        self._groups = GROUPS[form]
        self.unit = sum(group.row_bytes for group in self._groups)
        path = folder / COMPANION
        self._companions = [DataFile(COMPANION, 0, (KnownBytes(path.read_bytes()),))] if path.exists() else []

    def read(self, group: ColumnGroup, part: int, piece: int, change: Change, cut: Integers | None) -> Bytes:
        """Read one array's rows of a piece."""
        here = self.parts[part]
        file, offset, count = (int(c[piece]) for c in (here.pieces.file, here.pieces.offset, here.pieces.records))
        rows = self._arrays[here.files[file], group.name].rows(offset, count).astype(group.dtype)
        rows = change_rows(
            rows if cut is None else rows[cut], change, fixed=int(group.span[0] == 0), seed=group.span[0]
        )
        return np.ascontiguousarray(rows).view(np.uint8).reshape(-1)

    def lengths(self, part: int, piece: int) -> Integers:
        """Return 1 for each row: sizes are in rows."""
        return np.ones(int(self.parts[part].pieces.records[piece]), dtype=np.int64)

    def total(self, counts: Sequence[int]) -> int:
        """Return the bytes of a dataset of these rows, with all headers and companions."""
        return sum(file.size for file in self._files(sum(counts), None))

    def files(self, picks: Sequence[Picks], changes: Changes) -> list[DataFile]:
        """Return files with as many rows as the input's files."""
        (part_picks,) = picks
        contents = [
            PickedBytes(0, part_picks, pick_reader(partial(self.read, group), changes), group.row_bytes)
            for group in self._groups
        ]
        return self._files(int(part_picks.records.sum()), contents)

    def _files(self, rows: int, contents: Sequence[PickedBytes] | None) -> list[DataFile]:
        """Make the files of a dataset of `rows` rows; without contents they have only sizes."""
        counts, files = self._rows_per_file(rows), []
        starts = accumulate(counts, initial=0)
        for number, (first, count) in enumerate(zip(starts, counts, strict=False)):
            sizes = [group.row_bytes for group in self._groups]
            segments: list[FileSegment] = [SizeOnly(count * size) for size in sizes]
            if contents:
                each = zip(contents, sizes, strict=True)
                segments = [SegmentRange(content, first * size, count * size) for content, size in each]
            files += FILES[self.format](number, count, segments)
        count_file = [npz.row_counts_file(counts)] if self.format == "npz" else []
        return [*files, *count_file, *self._companions]

    def _rows_per_file(self, rows: int) -> list[int]:
        """Rows of each file: those of the input's files, repeated cyclically."""
        most: list[int] = self.parts[0].capacities.tolist()
        counts: list[int] = []
        while rows > 0:
            counts.append(min(rows, most[len(counts) % len(most)]))
            rows -= counts[-1]
        return counts


def _npz_files(number: int, rows: int, contents: Sequence[FileSegment]) -> list[DataFile]:
    return [npz.npz_file(number, rows, contents)]


def _parquet_files(number: int, rows: int, contents: Sequence[FileSegment]) -> list[DataFile]:
    from scimill.bench.formats.dlrm_arrays import parquet  # here, because pyarrow needs much memory

    def content(column: int, first: int, count: int) -> FileSegment:
        return SegmentRange(contents[column], first * 4, count * 4)

    return [parquet.parquet_file(number, rows, parquet.template(rows), content)]


GROUPS = {"npz": NPZ, "npy": NPY, "parquet": PARQUET}
FILES = {"npz": _npz_files, "npy": npy_files, "parquet": _parquet_files}


def scan_arrays(
    path: Path, groups: Sequence[ColumnGroup], form: str
) -> tuple[dict[tuple[Path, str], StoredArray], list[Defect]]:
    """Read the headers of the arrays of one file, or of one triplet, given by its first file."""
    arrays, defects = {}, []
    for group in groups:
        place = path if form == "npz" else path.with_name(path.name.replace("_dense", f"_{group.name}"))
        where = place.name if form == "npy" else f"{place.name}, {group.name}"
        try:
            array = read_parquet(place, group.span[0]) if form == "parquet" else read_array(place, group.name)
        except FileNotFoundError:
            defects.append(Defect(where, "is missing"))
        except KeyError:
            defects.append(Defect(where, "is not in the file"))
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            defects.append(Defect(where, f"is damaged: {error}"))
        else:
            arrays[path, group.name] = array
            if what := describe_shape_defect(array, group):
                defects.append(Defect(where, what))
    rows = {array.shape[0] for array in arrays.values() if array.shape}
    if not defects and len(rows) > 1:
        counts = ", ".join(map(str, sorted(rows)))
        defects.append(Defect(path.name, f"has arrays with different numbers of rows: {counts}"))
    return arrays, defects


def describe_shape_defect(array: StoredArray, group: ColumnGroup) -> str:
    """Describe why the trainer would refuse an array; empty if it would not."""
    kinds = "fi" if group.dtype != "<i4" else "i"
    if np.dtype(array.dtype).kind not in kinds or not np.dtype(array.dtype).isnative:
        return f"has dtype {np.dtype(array.dtype)}"
    if array.shape[1:] != (group.width,) and not (group.width == 1 and array.shape[1:] == ()):
        return f"has shape {array.shape}, not (rows, {group.width})"
    end = array.offset + int(np.prod(array.shape, dtype=np.int64)) * np.dtype(array.dtype).itemsize
    if array.offset >= 0 and end > array.path.stat().st_size:
        return f"is {end - array.path.stat().st_size:,} bytes too short"
    return "" if array.shape[0] else "is empty"


class ArrayReader:
    """Finder and scanner of the files of one format; other formats have modules with the same functions."""

    def __init__(self, form: str, pattern: str, groups: Sequence[ColumnGroup]) -> None:
        self.PATTERNS = pattern
        self._form, self._groups = form, groups
        self._name = re.compile(r"(?:train_)?" + pattern.replace(".", r"\.").replace("*", r"(\d+)"))

    def find(self, folder: Path) -> list[Path]:
        """Find the files of a dataset, sorted by number; of a triplet only the first file."""
        found = [(match, path) for path in folder.iterdir() if (match := self._name.fullmatch(path.name))]
        return [path for _, path in sorted(found, key=lambda one: (int(one[0][1]), one[1].name))]

    def scan(self, folder: Path, skip_damaged: bool, world: World) -> ArrayFiles:
        """Read the headers of a dataset; collective.

        Raises
        ------
        InputError : the dataset has defects.

        """
        scanned = [(path, *scan_arrays(path, self._groups, self._form)) for path in world.on_root(self.find, folder)]
        source.report_defects([defect for _, _, defects in scanned for defect in defects], folder, world, skip_damaged)
        sound = [(path, arrays) for path, arrays, defects in scanned if not defects]
        part = source.make_part("training", [path for path, _ in sound], [_pieces(arrays) for _, arrays in sound])
        all_arrays = {key: array for _, arrays in sound for key, array in arrays.items()}
        return ArrayFiles(self._form, folder, source.usable_parts([part], folder, world), all_arrays)


def _pieces(arrays: Mapping[tuple[Path, str], StoredArray]) -> FileScan:
    """Cut the rows of a file into pieces."""
    rows = next(iter(arrays.values())).shape[0]
    found = FileScan()
    found.add_rows(rows, 320)
    return found


npz_reader = ArrayReader("npz", "day_*_reordered.npz", NPZ)
npy_reader = ArrayReader("npy", "day_*_dense.npy", NPY)
parquet_reader = ArrayReader("parquet", "day_*.parquet", PARQUET)
