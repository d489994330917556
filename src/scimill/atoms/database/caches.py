"""Caches: the training and validation sets of an ensemble, and exports for other programs."""

import contextlib
import itertools
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.atoms.database.batch import Columns
from scimill.atoms.database.columns import Column
from scimill.atoms.database.reductions import Reduction, RowsOf, Select, selected
from scimill.atoms.database.snapshot import COMPRESSED, UNCOMPRESSED, Snapshot
from scimill.atoms.exchange import formats
from scimill.atoms.exchange.formats import FORMATS, NOT_EXPORTED, PATH, Contents, PartWriter
from scimill.atoms.kernels import windows
from scimill.atoms.kernels.composition import species_of
from scimill.atoms.kernels.geometry import id_hash
from scimill.errors import ConfigError, InputError, StorageError
from scimill.files import check_directory, check_free, rename, storage_errors
from scimill.parallel.partition import share
from scimill.parallel.world import World
from scimill.store.checksums import crc32c

INDEX, MANIFEST = "index", "manifest.json"
PARTS = ("train", "valid")
READ_ROWS = 8192
MAX_DIRECT_BYTES = 1 << 31  # bytes, limit for sets returned in memory


@dataclass(frozen=True)
class SplitRule:
    """How to split rows into the sets of an ensemble.

    Parameters
    ----------
    train_fraction, valid_fraction : shares of the selected rows; their sum is at most 1.
    n_caches : number of members.
    seed : of the order of the rows.

    Raises
    ------
    ConfigError : a fraction is negative, or the fractions add up to more than 1.

    """

    train_fraction: float
    valid_fraction: float
    n_caches: int
    seed: int

    def __post_init__(self) -> None:
        if min(self.train_fraction, self.valid_fraction) < 0 or self.train_fraction + self.valid_fraction > 1 + 1e-12:
            raise ConfigError(
                f"train_fraction = {self.train_fraction:g} and valid_fraction = {self.valid_fraction:g}",
                allowed="fractions of at least 0 that add up to at most 1",
            )
        if self.n_caches < 1:
            raise ConfigError(f"n_caches = {self.n_caches}", allowed="at least 1")


