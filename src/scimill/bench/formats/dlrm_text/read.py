"""Reader of dlrm's text file: lines of a label, 13 integers and 26 categories, separated by tabs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numba import njit

from scimill.bench.dataset.pieces import Change, Changes, PickedBytes, pick_reader
from scimill.bench.dataset.plan import DataFile
from scimill.bench.formats import source
from scimill.bench.formats.source import DatasetPart, Defect, FileScan, Integers
from scimill.bench.kernels import perturbation
from scimill.bench.kernels.clicks import INTEGERS
from scimill.bench.kernels.perturbation import FIELDS, NEWLINE, TAB
from scimill.bench.kernels.scaling import Picks
from scimill.parallel.world import World
from scimill.store.direct import Bytes

PATTERNS = "train.txt"
MIN_PIECE_BYTES = 4096
MAX_LINE_BYTES = 4096  # far more than the roughly 400 bytes that a line of 40 fields can have
REASONS = (
    "", "does not have 40 fields separated by tabs", "ends in CR LF; convert the file with dos2unix",
    "has a field that is not a number", "is longer than any valid line",
)  # fmt: skip
_MINUS, _ZERO, _NINE, _CR = 45, 48, 57, 13


@njit(cache=True)
def line_defect(text: Bytes, start: int, stop: int) -> int:
    """Check the line text[start:stop], without its newline; return an index into `REASONS`."""
    column = length = 0
    for i in range(start, stop + 1):
        byte = text[i] if i < stop else TAB
        if byte == TAB:
            if (column == 0 or column > INTEGERS) and length not in (1 if column == 0 else 8, 0):
                return 3
            column, length = column + 1, 0
            continue
        if byte == _CR:
            return 2
        is_digit = _ZERO <= byte <= _NINE
        is_hex = column > INTEGERS and (97 <= byte <= 102 or 65 <= byte <= 70)
        is_sign = byte == _MINUS and length == 0 and 1 <= column <= INTEGERS
        if not (is_digit or is_hex or is_sign):
            return 1 if byte == 32 else 3
        length += 1
    return 0 if column == FIELDS else 1


@njit(cache=True)
def cut_lines(
    text: Bytes, origin: int, first: int, stop: int, is_end: bool, step: int, out: Integers
) -> tuple[int, int, int, int]:
    """Find the lines that begin in [first, stop) of a file, piece by piece, and the first wrong one.

    Parameters
    ----------
    text : bytes of the file starting at `origin`, which is `first` or one byte before it.
    is_end : whether the text ends at the end of the file, so that the last line may lack its newline.
    step : a piece holds the lines that begin within `step` bytes.
    out : output, shape (pieces, 3): offset, bytes and lines of each piece.

    Returns
    -------
    Number of pieces; for the first wrong line its index into `REASONS` and its number in this range; number of wrong
    lines.
    """
    pieces, reason, wrong, count, lines = 0, 0, 0, 0, 0
    last = -1
    at = first - origin
    while at > 0 and at < len(text) and text[at - 1] != NEWLINE:
        at += 1
    while at < len(text) and origin + at < stop:
        end = at
        while end < len(text) and text[end] != NEWLINE:
            end += 1
        is_whole = end - at <= MAX_LINE_BYTES and (end < len(text) or is_end)
        found = line_defect(text, at, end) if is_whole else 4
        lines += 1
        if found:
            count += 1
            if count == 1:
                reason, wrong = found, lines
        group = (origin + at) // step
        if group != last:
            out[pieces, 0], out[pieces, 1], out[pieces, 2] = origin + at, 0, 0
            pieces, last = pieces + 1, group
        out[pieces - 1, 1] += end + 1 - at
        out[pieces - 1, 2] += 1
        at = end + 1
    return pieces, reason, wrong, count


class TextFile:
    """A scanned file ``train.txt``."""

    format, record, unit = "text", "line", 1

    def __init__(self, parts: Sequence[DatasetPart]) -> None:
        self.parts = parts

    def read(self, part: int, piece: int, change: Change, cut: Integers | None) -> Bytes:
        """Read the lines of one piece."""
        text = self._text(part, piece)
        if cut is not None:
            text = _select(text, cut)
        return change_lines(text, change)

    def _text(self, part: int, piece: int) -> Bytes:
        here = self.parts[part]
        path, offset, size = here.files[0], int(here.pieces.offset[piece]), int(here.pieces.size[piece])
        stored = min(size, path.stat().st_size - offset)
        text = source.read_bytes(path, offset, stored)
        return text if stored == size else np.append(text, np.uint8(NEWLINE))  # the last newline may be missing

    def lengths(self, part: int, piece: int) -> Integers:
        """Return the bytes of each line of a piece."""
        return np.diff(np.flatnonzero(self._text(part, piece) == NEWLINE), prepend=-1)

    def total(self, counts: Sequence[int]) -> int:
        """Return the size of a dataset in bytes; the file adds nothing to its lines."""
        return sum(counts)

    def files(self, picks: Sequence[Picks], changes: Changes) -> list[DataFile]:
        """Return one file, with the name of the input's file."""
        read = pick_reader(self.read, changes)
        name = self.parts[0].files[0].name
        return [DataFile(name, int(picks[0].records.sum()), (PickedBytes(0, picks[0], read),))]


