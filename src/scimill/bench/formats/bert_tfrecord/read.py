"""Reader of bert's TFRecord files: framed Examples of seven features."""

import mmap
import struct
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numba import njit

from scimill.bench.dataset.pieces import Change, Changes, PickedBytes, pick_reader
from scimill.bench.dataset.plan import DataFile
from scimill.bench.formats import source
from scimill.bench.formats.bert_tfrecord.write import ORIGINAL_FILES
from scimill.bench.formats.source import DatasetPart, Defect, FileScan, Integers
from scimill.bench.kernels.counter import low_half, word
from scimill.bench.kernels.perturbation import happens, shuffle_tokens
from scimill.bench.kernels.scaling import Picks, slice_picks, split_into_files
from scimill.bench.kernels.sequences import masked
from scimill.parallel.world import World
from scimill.store.checksums import crc32c
from scimill.store.direct import Bytes

PATTERNS = "part*, eval*"
HEADER, FOOTER = 12, 4  # bytes around the data of a record: length and its checksum before, checksum of the data after
PIECES_PER_FILE = 256
FEATURES = (
    # name, number of values; no two names have the same length, so the length identifies the name
    ("input_ids", 512), ("input_mask", 512), ("segment_ids", 512), ("masked_lm_positions", 76), ("masked_lm_ids", 76),
    ("masked_lm_weights", 76), ("next_sentence_labels", 1),
)  # fmt: skip
NAME_LENGTHS = np.array([len(name) for name, _ in FEATURES])
NAMES = np.frombuffer(b"".join(name.ljust(20).encode() for name, _ in FEATURES), dtype=np.uint8).reshape(-1, 20)
COUNTS = np.array([count for _, count in FEATURES])
FLOATS = 5  # index of the feature that holds floats
TOKENS, PLACES = 0, 3  # indices of the features that hold tokens and the positions of masked tokens
REASONS = (
    "", "is not a tf.train.Example", "lacks features that bert needs", "has features with the wrong number of values",
)  # fmt: skip