class Selection:
    """The rows for caches: compressed and, optionally, uncompressed structures.

    Parameters
    ----------
    snapshot : the database.
    reduction : the iteration that selects; None selects all except test data.
    select : which of its rows.
    uncompressed : whether to include uncompressed structures; they count as unused, because no reduction contains them.
    rows : compressed rows to use instead of the selected ones.

    Attributes
    ----------
    rows : compressed rows of each group.
    ids : ids of all rows, in the order of `blocks`.

    """

    def __init__(
        self,
        snapshot: Snapshot,
        reduction: Reduction | None,
        select: Select,
        uncompressed: bool,
        rows: RowsOf | None = None,
    ) -> None:
        self._snapshot, self._select = snapshot, select
        self.rows: RowsOf = selected(snapshot, reduction, select) if rows is None else rows
        self._extra = self._count_uncompressed() if uncompressed and _includes_uncompressed(reduction, select) else {}
        self.groups = sorted({*self.rows, *self._extra})
        self.ids: NDArray[Any] = np.concatenate([np.zeros(0, "S32"), *self._all_ids()])

    def _count_uncompressed(self) -> dict[str, int]:
        """Count the selected uncompressed rows of each group."""
        found: dict[str, int] = {}
        for batch in self._snapshot.uncompressed():
            found[batch.group] = found.get(batch.group, 0) + int(self._is_selected(batch.columns).sum())
        return {group: rows for group, rows in found.items() if rows}

    def _is_selected(self, columns: Columns) -> NDArray[np.bool_]:
        test = columns["test"] != 0
        return test if self._select == "test" else np.ones(len(test), bool) if self._select == "all" else ~test

    def _all_ids(self) -> Iterator[NDArray[Any]]:
        for _, columns in self.blocks(["uid"]):
            yield columns["uid"]

    def columns(self, group: str) -> list[Column]:
        """Return the columns of a group to export."""
        names = self._snapshot.names(group)
        names += [n for n in self._extra_names(group) if n not in names]
        return [self._snapshot.columns[name] for name in names if name not in NOT_EXPORTED]

    def _extra_names(self, group: str) -> list[str]:
        if group not in self._extra:
            return []
        return [c.name for record in self._snapshot.records() if record.group == group for c, _, _ in record.columns]

    def blocks(self, names: list[str] | None = None) -> Iterator[tuple[str, Columns]]:
        """Read the rows in blocks, group after group; without `names`, all columns and the paths."""
        for group in self.groups:
            wanted = names or [column.name for column in self.columns(group)]
            yield from ((group, columns) for columns in self._compressed_blocks(group, wanted, names is None))
            if group in self._extra:
                yield from ((group, columns) for columns in self._uncompressed_blocks(group, wanted, names is None))

    def _compressed_blocks(self, group: str, names: list[str], with_paths: bool) -> Iterator[Columns]:
        rows = self.rows.get(group, np.zeros(0, np.int64))
        for first in range(0, self._snapshot.groups.get(group, 0), READ_ROWS):
            mine = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + READ_ROWS)]
            if not len(mine):
                continue
            columns = self._snapshot.rows(group, first, first + READ_ROWS, names)
            if len(mine) < len(columns[names[0]]):  # with NumPy: HDF5 is ten times slower at single rows
                columns = {name: values[mine - first] for name, values in columns.items()}
            if with_paths:
                place = f"{COMPRESSED}/{group}/".encode()
                columns["path"] = np.array([b"%s%d" % (place, row) for row in mine.tolist()], dtype=PATH.dtype)
            yield columns

    def _uncompressed_blocks(self, group: str, names: list[str], with_paths: bool) -> Iterator[Columns]:
        for chunk in self._snapshot.chunks():
            if group not in chunk.rows:
                continue
            wanted = {g: (*names, "test", "uid") if g == group else () for g in chunk.rows}
            batch = next(b for b in self._snapshot.read_chunk(chunk, wanted) if b.group == group)
            taken = self._is_selected(batch.columns)
            columns = {name: batch.columns[name][taken] for name in names}
            if with_paths:
                ids = batch.columns["uid"][taken].tolist()
                columns["path"] = np.array([b"%s/%s" % (UNCOMPRESSED.encode(), uid) for uid in ids], dtype=PATH.dtype)
            if taken.any():
                yield columns

    @property
    def sizes(self) -> dict[str, int]:
        """Number of rows of each group."""
        return {group: len(self.rows.get(group, ())) + self._extra.get(group, 0) for group in self.groups}

    def contents(self, chosen: NDArray[np.bool_]) -> Contents:
        """Return the contents of a set made of the chosen rows."""
        bounds = np.cumsum([0, *self.sizes.values()])
        counts = [int(chosen[a:b].sum()) for a, b in itertools.pairwise(bounds)]
        rows = {group: count for group, count in zip(self.groups, counts, strict=True) if count}
        return Contents(rows, {group: [*self.columns(group), PATH] for group in rows})


def _includes_uncompressed(reduction: Reduction | None, select: Select) -> bool:
    return select in ("unused", "all", "test") or reduction is None


@dataclass(frozen=True)
class MemberSet:
    """One set: its member, its kind ("train" or "valid"), and a mask of its rows."""

    member: int
    kind: str
    chosen: NDArray[np.bool_]


def split_selection(selection: Selection, rule: SplitRule) -> list[MemberSet]:
    """Split a selection into the sets of all members."""
    places = windows.places_of(id_hash(selection.ids, rule.seed))
    made = []
    for member in range(rule.n_caches):
        sets = windows.split(places, rule.n_caches, member, rule.train_fraction, rule.valid_fraction)
        made += [MemberSet(member, kind, chosen) for kind, chosen in zip(PARTS, sets, strict=True)]
    return made


def build(
    world: World,
    selection: Selection,
    directory: Path,
    rule: SplitRule,
    form: str,
    about: Mapping[str, Any],
    *,
    overwrite: bool,
) -> list[dict[str, int]]:
    """Write the caches of all members; collective. The ranks share the members.

    Returns
    -------
    Number of rows of each member's sets.

    Raises
    ------
    StorageError : the directory already exists, or cannot be written.

    """
    new = directory.with_name(directory.name + ".part")
    parts = split_selection(selection, rule)
    world.on_root(_prepare, directory, new, overwrite, rule.n_caches)
    mine = set(share(np.arange(rule.n_caches), world.rank, world.size).tolist())
    with storage_errors(new, "writing caches"):
        _write(selection, [part for part in parts if part.member in mine], new, form)
    world.barrier()
    counts = [{p.kind: int(p.chosen.sum()) for p in parts if p.member == m} for m in range(rule.n_caches)]
    world.on_root(_finish, directory, new, {**about, "members": _set_entries(selection, parts), **_units(selection)})
    return counts


