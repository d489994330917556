"""Choosing the pieces of a scaled dataset: all pieces several times, then a fair choice.

A piece is a run of consecutive records in a file. Each pass over the dataset takes every piece once. The last pass
takes some pieces, each with the same probability, and only some records of one of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Lengths = Callable[[int], Integers]


@dataclass(frozen=True)
class Pieces:
    """The pieces of one part (training or evaluation) of a dataset, in order; arrays of shape (n,).

    Attributes
    ----------
    file : number of the file.
    offset : first byte or row in the file.
    size : bytes.
    records : number of records.

    """

    file: Integers
    offset: Integers
    size: Integers
    records: Integers

    def __len__(self) -> int:
        return len(self.file)


@dataclass(frozen=True)
class Picks:
    """The pieces that make a scaled part, in order; arrays of shape (m,).

    Attributes
    ----------
    piece : index of the piece.
    times : how often the piece was taken before.
    size, records : bytes and records taken of the piece.
    cut : the records taken of the last piece, ascending; None if it is taken whole.

    """

    piece: Integers
    times: Integers
    size: Integers
    records: Integers
    cut: Integers | None = None

    @property
    def total(self) -> int:
        """Bytes of all pieces."""
        return int(self.size.sum())


def choose_until_full(sizes: Integers, request: int, random: np.random.Generator) -> tuple[Integers, int, int]:
    """Choose items in random order until the next one does not fit.

    Returns
    -------
    The chosen items, ascending; the next one, or -1 if there is none or no space is left; the space left.
    """
    order = random.permutation(len(sizes))
    fits = int(np.searchsorted(np.cumsum(sizes[order]), request, side="right"))
    rest = request - int(sizes[order[:fits]].sum())
    return np.sort(order[:fits]), int(order[fits]) if fits < len(order) and rest else -1, rest


def choose_records(lengths: Integers, rest: int, fit: str, random: np.random.Generator) -> Integers:
    """Choose records of the given lengths for the space left; `rounds_up` decides on the last one."""
    chosen, following, left = choose_until_full(lengths, rest, random)
    if following >= 0 and rounds_up(left, int(lengths[following]), fit):
        return np.sort(np.append(chosen, following))
    return chosen


def rounds_up(rest: int, size: int, fit: str) -> bool:
    """Return whether to take one more item of a size that exceeds the space left."""
    return rest > 0 and (fit == "at-least" or (fit == "nearest" and size - rest < rest))


def repeat_pieces(
    pieces: Pieces, count: int, is_shuffled: bool, random: np.random.Generator
) -> tuple[Integers, Integers]:
    """Return (piece, times) for `count` passes over all pieces; shuffling spares the first pass."""
    orders = [random.permutation(len(pieces)) if is_shuffled and n else np.arange(len(pieces)) for n in range(count)]
    piece = np.concatenate([np.empty(0, dtype=np.int64), *orders])
    return piece, np.repeat(np.arange(count, dtype=np.int64), len(pieces))


def pick(
    pieces: Pieces, request: int, fit: str, is_shuffled: bool, random: np.random.Generator, lengths: Lengths
) -> Picks:
    """Take all pieces as often as they fit into a request, then a fair choice for the space left.

    Parameters
    ----------
    pieces : the pieces of one part.
    request, fit : requested size, in the unit of the pieces' sizes, and how the result may differ from it.
    is_shuffled : whether all passes except the first are in random order.
    random : generator for the choice.
    lengths : lengths(piece) returns the sizes of its records.

    """
    count, rest = divmod(request, int(pieces.size.sum()))
    full = repeat_pieces(pieces, count, is_shuffled, random)
    last, following, left = choose_until_full(pieces.size, rest, random)
    piece, times = np.concatenate([full[0], last]), np.concatenate([full[1], np.full(len(last), count)])
    cut = None
    if following >= 0:
        sizes = lengths(following)
        cut = choose_records(sizes, left, fit, random)
    if cut is None or not len(cut):
        return Picks(piece, times, pieces.size[piece], pieces.records[piece])
    return Picks(
        np.append(piece, following),
        np.append(times, count),
        np.append(pieces.size[piece], sizes[cut].sum()),
        np.append(pieces.records[piece], len(cut)),
        cut,
    )


def slice_picks(picks: Picks, chosen: slice) -> Picks:
    """Return consecutive picks; only the last of all may be cut."""
    columns = (column[chosen] for column in (picks.piece, picks.times, picks.size, picks.records))
    piece, times, size, records = columns
    return Picks(piece, times, size, records, picks.cut if chosen.stop == len(picks.piece) else None)


def split_into_files(picks: Picks, capacities: Integers) -> list[slice]:
    """Split picks into files as large as the source's files, in turn."""
    bounds, start, number = [], 0, 0
    ends = np.cumsum(picks.size)
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        capacity = int(capacities[number % len(capacities)])
        stop = max(start + 1, int(np.searchsorted(ends, before + capacity, side="right")))
        bounds.append(slice(start, stop))
        start, number = stop, number + 1
    return bounds