def _select(text: Bytes, lines: Integers) -> Bytes:
    """Select lines of a text by number."""
    ends = np.flatnonzero(text == NEWLINE) + 1
    starts = np.concatenate([[0], ends[:-1]])
    return np.concatenate([text[starts[line] : ends[line]] for line in lines])


def change_lines(text: Bytes, change: Change) -> Bytes:
    """Reorder lines, or roll all columns but the label; the number of bytes stays the same."""
    count = int(np.count_nonzero(text == NEWLINE))
    if change.is_copy or count < 2:
        return text
    if change.shuffled:
        return _select(text, change.order(count))
    ends = np.empty(count * FIELDS, dtype=np.int64)
    perturbation.field_ends(text, ends)
    shifts = perturbation.draw_integers(change.key, 0, np.full(FIELDS, count, dtype=np.int64))
    shifts[0] = 0
    out = np.empty_like(text)
    perturbation.roll_fields(out, text, ends, shifts, change.key + np.uint64(1), change.repeat)
    return out


def find(folder: Path) -> list[Path]:
    """Find the file of a dataset."""
    return sorted(folder.glob(PATTERNS))


def scan(folder: Path, skip_damaged: bool, world: World) -> TextFile:
    """Scan a dataset; collective.

    Raises
    ------
    InputError : the dataset has defects.

    """
    (path,) = find(folder) or [folder / PATTERNS]
    if not world.on_root(path.exists):
        source.report_defects([Defect(PATTERNS, "is missing")], folder, world, skip=False)
    part, defects = scan_lines(path, world)
    source.report_defects(defects, folder, world, skip=False)
    return TextFile(source.usable_parts([part], folder, world))


def scan_lines(path: Path, world: World) -> tuple[DatasetPart, list[Defect]]:
    """Check every byte of a text file, on all ranks; collective."""
    size = path.stat().st_size
    step = max(MIN_PIECE_BYTES, min(size // source.MIN_PIECES, source.PIECE_BYTES))
    span = max(step, source.PIECE_BYTES * 8 // step * step)
    ranges = range(0, size, span)
    found = source.run_in_parallel(
        world, [partial(_scan_range, path, first, min(first + span, size), step) for first in ranges]
    )
    merged, lines, wrong, first_defect = FileScan(), 0, 0, ""
    for part, reason, number, count in found:
        merged.offset.extend(part.offset)
        merged.size.extend(part.size)
        merged.records.extend(part.records)
        first_defect = first_defect or (f"line {lines + number:,} {REASONS[reason]}" if count else "")
        lines, wrong = lines + sum(part.records), wrong + count
    defects = [Defect(path.name, f"{first_defect} ({wrong:,} of {lines:,} lines wrong)")] if wrong else []
    if not lines:
        defects = [Defect(path.name, "is empty")]
    return source.make_part("training", [path], [merged]), defects


def _scan_range(path: Path, first: int, stop: int, step: int) -> tuple[FileScan, int, int, int]:
    """Scan the lines that begin in a range of the file."""
    size = path.stat().st_size
    origin, end = max(0, first - 1), min(size, stop + MAX_LINE_BYTES)
    text = source.read_bytes(path, origin, end - origin)
    out = np.empty((-(-(stop - first) // step) + 1, 3), dtype=np.int64)
    pieces, reason, number, count = cut_lines(text, origin, first, stop, end == size, step, out)
    columns = out[:pieces].T.tolist() if pieces else [[], [], []]
    return FileScan(*columns), reason, number, count
