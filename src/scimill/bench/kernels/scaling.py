"""Which pieces of a dataset make one of another size: all of them so many times, and a fair choice for the rest.

A piece is a row of records that lie together in a file. Each pass over the dataset takes every piece once; the last
pass takes some, each with the same probability, and of one of them some records.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Lengths = Callable[[int], Integers]


@dataclass(frozen=True)
class Pieces:
    """The pieces of one part (training, evaluation) of a dataset, in their order; all arrays of shape (n,).

    Attributes
    ----------
    file : number of the file.
    offset : first byte, or row, in the file.
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
    """What a scaled part consists of, in order; shape (m,).

    Attributes
    ----------
    piece : which piece.
    times : how many times it has been taken before; 0 for the first.
    size, records : its bytes and records here.
    cut : the records taken of the last one, ascending; None where that is whole.

    """

    piece: Integers
    times: Integers
    size: Integers
    records: Integers
    cut: Integers | None = None

    @property
    def total(self) -> int:
        """Bytes."""
        return int(self.size.sum())


def fill_up(sizes: Integers, request: int, random: np.random.Generator) -> tuple[Integers, int, int]:
    """Choose things in random order until the next one does not fit.

    Returns
    -------
    Those that fit, in their own order; the next one, -1 where there is none or nothing is left; what is left.
    """
    order = random.permutation(len(sizes))
    fits = int(np.searchsorted(np.cumsum(sizes[order]), request, side="right"))
    rest = request - int(sizes[order[:fits]].sum())
    return np.sort(order[:fits]), int(order[fits]) if fits < len(order) and rest else -1, rest


def fair_records(lengths: Integers, rest: int, fit: str, random: np.random.Generator) -> Integers:
    """Choose records of the given lengths for what is left; see `rounds_up` for the last one."""
    chosen, following, left = fill_up(lengths, rest, random)
    if following >= 0 and rounds_up(left, int(lengths[following]), fit):
        return np.sort(np.append(chosen, following))
    return chosen


def rounds_up(rest: int, size: int, fit: str) -> bool:
    """Whether to take one more thing of a size into a rest that is smaller than it."""
    return rest > 0 and (fit == "at-least" or (fit == "nearest" and size - rest < rest))


def passes(pieces: Pieces, count: int, shuffled: bool, random: np.random.Generator) -> tuple[Integers, Integers]:
    """All pieces `count` times: (piece, times). Where shuffled, all but the first pass are in random order."""
    orders = [random.permutation(len(pieces)) if shuffled and n else np.arange(len(pieces)) for n in range(count)]
    piece = np.concatenate([np.empty(0, dtype=np.int64), *orders])
    return piece, np.repeat(np.arange(count, dtype=np.int64), len(pieces))


def pick(
    pieces: Pieces, request: int, fit: str, shuffled: bool, random: np.random.Generator, lengths: Lengths
) -> Picks:
    """Take all pieces as often as they fit into a request, and a fair choice of them for what is left.

    Parameters
    ----------
    pieces : of one part.
    request, fit : wanted size, in the unit of the pieces, and on which side of it to end.
    shuffled : whether all passes but the first are in random order.
    random : where the choice comes from.
    lengths : lengths(piece) are the sizes of its records.

    """
    count, rest = divmod(request, int(pieces.size.sum()))
    full = passes(pieces, count, shuffled, random)
    last, following, left = fill_up(pieces.size, rest, random)
    piece, times = np.concatenate([full[0], last]), np.concatenate([full[1], np.full(len(last), count)])
    cut = None
    if following >= 0:
        sizes = lengths(following)
        cut = fair_records(sizes, left, fit, random)
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
    """Some of the picks, one after the other; only the last of all is cut."""
    columns = (column[chosen] for column in (picks.piece, picks.times, picks.size, picks.records))
    piece, times, size, records = columns
    return Picks(piece, times, size, records, picks.cut if chosen.stop == len(picks.piece) else None)


def split_into_files(picks: Picks, capacities: Integers) -> list[slice]:
    """Cut picks into files: each is full when it holds as much as the source's file whose turn it is."""
    bounds, start, number = [], 0, 0
    ends = np.cumsum(picks.size)
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        capacity = int(capacities[number % len(capacities)])
        stop = max(start + 1, int(np.searchsorted(ends, before + capacity, side="right")))
        bounds.append(slice(start, stop))
        start, number = stop, number + 1
    return bounds
