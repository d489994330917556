"""The database: structures by stoichiometry, appended one by one, compressed to arrays, never lost."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scimill.atoms import evaluate, update
from scimill.atoms.calculators import make_committee
from scimill.atoms.database import caches, compression, reductions
from scimill.atoms.database.admission import Admission, SeenValues, give_ids
from scimill.atoms.database.batch import BatchWriter, Columns, StructureBatch, make_batch
from scimill.atoms.database.caches import Selection, SplitRule
from scimill.atoms.database.columns import KNOWN, REQUIRED_NAMES, Column, Of
from scimill.atoms.database.journal import JournalWriter
from scimill.atoms.database.reductions import Reduction, Reductions, Select
from scimill.atoms.database.snapshot import (
    COMPRESSED,
    MANIFEST,
    REDUCTIONS,
    UNCOMPRESSED,
    DatabaseManifest,
    Snapshot,
    sessions,
)
from scimill.atoms.evaluate import Arrays, Predictions
from scimill.atoms.exchange import formats
from scimill.atoms.kernels.geometry import draw_share
from scimill.atoms.update import Procedure, Rules, UpdateResult
from scimill.claim import Claim
from scimill.errors import ConfigError, InputError, ScimillError, StorageError
from scimill.files import check_directory, storage_errors
from scimill.parallel.report import describe_count
from scimill.parallel.world import Stop, World

READ_ROWS = 8192  # rows per read when reading everything


class Database:
    """A database of atomic structures in a directory.

    Any number of processes may read while one writes. They read from a `Snapshot`, which `refresh` renews.

    Parameters
    ----------
    path : the directory.
    write : whether to open it for writing. Only one process, or one job of several ranks, can write at a time.
    create : whether to create a missing database when opening it for writing.
    world : the ranks that read or write together; all of them call the same methods. One rank if not given.
    admission : rules for adding structures.
    sync : whether `add` waits for the disk. Otherwise added structures survive a crash of the process, but not of the
        machine.

    Raises
    ------
    InputError : the path is not a database.
    StorageError : another process is writing it, or it cannot be written.

    """

    def __init__(
        self,
        path: str | Path,
        *,
        write: bool = False,
        world: World | None = None,
        admission: Admission | None = None,
        create: bool = True,
        sync: bool = False,
    ) -> None:
        self.path = Path(path)
        self.world = world or World(None)
        self.admission = admission or Admission()
        self._sync = sync
        self._claim: Claim | None = None
        self._writer: BatchWriter | None = None
        self._journal: JournalWriter | None = None
        self._snapshot: Snapshot | None = None
        self._ids: SeenValues | None = None
        self._hashes: SeenValues | None = None
        self._definitions: dict[str, Column] = {}
        self._is_new = False
        if write:
            self.world.on_root(self._open_for_writing, create)
        self.refresh()

    # ---- opening and closing --------------------------------------------------------------------------------

    def _open_for_writing(self, create: bool) -> None:
        """Lock the database for writing, create it if it is missing, and remove leftovers of a killed writer."""
        if not create:
            DatabaseManifest.read(self.path)
        if not self.path.exists():
            check_directory(self.path)
        with storage_errors(self.path, "opening the database"):
            if self.path.exists() and not (self.path / MANIFEST).exists() and not self._is_unfinished():
                raise StorageError(
                    "the directory is not a database", where=str(self.path), remedy="choose another directory"
                )
            self._is_new = not self.path.exists()
            self.path.mkdir(exist_ok=True)
            claim = Claim(self.path / "lock")
            claim.acquire()
            self._claim = claim
            for name in (COMPRESSED, UNCOMPRESSED, REDUCTIONS):
                (self.path / name).mkdir(exist_ok=True)
        if not (self.path / MANIFEST).exists():
            DatabaseManifest().write(self.path)
        self._remove_unused(DatabaseManifest.read(self.path))

    def _is_unfinished(self) -> bool:
        """Whether the directory is empty, or holds only files of an interrupted creation."""
        ours = {"lock", MANIFEST + ".part", COMPRESSED, UNCOMPRESSED, REDUCTIONS}
        return {entry.name for entry in self.path.iterdir()} <= ours

    def _remove_unused(self, manifest: DatabaseManifest) -> None:
        """Remove unused files: those of an interrupted write, and journals that are already compressed."""
        kept = {name for name, _ in manifest.segments}
        with storage_errors(self.path, "removing unused files"):
            for entry in (self.path / COMPRESSED).iterdir():
                if entry.name not in kept:
                    entry.unlink()
            for entry in (self.path / UNCOMPRESSED).iterdir():
                if not entry.name.isdecimal() or int(entry.name) < manifest.first:
                    shutil.rmtree(entry)

    def _remove_empty(self) -> bool:
        """Remove the files of a database that this process has made and that holds nothing; return whether it did."""
        folders = [self.path / name for name in (COMPRESSED, UNCOMPRESSED, REDUCTIONS)]
        if self.world.size == 1:  # other ranks may still be writing
            for part in (self.path / UNCOMPRESSED).glob("*.part"):
                shutil.rmtree(part)
        if any(entry for folder in folders for entry in folder.iterdir()):
            return False
        for folder in folders:
            folder.rmdir()
        (self.path / MANIFEST).unlink()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_removed = isinstance(error, ScimillError) and self._is_new and self._remove_empty()
        self.close()
        if is_removed:
            with contextlib.suppress(OSError):  # something else is in it
                self.path.rmdir()

    def close(self) -> None:
        """Sync added structures to the disk and release the lock."""
        self._end_session()
        self.snapshot.close()
        if self._claim:
            self._claim.release()
            self._claim = None

    def refresh(self) -> None:
        """Take a new snapshot of the database; all ranks see the same one."""
        while True:
            if self._snapshot:
                self._snapshot.close()
            with self.world.together():
                self._snapshot = Snapshot(self.path)
            seen = (self._snapshot.manifest, [len(journal.index.kinds) for journal in self._snapshot.journals])
            if all(self.world.gather_all(self.world.broadcast(seen) == seen)):
                break
        self.total = self.rows()
        """number of structures, including those added since the last `refresh`"""

    @property
    def snapshot(self) -> Snapshot:
        """The contents of the database at the last `refresh`."""
        assert self._snapshot is not None
        return self._snapshot

    # ---- reading --------------------------------------------------------------------------------------------

    @property
    def groups(self) -> dict[str, int]:
        """Number of compressed structures of each stoichiometry (Hill formula)."""
        return dict(self.snapshot.groups)

    @property
    def columns(self) -> dict[str, Column]:
        """All possible columns by name."""
        return {**self.snapshot.columns, **self._definitions}

    def rows(self) -> int:
        """Number of structures, compressed and uncompressed."""
        return sum(self.snapshot.groups.values()) + self.snapshot.uncompressed_rows()

    def read(self, group: str, names: Sequence[str] | None = None, first: int = 0, stop: int | None = None) -> Columns:
        """Read compressed structures of a stoichiometry: arrays by name, rows along the first axis.

        Raises
        ------
        InputError : unknown group or column.

        """
        if group not in self.snapshot.groups:
            raise InputError(
                f"no compressed structures of {group}", where=str(self.path), allowed=", ".join(self.groups)
            )
        unknown = [name for name in names or () if name not in self.snapshot.columns]
        if unknown:
            raise InputError(f"no column {unknown[0]!r}", where=str(self.path), allowed=", ".join(self.columns))
        return self.snapshot.rows(group, first, stop, names)

    def blocks(self, names: Sequence[str] | None = None, rows: int = READ_ROWS) -> Iterator[tuple[str, int, Columns]]:
        """Read all compressed structures in blocks: (group, first row, arrays)."""
        for group, total in self.snapshot.groups.items():
            for first in range(0, total, rows):
                yield group, first, self.snapshot.rows(group, first, first + rows, names)

    def uncompressed(self) -> Iterator[StructureBatch]:
        """Read the structures that are not yet compressed."""
        return self.snapshot.uncompressed()

    def find(self, uid: str) -> str:
        """Return the current path of a structure, such as Compressed_data/Al28/17.

        Raises
        ------
        InputError : no such structure.

        """
        wanted = uid.encode()
        for group, first, columns in self.blocks(["uid"]):
            found = np.flatnonzero(columns["uid"] == wanted)
            if len(found):
                return f"{COMPRESSED}/{group}/{first + found[0]}"
        if any((batch.columns["uid"] == wanted).any() for batch in self.uncompressed()):
            return f"{UNCOMPRESSED}/{uid}"
        raise InputError(f"no structure {uid!r}", where=str(self.path))

    def duplicates(self) -> list[list[str]]:
        """Find duplicates: lists of two or more ids of structures with the same rounded geometry."""
        hashes, ids = self._read_column("geometry_hash"), self._read_column("uid")
        order = np.argsort(hashes, kind="stable")
        bounds = np.flatnonzero(np.diff(hashes[order])) + 1
        return [[uid.decode() for uid in ids[part]] for part in np.split(order, bounds) if len(part) > 1]

    def _read_column(self, name: str) -> NDArray[Any]:
        """Read one value per structure, uncompressed structures last, shape (rows,)."""
        parts = [columns[name] for _, _, columns in self.blocks([name], rows=1 << 20)]
        parts += [batch.columns[name] for batch in self.uncompressed()]
        return np.concatenate([np.zeros(0, KNOWN[name].dtype), *parts])

    # ---- adding ---------------------------------------------------------------------------------------------

    def define(
        self, name: str, unit: str, of: Of = "system", shape: tuple[int, ...] = (), *, text: bool = False
    ) -> None:
        """Declare a property of your own, which `add` then accepts under its name.

        Parameters
        ----------
        name : its name. The first definition of a name is permanent.
        unit : its unit, "1" if it has none.
        of, shape : whether it belongs to the structure or to each atom, and the shape of one value.
        text : whether it is a short text instead of a number.

        Raises
        ------
        ConfigError : invalid name.
        InputError : the name is a built-in column, or is already defined with another unit or shape.

        """
        column = Column(name, unit, "user's property", of, shape, "|S64" if text else "<f8")
        known = self.columns.get(name)
        if known is not None and (known.name in REQUIRED_NAMES or known != column):
            raise InputError(
                f"{name} is already defined: {known.of}, shape {known.shape}, unit {known.units}",
                where=name, remedy="use that unit and shape, or choose another name",
            )  # fmt: skip
        if not name.isidentifier() or name == "species":
            raise ConfigError(f"invalid property name {name!r}", where=name, allowed="letters, digits and _")
        self._definitions[name] = column

    def add(
        self,
        species: ArrayLike | Sequence[str],
        coordinates: ArrayLike,
        *,
        cell: ArrayLike | None = None,
        pbc: ArrayLike | None = None,
        uid: str = "",
        test: bool = False,
        **labels: ArrayLike,
    ) -> str:
        """Add one structure and return its id; the structure is saved when this returns.

        Parameters
        ----------
        species : symbols or atomic numbers, shape (atoms,), in any order.
        coordinates : Å, shape (atoms, 3).
        cell : Å, vectors as rows, shape (3, 3); no cell if not given.
        pbc : shape (3,); periodic along every cell vector if not given.
        uid : a unique id of at most 32 characters; generated if not given.
        test : whether it is permanently held out as test data.
        labels : in the units of `columns`: energy in eV, forces (atoms, 3) in eV/Å, stress (6,) in eV/Å³, …

        Raises
        ------
        InputError : unknown element, wrong shape, NaN, or an id that already exists.
        StorageError : the database is not open for writing, or cannot be written.

        """
        ids = self.add_batch(
            species, np.asarray(coordinates)[None], cell=None if cell is None else np.asarray(cell)[None], pbc=pbc,
            uid=[uid] if uid else (), test=[test], **{name: np.asarray(value)[None] for name, value in labels.items()},
        )  # fmt: skip
        return ids[0] if ids else ""

    def add_batch(
        self,
        species: ArrayLike | Sequence[str],
        coordinates: ArrayLike,
        *,
        cell: ArrayLike | None = None,
        pbc: ArrayLike | None = None,
        uid: Sequence[str | bytes] = (),
        test: ArrayLike | None = None,
        **labels: ArrayLike,
    ) -> list[str]:
        """Add structures of one stoichiometry, as `add`.

        All arguments except `species` have rows along the first axis.

        Returns
        -------
        The ids of the structures that were added.

        """
        return self.add_checked(self.batch(species, coordinates, cell=cell, pbc=pbc, uid=uid, test=test, labels=labels))

    def add_checked(self, batch: StructureBatch) -> list[str]:
        """Add a result of `batch`; return the ids of the structures that were added."""
        batch = self._admit(batch)
        if batch.rows:
            with storage_errors(self.path / UNCOMPRESSED, "adding structures"):
                self._session().write(batch)
            self._remember(batch)
        return [identifier.decode() for identifier in batch.columns["uid"].tolist()]

    def batch(self, species: ArrayLike | Sequence[str], coordinates: ArrayLike, *, labels: Mapping[str, ArrayLike],
              cell: ArrayLike | None = None, pbc: ArrayLike | None = None,
              uid: Sequence[str | bytes] | NDArray[Any] = (),
              test: ArrayLike | None = None) -> StructureBatch:  # fmt: skip
        """Check structures as `add_batch` does, but do not add them."""
        definitions = KNOWN if labels.keys() <= KNOWN.keys() else self.columns
        for name in labels:
            if name not in definitions or name in REQUIRED_NAMES:
                raise InputError(
                    f"unknown property {name!r}", where=name, allowed=", ".join(definitions.keys() - {*REQUIRED_NAMES}),
                    remedy="declare it with its unit first: Database.define",
                )  # fmt: skip
        made = make_batch(
            species, coordinates, cell=cell, pbc=pbc, uid=uid, test=test, labels=labels, definitions=definitions,
            missing=self.admission.missing,
        )  # fmt: skip
        if self.admission.test_fraction:
            columns = made.columns
            columns["test"] |= draw_share(columns["geometry_hash"], self.admission.test_fraction, self.admission.seed)
        return made

    def _admit(self, batch: StructureBatch) -> StructureBatch:
        """Assign ids; refuse or skip duplicates."""
        kept = self.find_new(batch.columns["geometry_hash"], self.known_hashes)
        if not kept.all():
            batch = batch.part(kept)
        give_ids(batch, self.total)
        self.check_ids(batch.columns["uid"])
        return batch

    def find_new(self, hashes: NDArray[np.uint64], known: SeenValues | None) -> NDArray[np.bool_]:
        """Return which geometries to keep, by the rule for duplicates."""
        if known is None:
            return np.ones(len(hashes), dtype=bool)
        seen = known.find(hashes)
        if seen.any() and self.admission.duplicates == "refuse":
            raise InputError(
                f"already in the database: {describe_count(int(seen.sum()), 'geometry', 'geometries')}",
                where=str(self.path),
                remedy="set duplicates to skip or keep",
            )
        return ~seen

    @property
    def known_hashes(self) -> SeenValues | None:
        """Hashes of all geometries; None if duplicates are kept."""
        if self.admission.duplicates == "keep":
            return None
        if self._hashes is None:
            self._hashes = SeenValues(self._read_column("geometry_hash"))
        return self._hashes

    def check_ids(self, ids: NDArray[np.bytes_]) -> None:
        """Refuse ids that are already in the database or occur twice."""
        if self._ids is None:
            self._ids = SeenValues(self._read_column("uid"))
        seen = self._ids.find(ids)
        if seen.any():
            raise InputError(
                f"the id {ids[seen][0].decode()!r} already exists", where=str(self.path),
                remedy="give every structure a unique id, or no id",
            )  # fmt: skip

    def _remember(self, batch: StructureBatch) -> None:
        """Remember the ids and hashes of added structures."""
        self.total += batch.rows
        assert self._ids is not None
        self._ids.add(batch.columns["uid"])
        if self._hashes is not None:
            self._hashes.add(batch.columns["geometry_hash"])

    def _session(self) -> BatchWriter:
        """Return the writer of this session's journal; create the journal for the first structure."""
        if self._writer is None:
            self.require_writing()
            folder = self.path / UNCOMPRESSED / f"{self.next_session():06d}"
            folder.mkdir()
            self._journal = JournalWriter(folder / "000000.journal", sync=self._sync)
            self._writer = BatchWriter(self._journal)
        return self._writer

    def require_writing(self) -> None:
        """Raise if the database is open for reading only."""
        if not self.world.broadcast(self._claim is not None):
            raise StorageError(
                "the database is open for reading only", where=str(self.path), remedy="open it with write=True"
            )

    def next_session(self) -> int:
        """Return the number of the next folder of uncompressed data."""
        found = sessions(self.path)
        return max(self.snapshot.manifest.first, int(found[-1].name) + 1 if found else 0)

    def _end_session(self) -> None:
        if self._journal:
            with storage_errors(self.path / UNCOMPRESSED, "adding structures"):
                self._journal.close()
        self._journal = self._writer = None

    def reload(self) -> None:
        """Take a new snapshot after an import, which adds structures without `add`."""
        self._ids = self._hashes = None
        self.refresh()

    # ---- compressing ----------------------------------------------------------------------------------------

    def compress_dataset(self) -> dict[str, int]:
        """Append the uncompressed structures to the compressed ones of their stoichiometry; collective.

        This writes and syncs a new segment, lists it in the manifest instead of the journals, and removes the journals.
        Structures that were compressed before keep their rows. A kill at any instant leaves the old or the new state.

        Returns
        -------
        Number of rows moved, by group.

        Raises
        ------
        StorageError : not open for writing, or the disk is full; nothing is lost.

        """
        self.require_writing()
        self._end_session()
        self.refresh()
        plan = compression.make_plan(self.snapshot)
        if plan.rows:
            compression.write_segment(self.world, self.snapshot, plan, self.columns)
            self.world.on_root(self._commit, plan)
        self.refresh()
        return plan.rows

    def _commit(self, plan: compression.CompressionPlan) -> None:
        old = self.snapshot.manifest
        users = {name: c for name, c in self.columns.items() if name not in KNOWN}
        new = DatabaseManifest((*old.segments, (plan.name, plan.rows)), plan.first, users)
        new.write(self.path)
        self._remove_unused(new)

    # ---- reductions and caches ------------------------------------------------------------------------------

    @property
    def reductions(self) -> Reductions:
        """The reductions of this database."""
        return Reductions(self.path)

    def reduction(self, name: str, iteration: int | None = None) -> Reduction:
        """Read an iteration of a reduction, by default the newest; collective. Old iterations stay readable.

        Raises
        ------
        InputError : no such reduction or iteration.

        """
        return self.world.on_root(self.reductions.load, name, iteration, self.snapshot.groups)

    def create_reduction(
        self,
        name: str,
        *,
        fraction: float | None = None,
        number: int | None = None,
        mask: Mapping[str, ArrayLike] | None = None,
        seed: int = 1,
    ) -> Reduction:
        """Create a reduction with its iteration 0; collective.

        Parameters
        ----------
        name : its name.
        fraction, number : how many structures to train on first, drawn from all that have an energy and are not test
            data. The draw depends on the seed and the ids, not on the order of the structures.
        mask : the index of each group instead: -1, 0, 1, your own tags from 2 on, or booleans.
        seed : of the draw.

        Raises
        ------
        ConfigError : not exactly one of fraction, number and mask, or more structures than there are.
        InputError : the reduction already exists, or the mask does not fit.

        """
        return reductions.create(
            self.snapshot, name, fraction=fraction, number=number, mask=mask, seed=seed, world=self.world
        )

    def select(
        self,
        reduction: str | None = None,
        *,
        iteration: int | None = None,
        select: Select = "train",
        use_uncompressed_data: bool = False,
    ) -> Selection:
        """Select structures; see `build_strided_train_cache`."""
        chosen = None if reduction is None else self.reduction(reduction, iteration)
        return Selection(self.snapshot, chosen, select, use_uncompressed_data)

    def build_strided_train_cache(
        self,
        directory: str | Path | None,
        data_reduction: str | None,
        train_fraction: float,
        valid_fraction: float,
        n_caches: int = 8,
        use_uncompressed_data: bool = False,
        format: str = "h5",
        seed: int = 1,
        return_direct: bool = False,
        *,
        iteration: int | None = None,
        select: Select = "train",
        overwrite: bool = False,
    ) -> Any:
        """Make the training and validation sets of an ensemble, see `windows.window`; collective.

        Parameters
        ----------
        directory : the output, with one folder per member and a manifest. None with ``return_direct``.
        data_reduction : the reduction that selects the rows; None selects all except test data.
        train_fraction, valid_fraction : shares of the selected rows for each member.
        n_caches : number of members.
        use_uncompressed_data : whether to include uncompressed structures. No reduction contains them, so they count as
            unused.
        format : one of `formats.FORMATS`, or "index": row numbers only, for readers of the database.
        seed : of the order; the sets depend on it and on the ids, not on the order of the structures.
        return_direct : whether to return the sets in memory and write nothing.
        iteration : of the reduction; the newest if not given.
        select : which rows of the reduction: train, unused, anomalous, test or all.
        overwrite : whether to replace an existing directory, once the new one is complete.

        Returns
        -------
        The number of rows of each member's sets; or, with ``return_direct``, the sets: for each member "train" and
        "valid", each with columns by group. Each row has its ``path``, as `find` returns it.

        Raises
        ------
        ConfigError : the fractions add up to more than 1, or the format is unknown.
        InputError : no structures are selected.
        StorageError : the directory already exists, or cannot be written.

        """
        with self.world.together():
            rule = SplitRule(train_fraction, valid_fraction, n_caches, seed)
            if format not in (*formats.FORMATS, caches.INDEX):
                raise ConfigError(f"unknown format {format!r}", allowed=", ".join((*formats.FORMATS, caches.INDEX)))
            rows = self.select(
                data_reduction, iteration=iteration, select=select, use_uncompressed_data=use_uncompressed_data
            )
            if not len(rows.ids):
                raise InputError(f"select = {select} selects no structures", where=str(self.path))
            if return_direct:
                return caches.build_in_memory(rows, rule)
            if directory is None:
                raise ConfigError("caches need a directory", remedy="give a directory or return_direct=True")
        about = {
            "database": self.path.name, "reduction": data_reduction, "select": select, "format": format, "seed": seed,
            "iteration": None if data_reduction is None else self.reduction(data_reduction, iteration).iteration,
            "train_fraction": train_fraction, "valid_fraction": valid_fraction, "n_caches": n_caches,
        }  # fmt: skip
        return caches.build(self.world, rows, Path(directory), rule, format, about, overwrite=overwrite)

    # ---- active learning ------------------------------------------------------------------------------------

    def ase_evaluate_unused_data(
        self,
        ase_calculator: Any,
        reduction: str,
        *,
        arguments: Mapping[str, Any] | None = None,
        select: Select = "unused",
        stop: Stop | None = None,
    ) -> Predictions:
        """Evaluate the unused structures of a reduction's newest iteration with ASE calculators; collective.

        After a stop or a kill, the same call continues. If a calculator fails on a structure, the failure is recorded.
        Structures may be added meanwhile. The calculator does not see the stored labels.

        Parameters
        ----------
        ase_calculator : a name ("emt"), an import path ("tblite.ase:TBLite"), a function that makes a calculator, or a
            calculator; or a sequence of these, a committee. Each rank makes its own.
        reduction : its name.
        arguments : passed to calculators given by name or import path.
        select : "unused", or for example "test".
        stop : checked between blocks.

        Returns
        -------
        Predicted and true values side by side, with the path of each structure.

        Raises
        ------
        ConfigError : no such calculator.
        InputError : no such reduction.
        Stopped : on a signal or before the walltime; finished blocks are kept.

        """
        with self.world.together():
            members = make_committee(ase_calculator, arguments)
        evaluate.evaluate(self.snapshot, reduction, members, select=select, world=self.world, stop=stop)
        return self.predictions(reduction)

    def evaluate_unused_data(
        self, run: str | Path, reduction: str, *, select: Select = "unused", stop: Stop | None = None
    ) -> Predictions:
        """Evaluate unused structures with a trained ensemble, many at once; collective.

        Parameters
        ----------
        run : run directory of ``scimill atoms train``; its members form the committee.
        reduction, select, stop : see `ase_evaluate_unused_data`.

        """
        from scimill.atoms.learning.potentials import Ensemble  # imported here because torch takes a second to load

        return self.ase_evaluate_unused_data(partial(Ensemble, run), reduction, select=select, stop=stop)

    def predictions(self, reduction: str) -> Predictions:
        """Read the results of `ase_evaluate_unused_data`; collective."""
        return evaluate.load(self.snapshot, reduction, self.world)

    def update_data_reductions(
        self,
        reduction: str,
        prediction_arrays: Arrays,
        true_arrays: Mapping[str, Mapping[str, Any]],
        fraction: float,
        exclude_high_error: float | str | None = None,
        procedure: Procedure = "highest",
        **more: Any,
    ) -> UpdateResult:
        """Add structures to the training set of a reduction, as a new iteration; collective.

        This excludes anomalous structures, then chooses from the others, then deletes the predictions. See
        `update.Rules` for ``fraction``, ``exclude_high_error``, ``procedure`` and for ``more``: score, threshold,
        exclude_failed, seed.

        Parameters
        ----------
        reduction : its name.
        prediction_arrays, true_arrays : ``predicted`` and ``true`` of `Predictions`.

        Raises
        ------
        ConfigError : invalid rules.
        InputError : the predictions do not belong to the newest iteration, or the reduction is complete.

        """
        with self.world.together():
            rules = Rules(fraction, exclude_high_error, procedure, **more)
        return update.update(self.snapshot, reduction, prediction_arrays, true_arrays, rules, self.world)