def _prepare(directory: Path, new: Path, overwrite: bool, members: int) -> None:
    if directory.exists() and not overwrite:
        raise StorageError(
            "the output already exists", where=str(directory), remedy="choose another name or use --overwrite"
        )
    if not directory.exists():
        check_directory(directory)
    with storage_errors(new, "making the output"):
        shutil.rmtree(new, ignore_errors=True)
        for member in range(members):
            (new / f"member-{member}").mkdir(parents=True)


def _write(selection: Selection, parts: list[MemberSet], folder: Path, form: str) -> None:
    """Write several sets in a single pass over the rows."""
    if form == INDEX:
        for part in parts:
            arrays: dict[str, Any] = {**_index(selection, part)}
            np.savez(folder / f"member-{part.member}" / f"{part.kind}.npz", **arrays)
        return
    check_free(folder, sum(_bytes(selection.contents(part.chosen)) for part in parts))
    writers = [
        formats.open_part(folder / f"member-{p.member}" / p.kind, form, selection.contents(p.chosen)) for p in parts
    ]
    write_sets(selection, [part.chosen for part in parts], writers)


def _index(selection: Selection, part: MemberSet) -> dict[str, NDArray[np.int64]]:
    """Return the compressed rows of each group in a set; uncompressed structures are left out."""
    found, begin = {}, 0
    for group, size in selection.sizes.items():
        rows = selection.rows.get(group, np.zeros(0, np.int64))
        mine = rows[part.chosen[begin : begin + len(rows)]]
        begin += size
        if len(mine):
            found[group] = mine
    return found


def read_whole(directory: Path) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]]:
    """Read a cache of all selected structures, in npy or npz format: its manifest and its columns.

    Raises
    ------
    InputError : the cache is missing, damaged, or does not hold all structures.

    """
    where, allowed = str(directory), "--format npy or npz, --train-fraction 1 --valid-fraction 0 --n-caches 1"
    try:
        about: dict[str, Any] = json.loads((directory / MANIFEST).read_text("utf-8"))
        shape = (about["train_fraction"], about["valid_fraction"], about["n_caches"])
        if about["format"] not in ("npy", "npz") or shape != (1, 0, 1):
            raise InputError("the cache does not hold all selected structures", where=where, allowed=allowed)
        path = directory / "member-0" / f"train{FORMATS[about['format']][0]}"
        if about["format"] == "npy":
            files = path.glob("data-*.npy")
            return about, {file.stem.removeprefix("data-"): np.load(file, mmap_mode="r") for file in files}
        with path.open("rb") as opened, np.load(opened) as arrays:
            return about, dict(arrays)
    except FileNotFoundError:
        raise InputError("no cache found", where=where, allowed=allowed) from None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        raise InputError("the cache is damaged", where=where, remedy="create it again") from None


def read_index(directory: Path, snapshot: Snapshot) -> tuple[dict[str, Any], list[dict[str, RowsOf]]]:
    """Read caches in "index" format: their manifest, and for each member the rows of its sets.

    Raises
    ------
    InputError : the caches are missing, damaged, or were made from another database.

    """
    where = str(directory)
    try:
        about: dict[str, Any] = json.loads((directory / MANIFEST).read_text("utf-8"))
        if about["format"] != INDEX:
            raise InputError(f"the caches have format {about['format']}", where=where, allowed="--format index")
        members: list[dict[str, RowsOf]] = [{} for _ in range(about["n_caches"])]
        for part in about["members"]:
            path = directory / f"member-{part['member']}" / f"{part['part']}.npz"
            with path.open("rb") as file, np.load(file) as arrays:
                members[part["member"]][part["part"]] = {group: arrays[group] for group in sorted(arrays)}
        expected = [int(part["ids_crc32c"]) for part in about["members"]]
    except FileNotFoundError:
        raise InputError("no caches found", where=where, allowed="a folder of cache --format index") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile):
        raise InputError("the caches are damaged", where=where, remedy="create them again") from None
    ids: dict[str, NDArray[Any]] = {}
    for part, checksum in zip(about["members"], expected, strict=True):
        if _ids_checksum(snapshot, members[part["member"]][part["part"]], ids) != checksum:
            what = "the caches come from another database, or contain uncompressed structures"
            raise InputError(what, where=where, remedy="create them again")
    return about, members


