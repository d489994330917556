"""Sampling the files, records and values of datasets, on a disk or only planned."""

import io
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scimill.bench.dataset.ledger import MANIFEST
from scimill.bench.dataset.plan import MARGIN, DataFile
from scimill.bench.formats.bert_tfrecord.read import FEATURES, FLOATS, REASONS, decode, find_features
from scimill.bench.formats.dlrm_arrays.read import LENGTHS_AT, LOCAL_HEADER, NPZ
from scimill.bench.formats.npy import read_npy_header
from scimill.bench.formats.source import read_bytes
from scimill.bench.kernels.perturbation import FIELDS
from scimill.bench.similarity import store_samples
from scimill.errors import InputError
from scimill.store.direct import Bytes

LARGEST_USER_BLOCK = 1 << 20  # bytes to search for the HDF5 signature
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
PLACES = 48  # random places at which values are read
ROWS_PER_PLACE = 256
GROUPS = 4  # row groups to read from parquet files
VOXELS_PER_PLACE = 1 << 15
TEXT_PER_PLACE = 1 << 16  # bytes
RECORDS_PER_PLACE = 1 << 19  # bytes
COLUMNS = ("label", *(f"integer {i + 1}" for i in range(13)), *(f"category {i + 1}" for i in range(26)))
"""Columns of a dlrm row."""

Values = NDArray[Any]
Random = np.random.Generator


class Readable(Protocol):
    """A file of which ranges can be read."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def size(self) -> int:
        """Its bytes."""
        ...

    def read(self, offset: int, size: int) -> Bytes:
        """Read a range that lies within it."""
        ...


@dataclass(frozen=True)
class DiskFile:
    """A file on a disk."""

    path: Path
    size: int

    @property
    def name(self) -> str:
        """Its name."""
        return self.path.name

    def read(self, offset: int, size: int) -> Bytes:
        """Read a range that lies within it."""
        return read_bytes(self.path, offset, size)


@dataclass(frozen=True)
class StoreFile(DiskFile):
    """A store (HDF5), under any file name."""


@dataclass(frozen=True)
class PlannedFile:
    """A file that is only planned; reading a range generates it."""

    file: DataFile

    @property
    def name(self) -> str:
        """Its name."""
        return self.file.name

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.file.size

    def read(self, offset: int, size: int) -> Bytes:
        """Generate a range that lies within it."""
        work = np.zeros(size + 2 * MARGIN, dtype=np.uint8)
        self.file.fill(offset, offset + size, work, MARGIN)
        return work[MARGIN : MARGIN + size].copy()


class ReadableStream(io.RawIOBase):
    """A `Readable` as a file object, for libraries."""

    def __init__(self, file: Readable) -> None:
        super().__init__()
        self._file, self._at = file, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as the buffer holds or the file has left; return their number."""
        count = max(0, min(len(buffer), self._file.size - self._at))
        buffer[:count] = self._file.read(self._at, count).data
        self._at += count
        return count


@dataclass(frozen=True)
class DatasetSample:
    """A sample of a dataset.

    Attributes
    ----------
    form : workload and format, such as "dlrm npz".
    sizes : bytes of the files, by the pattern of their names.
    records : bytes of the sampled records.
    fields : values by field; missing values are NaN.

    """

    form: str
    sizes: Mapping[str, NDArray[np.int64]]
    records: NDArray[np.int64]
    fields: Mapping[str, Values]


def list_files(folder: Path) -> list[Readable]:
    """List the files of a dataset by name, without hidden files and the manifest.

    Raises
    ------
    InputError : the path is missing, neither a directory nor a store, or empty.

    """
    if is_store(folder):
        return [StoreFile(folder, folder.stat().st_size)]
    if not folder.is_dir():
        raise InputError("no such dataset" if not folder.exists() else "not a directory", where=str(folder))
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found: list[Readable] = [DiskFile(path, path.stat().st_size) for path in paths if path.name != MANIFEST]
    if not found:
        raise InputError("the dataset is empty", where=str(folder))
    return found