@njit(cache=True)
def _varint(data: Bytes, at: int, stop: int) -> tuple[int, int]:
    """Read a varint: return its value and end; the end is -1 if the varint is incomplete."""
    value, shift = 0, 0
    while at < stop and shift < 63:
        value |= (int(data[at]) & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at
    return 0, -1


@njit(cache=True)
def _enter_field(data: Bytes, at: int, stop: int, tag: int) -> tuple[int, int]:
    """Return start and end of the content of a length-delimited field; -1 if there is no such field."""
    if at >= stop or data[at] != tag:
        return -1, -1
    length, begin = _varint(data, at + 1, stop)
    if begin < 0 or begin + length > stop:
        return -1, -1
    return begin, begin + length


@njit(cache=True)
def find_features(data: Bytes, start: int, stop: int, spans: Integers) -> int:
    """Find the values of each feature of the Example data[start:stop].

    Parameters
    ----------
    spans : output, shape (7, 2): start and end of the values of each feature.

    Returns
    -------
    Index into `REASONS`; 0 if the record is intact.
    """
    spans[:] = -1
    at, end = _enter_field(data, start, stop, 10)
    if at < 0:
        return 1
    while at < end:
        entry, entry_end = _enter_field(data, at, end, 10)
        if entry < 0:
            return 1
        name, name_end = _enter_field(data, entry, entry_end, 10)
        feature, feature_end = _enter_field(data, name_end, entry_end, 18) if name >= 0 else (-1, -1)
        if feature < 0:
            return 1
        number = _feature_number(data, name, name_end)
        if number >= 0:
            values, values_end = _enter_field(data, feature, feature_end, 18 if number == FLOATS else 26)
            spans[number, 0], spans[number, 1] = _enter_field(data, values, values_end, 10) if values >= 0 else (-1, -1)
        at = entry_end
    return _check_features(data, spans)


@njit(cache=True)
def _feature_number(data: Bytes, name: int, name_end: int) -> int:
    """Return the index of a feature from its name; -1 if it is not in `FEATURES`."""
    for number in range(len(NAME_LENGTHS)):
        if NAME_LENGTHS[number] == name_end - name:
            for i in range(name_end - name):
                if data[name + i] != NAMES[number, i]:
                    return -1
            return number
    return -1


@njit(cache=True)
def _check_features(data: Bytes, spans: Integers) -> int:
    """Check that all features are present with all their values; return an index into `REASONS`."""
    for number in range(len(spans)):
        begin, end = spans[number, 0], spans[number, 1]
        if begin < 0:
            return 2
        count = 0
        if number == FLOATS:
            count = (end - begin) // 4
        else:
            for i in range(begin, end):
                count += data[i] < 128
        if count != COUNTS[number]:
            return 3
    return 0


@njit(cache=True, nogil=True)
def shuffle_records(content: Bytes, starts: Integers, stops: Integers, key: np.uint64, repeat: float) -> None:
    """Shuffle the tokens of each record content[start:stop]; in a share of the records sort them instead.

    Masked tokens, and the originals that the trainer compares with, stay unchanged.
    """
    spans = np.empty((7, 2), dtype=np.int64)
    for i in range(len(starts)):
        if find_features(content, starts[i], stops[i], spans) == 0:
            begin, end = spans[TOKENS, 0], spans[TOKENS, 1]
            tokens = decode(content, begin, end, COUNTS[TOKENS])
            places = decode(content, spans[PLACES, 0], spans[PLACES, 1], COUNTS[PLACES])
            own = word(key, np.uint64(2 * i))
            shuffle_tokens(tokens, places, own, happens(low_half(word(key, np.uint64(2 * i + 1))), repeat))
            encode(content, begin, tokens)


@njit(cache=True, nogil=True)
def decode(data: Bytes, start: int, stop: int, count: int) -> Integers:
    """Decode the varints of data[start:stop], at most `count`."""
    out = np.zeros(count, dtype=np.int64)
    number = shift = 0
    for i in range(start, stop):
        if number == count:
            break
        out[number] |= (np.int64(data[i]) & 127) << shift
        shift += 7
        if data[i] < 128:
            number, shift = number + 1, 0
    return out


@njit(cache=True, nogil=True)
def encode(data: Bytes, start: int, values: Integers) -> None:
    """Write values as varints, starting at data[start]."""
    at = start
    for value in values:
        rest = value
        while rest > 127:
            data[at] = (rest & 127) | 128
            rest >>= 7
            at += 1
        data[at] = rest
        at += 1


def records(content: Bytes) -> tuple[Integers, Integers]:
    """Return start and end of the data of each record; `content` consists of whole records."""
    starts, at = [], 0
    while at < len(content):
        starts.append(at + HEADER)
        at += HEADER + int(content[at : at + 8].view("<u8")[0]) + FOOTER
    begin = np.array(starts, dtype=np.int64)
    return begin, np.append(begin[1:], at + HEADER) - HEADER - FOOTER


class TfrecordFiles:
    """A scanned dataset of files ``part*`` and ``eval*``."""

    format, record, unit = "tfrecord", "record", 1

    def __init__(self, parts: Sequence[DatasetPart]) -> None:
        self.parts = parts

    def _content(self, part: int, piece: int) -> Bytes:
        here = self.parts[part]
        file, offset, size = (int(column[piece]) for column in (here.pieces.file, here.pieces.offset, here.pieces.size))
        return source.read_bytes(here.files[file], offset, size)

    def read(self, part: int, piece: int, change: Change, cut: Integers | None) -> Bytes:
        """Read the records of one piece."""
        content = self._content(part, piece)
        if cut is not None:
            content = _select(content, cut)
        if change.shuffled:
            content = _select(content, change.order(len(records(content)[0])))
        elif not change.is_copy:
            starts, stops = records(content)
            shuffle_records(content, starts, stops, change.key, change.repeat)
            _write_checksums(content, starts, stops)
        return content

    def lengths(self, part: int, piece: int) -> Integers:
        """Return the bytes of each record of a piece, including its frame."""
        starts, stops = records(self._content(part, piece))
        return stops - starts + HEADER + FOOTER

    def total(self, counts: Sequence[int]) -> int:
        """Return the size of a dataset in bytes; files add nothing to their records."""
        return sum(counts)

    def files(self, picks: Sequence[Picks], changes: Changes) -> list[DataFile]:
        """Return training files ``part-00000-of-00500``, … as large as the input's, and one evaluation file."""
        read = pick_reader(self.read, changes)
        found = []
        for number, (part, part_picks) in enumerate(zip(self.parts, picks, strict=True)):
            slices = (
                split_into_files(part_picks, part.capacities)
                if part.name == "training"
                else [slice(0, len(part_picks.piece))]
            )
            names = [f"part-{i:05}-of-{max(ORIGINAL_FILES, len(slices)):05}" for i in range(len(slices))]
            names = names if part.name == "training" else [part.files[0].name]
            for name, chosen in zip(names, slices, strict=True):
                content = slice_picks(part_picks, chosen)
                found.append(DataFile(name, int(content.records.sum()), (PickedBytes(number, content, read),)))
        return found


def _select(content: Bytes, which: Integers) -> Bytes:
    """Select records by number, including their frames."""
    starts, stops = records(content)
    return np.concatenate([content[starts[i] - HEADER : stops[i] + FOOTER] for i in which])


def _write_checksums(content: Bytes, starts: Integers, stops: Integers) -> None:
    """Write the checksum of each record's data."""
    view = content.data
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        struct.pack_into("<I", view, stop, masked(crc32c(view[start:stop])))


def find(folder: Path) -> list[Path]:
    """Find the files of a dataset, training files first."""
    return [*sorted(folder.glob("part*")), *sorted(folder.glob("eval*"))]


def scan(folder: Path, skip_damaged: bool, world: World) -> TfrecordFiles:
    """Check every record of a dataset, one file at a time on each rank; collective.

    Raises
    ------
    InputError : the dataset has defects.

    """
    paths = world.on_root(find, folder)
    found = source.run_in_parallel(world, [partial(scan_file, path) for path in paths])
    source.report_defects([defect for scanned in found for defect in scanned.defects], folder, world, skip_damaged)
    sound = [(path, scanned) for path, scanned in zip(paths, found, strict=True) if not scanned.defects]
    training = [one for one in sound if one[0].name.startswith("part")]
    evaluation = [one for one in sound if one not in training]
    return TfrecordFiles(
        source.usable_parts([_part("training", training), _part("evaluation", evaluation)], folder, world)
    )


def scan_file(path: Path) -> FileScan:
    """Check frame, checksums and features of every record of a file."""
    found, size = FileScan(), path.stat().st_size
    if not size:
        found.defects.append(Defect(path.name, "is empty"))
        return found
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        content = np.frombuffer(mapped, dtype=np.uint8)
        try:
            _scan(path.name, content, found)
        finally:
            del content  # otherwise the map cannot be closed
    return found


def _scan(name: str, content: Bytes, found: FileScan) -> None:
    """Find the pieces of a file, up to its first defect."""
    view, spans = content.data, np.empty((7, 2), dtype=np.int64)
    step = max(1, min(len(content) // PIECES_PER_FILE, source.PIECE_BYTES))
    at = piece_start = count = number = 0
    while at < len(content):
        end = _record_end(view, at)
        reason = 0 if end < 0 else find_features(content, at + HEADER, end - FOOTER, spans)
        if end < 0 or reason:
            what = "is cut short, or its checksum is wrong" if end < 0 else REASONS[reason]
            found.defects.append(Defect(name, f"record {number + 1:,} at byte {at:,} {what}"))
            return
        at, count, number = end, count + 1, number + 1
        if at - piece_start >= step or at == len(content):
            found.add(piece_start, at - piece_start, count)
            piece_start, count = at, 0


def _record_end(view: memoryview, at: int) -> int:
    """Return the end of a record; -1 if the record is cut short or a checksum is wrong."""
    if at + HEADER + FOOTER > len(view):
        return -1
    length, length_crc = struct.unpack_from("<QI", view, at)
    end = at + HEADER + length + FOOTER
    if length_crc != masked(crc32c(view[at : at + 8])) or end > len(view):
        return -1
    stored = struct.unpack_from("<I", view, end - FOOTER)[0]
    return end if stored == masked(crc32c(view[at + HEADER : end - FOOTER])) else -1


def _part(name: str, scanned: Sequence[tuple[Path, FileScan]]) -> DatasetPart:
    return source.make_part(name, [path for path, _ in scanned], [scan for _, scan in scanned])
