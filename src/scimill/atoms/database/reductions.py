"""Data reductions: which structures each iteration of active learning trains on; none is ever lost.

A reduction is a folder, and an iteration is a file in it, written once, with one index array per stoichiometry. Rows
beyond the end of an array were added later and count as unused, so an iteration stays valid whatever is added.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scimill.atoms.database.segments import Segment, SegmentWriter
from scimill.atoms.database.snapshot import REDUCTIONS, Snapshot
from scimill.atoms.kernels.geometry import id_hash
from scimill.claim import Claim
from scimill.errors import ConfigError, InputError, StorageError
from scimill.files import replacing, storage_errors
from scimill.parallel.report import describe_count
from scimill.parallel.world import World
from scimill.store.layout import Field
from scimill.version import __version__

ANOMALOUS, UNUSED, TRAINED = -1, 0, 1
"""Values of an index; values from 2 to 127 are the user's own tags, and are not trained on."""
Select = Literal["train", "unused", "anomalous", "test", "all"]
SELECTED = {"train": TRAINED, "unused": UNUSED, "anomalous": ANOMALOUS}

Index = dict[str, NDArray[np.int8]]
RowsOf = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Reduction:
    """One iteration of a reduction.

    Parameters
    ----------
    name, iteration : name of the reduction, and number of the iteration.
    index : -1 anomalous, 0 unused, 1 trained on, for the first rows of each group.
    attributes : how it was made.

    """

    name: str
    iteration: int
    index: Mapping[str, NDArray[np.int8]]
    attributes: Mapping[str, Any]

    def index_for(self, group: str, rows: int) -> NDArray[np.int8]:
        """Return the index of the first ``rows`` rows of a group; rows that were added later are unused."""
        known = self.index.get(group, np.zeros(0, dtype=np.int8))
        return np.concatenate([known, np.zeros(rows - len(known), dtype=np.int8)])