def is_store(path: Path) -> bool:
    """Return whether a file is HDF5.

    Its signature is at byte 0 or, after a user block, at 512 bytes or a larger power of two.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(LARGEST_USER_BLOCK + len(HDF5_SIGNATURE))
    places = [0, *(1 << power for power in range(9, LARGEST_USER_BLOCK.bit_length()))]
    return any(head[place:].startswith(HDF5_SIGNATURE) for place in places)


def take_sample(files: Sequence[Readable], random: Random, where: str) -> DatasetSample:
    """Sample a dataset at random places.

    Raises
    ------
    InputError : the files are damaged, or of no known format.

    """
    if isinstance(files[0], StoreFile):
        sizes = {"store": np.array([files[0].size])}  # not by name, which the user has chosen
        return DatasetSample("store hdf5", sizes, *store_samples.sample_store(files[0].path, random))
    for form, (pattern, sampler) in SAMPLERS.items():
        chosen = [file for file in files if re.fullmatch(pattern, file.name)]
        if chosen:
            try:
                records, fields = sampler(chosen, files, random)
            except (ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
                raise InputError(f"damaged {form} data: {error}", where=where) from None
            return DatasetSample(form, sizes_by_kind(files), records, fields)
    raise InputError("no files of a known format", where=where, allowed=", ".join(SAMPLERS))


def sizes_by_kind(files: Sequence[Readable]) -> dict[str, NDArray[np.int64]]:
    """Group the sizes of files whose names differ only in numbers; "#" stands for a number."""
    found: dict[str, list[int]] = {}
    for file in files:
        found.setdefault(re.sub(r"\d+", "#", file.name), []).append(file.size)
    return {kind: np.array(sizes, dtype=np.int64) for kind, sizes in found.items()}


SampledFields = store_samples.SampledFields


def _random_starts(sizes: Sequence[int], length: int, random: Random) -> list[tuple[int, int]]:
    """Choose random places (file number, offset) for ranges of `length`, in proportion to the files' sizes."""
    weights = np.array(sizes, dtype=float)
    chosen = np.sort(random.choice(len(sizes), PLACES, p=weights / weights.sum()))
    return [(int(i), int(random.integers(0, max(1, sizes[i] - length + 1)))) for i in chosen]


# ---- imseg ------------------------------------------------------------------------------------------------------


def sample_cases(images: Sequence[Readable], files: Sequence[Readable], random: Random) -> SampledFields:
    """Sample intensities and labels at random places, and the shapes of all cases."""
    names = {file.name: file for file in files}
    arrays = [(image, *_header(image)) for image in images]
    shapes = np.array([shape for _, shape, _ in arrays])
    labels = [names[image.name.replace("_x.npy", "_y.npy")] for image in images]
    voxels = [int(shape.prod()) for shape in shapes]
    intensities, classes = [], []
    for number, first in _random_starts(voxels, VOXELS_PER_PLACE, random):
        image, _, offset = arrays[number]
        count = min(VOXELS_PER_PLACE, voxels[number] - first)
        intensities.append(image.read(offset + 4 * first, 4 * count).view("<f4"))
        classes.append(labels[number].read(_header(labels[number])[1] + first, count))
    records = np.array([image.size + label.size for image, label in zip(images, labels, strict=True)])
    fields = {"intensity": np.concatenate(intensities), "label": np.concatenate(classes)}
    return records, {**fields, "depth": shapes[:, 1], "width": shapes[:, 3]}


def _header(file: Readable) -> tuple[tuple[int, ...], int]:
    """Return the shape of a .npy file and the offset of its values."""
    stream = io.BytesIO(file.read(0, min(file.size, 4096)).tobytes())
    return read_npy_header(stream)[0], stream.tell()


# ---- dlrm -------------------------------------------------------------------------------------------------------


def _by_column(rows: Values) -> dict[str, Values]:
    return dict(zip(COLUMNS, rows.T, strict=True))