def _ids_checksum(snapshot: Snapshot, rows: RowsOf, ids: dict[str, NDArray[Any]]) -> int | None:
    """Checksum the ids of some rows; None if the rows do not exist. `ids` caches what was read."""
    found = [b""]
    for group, mine in rows.items():
        if group not in ids:
            ids[group] = snapshot.rows(group, names=["uid"])["uid"] if group in snapshot.groups else np.zeros(0, "S32")
        if len(mine) and not 0 <= mine.min() <= mine.max() < len(ids[group]):
            return None
        found.append(ids[group][mine].tobytes())
    return int(crc32c(b"".join(found)))


def _bytes(contents: Contents) -> int:
    sizes = {group: len(species_of(group)) for group in contents.rows}
    return sum(
        rows * sum(c.row_bytes(sizes[group]) for c in contents.columns[group]) for group, rows in contents.rows.items()
    )


def write_sets(selection: Selection, chosen: list[NDArray[np.bool_]], writers: list[PartWriter]) -> None:
    """Read all rows once and pass each writer its rows."""
    begin = 0
    for group, columns in selection.blocks():
        end = begin + len(columns["uid"])
        for writer, rows in zip(writers, chosen, strict=True):
            if (mine := rows[begin:end]).any():
                writer.write(group, {name: values[mine] for name, values in columns.items()})
        begin = end
    for writer in writers:
        writer.close()


def _set_entries(selection: Selection, parts: list[MemberSet]) -> list[dict[str, Any]]:
    """Make the manifest's entries: the number of rows of each set, and a checksum of their ids."""
    return [
        {
            "member": part.member, "part": part.kind, "rows": int(part.chosen.sum()),
            "ids_crc32c": int(crc32c(selection.ids[part.chosen].tobytes())),
        }
        for part in parts
    ]  # fmt: skip


def _units(selection: Selection) -> dict[str, Any]:
    columns = {c.name: c.units for group in selection.groups for c in selection.columns(group)}
    return {"units": columns, "rows": selection.sizes}


def _finish(directory: Path, new: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest and rename the directory to its final name, replacing an older one."""
    with storage_errors(new, "writing caches"):
        (new / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", "utf-8")
        old = directory.with_name(directory.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            directory.rename(old)
        rename(new, directory)
        shutil.rmtree(old, ignore_errors=True)


def build_in_memory(selection: Selection, rule: SplitRule) -> list[dict[str, dict[str, Columns]]]:
    """Return the caches in memory: nested by member, set, group and column.

    Raises
    ------
    InputError : they are too large.

    """
    parts = split_selection(selection, rule)
    needed = sum(_bytes(selection.contents(part.chosen)) for part in parts)
    if needed > MAX_DIRECT_BYTES:
        raise InputError(
            f"the caches take {needed:,} bytes", allowed=f"at most {MAX_DIRECT_BYTES:,} bytes in memory",
            remedy="write them to a directory",
        )  # fmt: skip
    collectors = [_Collector() for _ in parts]
    write_sets(selection, [part.chosen for part in parts], list(collectors))
    members: list[dict[str, dict[str, Columns]]] = [{} for _ in range(rule.n_caches)]
    for part, collector in zip(parts, collectors, strict=True):
        members[part.member][part.kind] = collector.groups
    return members


class _Collector(PartWriter):
    """Collects a set in memory."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Columns]] = {}
        self.groups: dict[str, Columns] = {}

    def write(self, group: str, columns: Columns) -> None:
        """Append rows."""
        self._parts.setdefault(group, []).append(columns)

    def close(self) -> None:
        """Join the rows of each group."""
        for group, parts in self._parts.items():
            self.groups[group] = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
            self.groups[group]["species"] = species_of(group)


def export(selection: Selection, output: Path, form: str, overwrite: bool) -> int:
    """Write all selected rows as one set in a format; return their number.

    Raises
    ------
    InputError : no structures are selected.
    StorageError : the output already exists, or cannot be written.

    """
    if output.exists() and not overwrite:
        raise StorageError(
            "the output already exists", where=str(output), remedy="choose another name or use --overwrite"
        )
    if not output.is_dir():
        check_directory(output)
    everything = np.ones(len(selection.ids), dtype=bool)
    if not len(everything):
        raise InputError("no structures are selected", where=str(output))
    new = output.with_name(output.name + ".new")
    suffix = FORMATS[form][0]
    made = new / f"data{suffix}"
    with storage_errors(output, "exporting"):
        check_free(output, _bytes(selection.contents(everything)))
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        write_sets(selection, [everything], [formats.open_part(new / "data", form, selection.contents(everything))])
        if output.is_dir():
            shutil.rmtree(output)
        rename(made, output)
        shutil.rmtree(new)
    return len(everything)