class Reductions:
    """The reductions of a database.

    Parameters
    ----------
    folder : the database.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / REDUCTIONS

    def names(self) -> list[str]:
        """List the names of all reductions that have an iteration."""
        return sorted(path.name for path in self._folder.iterdir() if self._numbers(path.name))

    def folder(self, name: str) -> Path:
        """Return the folder of a reduction.

        Raises
        ------
        ConfigError : invalid name.

        """
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise ConfigError(f"invalid reduction name {name!r}", allowed="letters, digits and the characters . _ -")
        return self._folder / name

    def _numbers(self, name: str) -> list[int]:
        files = self.folder(name).glob("*.h5")
        return sorted(int(path.stem) for path in files if path.stem.isdecimal())

    def iterations(self, name: str) -> list[int]:
        """List the numbers of a reduction's iterations.

        Raises
        ------
        InputError : no such reduction.

        """
        found = self._numbers(name)
        if not found:
            raise InputError(f"no reduction {name!r}", where=str(self._folder), allowed=", ".join(self.names()))
        return found

    def load(self, name: str, iteration: int | None, groups: Mapping[str, int]) -> Reduction:
        """Read an iteration, by default the newest.

        Parameters
        ----------
        groups : number of compressed rows of each group.

        Raises
        ------
        InputError : no such reduction or iteration.
        StorageError : an index is longer than the data.

        """
        known = self.iterations(name)
        number = known[-1] if iteration is None else iteration
        if number not in known:
            raise InputError(f"no iteration {number} in reduction {name!r}", allowed=", ".join(map(str, known)))
        with contextlib.closing(Segment(self.folder(name) / f"{number}.h5")) as file:
            index = {group: file.read(group) for group in file.names()}
            attributes = file.attributes
        long = next((group for group, values in index.items() if len(values) > groups.get(group, 0)), None)
        if long:
            raise StorageError(f"the index of {long} is longer than its data", where=str(self.folder(name)))
        return Reduction(name, number, index, attributes)

    def write(
        self, name: str, number: int, index: Mapping[str, NDArray[np.int8]], attributes: Mapping[str, Any]
    ) -> None:
        """Write an iteration, on one rank that has locked the reduction."""
        fields = [
            (Field(group, "int8", "1", "-1 anomalous, 0 unused, 1 trained on; others are the user's"), len(values))
            for group, values in index.items()
            if len(values)
        ]
        attributes = {"scimill_version": __version__, "iteration": number, **attributes}
        writer = SegmentWriter(World(None), self.folder(name) / f"{number}.h5", fields, attributes)
        for field, _ in fields:
            writer.write(field.name, 0, np.ascontiguousarray(index[field.name], dtype=np.int8))
        writer.finish()

    def is_complete(self, name: str) -> bool:
        """Return whether its active learning has ended; then it cannot be updated."""
        return (self.folder(name) / "complete").exists()

    def complete(self, name: str, why: str) -> None:
        """Mark its active learning as ended."""
        with replacing(self.folder(name) / "complete", "mark of completion") as part:
            part.write_text(why + "\n", "utf-8")

    @contextlib.contextmanager
    def lock(self, name: str, world: World, *, create: bool = False) -> Iterator[Path]:
        """Lock a reduction against changes by other processes; collective. Structures may still be added."""
        folder = world.on_root(self.folder, name)
        claim = Claim(folder / "lock")

        def acquire() -> None:
            if not create:
                self.iterations(name)
            with storage_errors(folder, "opening the reduction"):
                folder.mkdir(exist_ok=True)
                claim.acquire()

        world.on_root(acquire)
        try:
            yield folder
        finally:
            claim.release()


def create(
    snapshot: Snapshot,
    name: str,
    *,
    fraction: float | None = None,
    number: int | None = None,
    mask: Mapping[str, ArrayLike] | None = None,
    seed: int = 1,
    world: World,
) -> Reduction:
    """Make iteration 0 of a reduction; see `Database.create_reduction`."""
    if sum(given is not None for given in (fraction, number, mask)) != 1:
        world.fail(ConfigError("a reduction needs a fraction, a number or a mask", allowed="exactly one of them"))
    reductions = Reductions(snapshot.folder)

    def make() -> Reduction:
        if reductions.folder(name).exists() and name in reductions.names():
            raise InputError(f"the reduction {name!r} already exists", remedy="choose another name")
        index = _index_from_mask(snapshot, mask) if mask is not None else _draw_index(snapshot, fraction, number, seed)
        how = "mask" if mask is not None else "random"
        added = sum(int((values == TRAINED).sum()) for values in index.values())
        reductions.write(
            name, 0, index, {"parent": -1, "procedure": how, "seed": seed, "n_added": added, "n_excluded": 0}
        )
        return reductions.load(name, 0, snapshot.groups)

    with reductions.lock(name, world, create=True):
        return world.on_root(make)


def _draw_index(snapshot: Snapshot, fraction: float | None, number: int | None, seed: int) -> Index:
    """Draw from all rows with an energy that are not test data; by ids, independent of their order."""
    eligible = {group: _eligible(snapshot, group) for group in snapshot.groups}
    total = sum(int(rows.sum()) for rows in eligible.values())
    count = round(total * fraction) if fraction is not None else int(number or 0)
    if not 0 <= count <= total:
        raise ConfigError(
            f"cannot draw {count:,} of {describe_count(total, 'compressed structure')}",
            allowed=f"a fraction from 0 to 1, or a number from 0 to {total}",
            remedy="run scimill atoms compress to include newly added structures",
        )
    hashes = {g: id_hash(snapshot.rows(g, names=["uid"])["uid"][rows], seed) for g, rows in eligible.items()}
    joined = np.concatenate([np.zeros(0, np.uint64), *hashes.values()])
    chosen = np.zeros(total, dtype=np.int8)
    chosen[np.argsort(joined, kind="stable")[:count]] = TRAINED
    index, begin = {}, 0
    for group, rows in eligible.items():
        index[group] = np.zeros(len(rows), dtype=np.int8)
        index[group][rows] = chosen[begin : begin + int(rows.sum())]
        begin += int(rows.sum())
    return index


def _eligible(snapshot: Snapshot, group: str) -> NDArray[np.bool_]:
    columns = snapshot.rows(group, names=["test", "energy"])
    eligible: NDArray[np.bool_] = (columns["test"] == 0) & np.isfinite(columns["energy"])
    return eligible


def _index_from_mask(snapshot: Snapshot, mask: Mapping[str, ArrayLike]) -> Index:
    index: Index = {}
    for group, values in mask.items():
        given = np.asarray(values)
        rows = snapshot.groups.get(group, 0)
        is_index = given.ndim == 1 and given.dtype.kind in "biu" and len(given) <= rows
        if not is_index or (len(given) and given.min() < ANOMALOUS):
            raise InputError(
                f"the mask has shape {given.shape} for {describe_count(rows, 'row')}", where=group,
                allowed="one whole number from -1 to 127, or one boolean, per row",
            )  # fmt: skip
        index[group] = given.astype(np.int8)
        if (snapshot.rows(group, 0, len(given), ["test"])["test"][index[group] == TRAINED] != 0).any():
            raise InputError("the mask selects test data for training", where=group, remedy="set their values to 0")
    return index


def selected(snapshot: Snapshot, reduction: Reduction | None, select: Select) -> RowsOf:
    """Return the compressed rows that a reduction selects, by group; without one, all except test data."""
    found = {}
    for group, total in snapshot.groups.items():
        test = snapshot.rows(group, names=["test"])["test"] != 0
        if select == "test":
            chosen = test
        elif select == "all":
            chosen = np.ones(total, dtype=bool)
        elif reduction is None:
            chosen = ~test
        else:
            chosen = ~test & (reduction.index_for(group, total) == SELECTED[select])
        if chosen.any():
            found[group] = np.flatnonzero(chosen)
    return found