def sample_rows(chosen: Sequence[Readable], files: Sequence[Readable], random: Random) -> SampledFields:
    """Sample rows of .bin files at random places."""
    del files
    counts = [file.size // 160 for file in chosen]
    rows = [
        chosen[number].read(160 * first, 160 * min(ROWS_PER_PLACE, counts[number] - first)).view("<i4").reshape(-1, 40)
        for number, first in _random_starts(counts, ROWS_PER_PLACE, random)
    ]
    return np.array([160]), _by_column(np.concatenate(rows))


def sample_archives(chosen: Sequence[Readable], files: Sequence[Readable], random: Random) -> SampledFields:
    """Sample the first rows of a few random .npz files."""
    del files
    few = [chosen[i] for i in np.sort(random.choice(len(chosen), min(4, len(chosen)), replace=False))]
    tables = []
    for file in few:
        arrays = {}
        with zipfile.ZipFile(ReadableStream(file)) as archive:
            for stream in NPZ:
                with _member(file, archive, f"{stream.name}.npy") as member:
                    arrays[stream.name] = _first_rows(member, stream.width)
        tables.append(np.hstack([arrays[name] for name in ("y", "X_int", "X_cat")]))
    return np.array([320]), _by_column(np.concatenate(tables))


def _member(file: Readable, archive: zipfile.ZipFile, name: str) -> Any:
    """Open a member; bypass the checksum of an uncompressed one, which a planned file does not know yet."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        return archive.open(entry)
    lengths = file.read(entry.header_offset + LENGTHS_AT, 4).view("<u2")
    stream = ReadableStream(file)
    stream.seek(entry.header_offset + LOCAL_HEADER + int(lengths.sum()))
    return stream


def _first_rows(member: Any, width: int) -> Values:
    """Read the first rows of an array in an archive; a compressed one can only be read from its beginning."""
    shape, _, dtype = read_npy_header(member)
    count = min(shape[0], PLACES * ROWS_PER_PLACE)
    content = member.read(count * width * dtype.itemsize)
    return np.frombuffer(content, dtype).reshape(count, width)


def sample_triplets(chosen: Sequence[Readable], files: Sequence[Readable], random: Random) -> SampledFields:
    """Sample rows of .npy triplets at random places."""
    names = {file.name: file for file in files}
    counts = [next(iter(_header(file)[0]), 0) for file in chosen]
    tables = []
    for number, first in _random_starts(counts, ROWS_PER_PLACE, random):
        count, columns = min(ROWS_PER_PLACE, counts[number] - first), []
        for name, dtype, width in (("labels", "<i4", 1), ("dense", "<f4", 13), ("sparse", "<i4", 26)):
            file = names[chosen[number].name.replace("_dense", f"_{name}")]
            start = _header(file)[1] + first * width * 4
            columns.append(file.read(start, count * width * 4).view(dtype).reshape(count, width))
        tables.append(np.hstack(columns))
    return np.array([160]), _by_column(np.concatenate(tables))


def sample_tables(chosen: Sequence[Readable], files: Sequence[Readable], random: Random) -> SampledFields:
    """Sample rows of a few row groups of parquet files."""
    del files
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for number in random.choice(len(chosen), GROUPS):
        with pq.ParquetFile(pa.PythonFile(ReadableStream(chosen[number]), mode="r")) as file:
            group = int(random.integers(0, file.num_row_groups))
            batch = next(file.iter_batches(PLACES * ROWS_PER_PLACE, row_groups=[group], use_threads=False))
            tables.append(np.stack([column.to_numpy(zero_copy_only=False) for column in batch.columns], axis=1))
    return np.array([160]), _by_column(np.concatenate(tables))


def sample_lines(chosen: Sequence[Readable], files: Sequence[Readable], random: Random) -> SampledFields:
    """Sample lines of text at random places."""
    del files
    rows, lengths = [], []
    for number, first in _random_starts([file.size for file in chosen], TEXT_PER_PLACE, random):
        file = chosen[number]
        text = file.read(first, min(TEXT_PER_PLACE, file.size - first)).tobytes()
        begin = text.index(b"\n") + 1 if first else 0
        lines = text[begin : text.rindex(b"\n")].split(b"\n")
        lengths += [len(line) + 1 for line in lines]
        rows += [_parse_fields(line.split(b"\t")) for line in lines]
    return np.array(lengths), _by_column(np.array(rows))


def _parse_fields(words: Sequence[bytes]) -> list[float]:
    """Return the values of a line; a missing one is NaN."""
    if len(words) != FIELDS:
        raise ValueError(f"a line has {len(words)} fields, not {FIELDS}")
    return [float(int(word, 16 if i > 13 else 10)) if word else np.nan for i, word in enumerate(words)]


# ---- bert -------------------------------------------------------------------------------------------------------


def sample_records(chosen: Sequence[Readable], files: Sequence[Readable], random: Random) -> SampledFields:
    """Sample records at the beginning of some files: frames can only be followed from there."""
    del files
    training = [file for file in chosen if file.name.startswith("part")] or list(chosen)
    few = [training[i] for i in np.sort(random.choice(len(training), min(PLACES, len(training)), replace=False))]
    lengths: list[int] = []
    fields: dict[str, list[Values]] = {}
    for file in few:
        content = file.read(0, min(RECORDS_PER_PLACE, file.size))
        at = 0
        while at + 12 <= len(content):
            length = int.from_bytes(content[at : at + 8].tobytes(), "little")
            if at + length + 16 > len(content):
                break
            for name, values in _example_features(content[at + 12 : at + 12 + length]).items():
                fields.setdefault(name, []).append(values)
            lengths.append(length + 16)
            at += length + 16
    if not lengths:
        raise ValueError("no complete record")
    return np.array(lengths), {name: np.concatenate(values) for name, values in fields.items()}


def _example_features(data: Bytes) -> dict[str, Values]:
    """Return tokens and label of a record, and its numbers of all, masked and first-sentence tokens."""
    spans = np.empty((7, 2), dtype=np.int64)
    reason = find_features(data, 0, len(data), spans)
    if reason:
        raise ValueError(f"a record {REASONS[reason]}")
    values = [decode(data, spans[number, 0], spans[number, 1], count) for number, (_, count) in enumerate(FEATURES)]
    tokens, mask, segments = values[:3]
    weights = data[spans[FLOATS, 0] : spans[FLOATS, 1]].copy().view("<f4")
    length = int(mask.sum())
    first = length - segments.sum()
    of_record = {"length": length, "masked": weights.sum(), "first sentence": first, "next sentence": values[6][0]}
    return {"token": tokens[:length], **{name: np.array([value]) for name, value in of_record.items()}}


Sampler = Callable[[Sequence[Readable], Sequence[Readable], Random], SampledFields]
SAMPLERS: dict[str, tuple[str, Sampler]] = {
    # workload and format: (pattern of the file names, function that reads the values)
    "imseg npy": (r".*_x\.npy", sample_cases),
    "bert tfrecord": (r"(part|eval).*", sample_records),
    "dlrm text": (r"train\.txt", sample_lines),
    "dlrm npz": (r"(train_)?day_\d+_reordered\.npz", sample_archives),
    "dlrm npy": (r"day_\d+_dense\.npy", sample_triplets),
    "dlrm parquet": (r"(train_)?day_\d+\.parquet", sample_tables),
    "dlrm bin": (r".*\.bin", sample_rows),
}
