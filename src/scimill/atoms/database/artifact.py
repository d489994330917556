"""A database of atoms as an artifact: verify its contents, and repair a damaged one.

Every record of a journal has a checksum, compressed segments and reductions have a seal, as stores do, and every
structure has a hash of its geometry. Segments of earlier versions have no seal: of their labels no damage is found.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scimill.artifacts import COMPLETE, Artifact, Findings, Values
from scimill.claim import Claim
from scimill.errors import ScimillError, StorageError
from scimill.files import rename, storage_errors, sync
from scimill.parallel.report import describe_count
from scimill.parallel.world import World

if TYPE_CHECKING:
    from scimill.atoms.database.snapshot import Snapshot

MANIFEST, LOCK = "manifest.json", "lock"
FOLDERS = ("Compressed_data", "Uncompressed_data")
SET_ASIDE = "Set_aside"
ROWS = 8192  # checked at once


class DatabaseArtifact(Artifact):
    """A database of atomic structures. HDF5 is imported only to read it."""

    kind = "database"

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Whether a directory holds the folders of a database."""
        try:
            return all((path / name).is_dir() for name in FOLDERS)
        except OSError:
            return False

    @contextlib.contextmanager
    def _open(self) -> "Iterator[Snapshot]":
        from scimill.atoms.database.snapshot import Snapshot

        with contextlib.closing(Snapshot(self.path)) as snapshot:
            yield snapshot

    def describe_completeness(self) -> str:
        """Return `COMPLETE`, since a database is readable at any time; raise if it has no manifest."""
        from scimill.atoms.database.snapshot import DatabaseManifest

        DatabaseManifest.read(self.path)
        return COMPLETE

    # ---- verify ----

    def verify(self, world: World) -> Findings:
        """Check records, geometries and indices, on rank 0 alone."""
        return world.on_root(self._verify)

    def _verify(self) -> Findings:
        problems = [*self._journal_problems()]
        if damaged := [*self._seal_problems()]:  # HDF5 may crash on them
            return Findings("", (*problems, *damaged))
        with self._open() as snapshot:
            problems += [*self._segment_problems(snapshot), *self._reduction_problems(snapshot)]
            rows = sum(snapshot.groups.values())
            waiting = snapshot.uncompressed_rows()
        what = f"{self.path}: sound; structures: {rows:,} compressed, {waiting:,} uncompressed; geometry hashes match"
        return Findings(what, tuple(problems))

    def _journals(self) -> list[Path]:
        """List the journals that are not yet compressed."""
        from scimill.atoms.database.snapshot import DatabaseManifest, sessions

        return [
            path
            for session in sessions(self.path, DatabaseManifest.read(self.path).first)
            for path in session.iterdir()
        ]

    def _journal_problems(self) -> Iterator[str]:
        from scimill.atoms.database.salvage import salvage

        for path in self._journals():
            with storage_errors(path, "reading a journal"):
                found = salvage(path)
            if found.is_damaged:
                name, lost = path.relative_to(self.path), found.damaged + found.torn
                whole = describe_count(len(found.records), "whole record")
                yield f"{name}: damaged: {describe_count(lost, 'byte')}; readable: {whole}"

    def _seal_problems(self) -> Iterator[str]:
        from scimill.atoms.database.segments import check_segment
        from scimill.atoms.database.snapshot import DatabaseManifest

        for name, _ in DatabaseManifest.read(self.path).segments:
            try:
                check_segment(self.path / FOLDERS[0] / name)
            except ScimillError:
                yield f"{FOLDERS[0]}/{name}: damaged: it differs from what was written"

    def _segment_problems(self, snapshot: "Snapshot") -> Iterator[str]:
        for group, total in snapshot.groups.items():
            try:
                wrong = sum(_count_wrong(snapshot, group, first, first + ROWS) for first in range(0, total, ROWS))
            except (ScimillError, KeyError, ValueError, OSError) as error:
                yield f"{FOLDERS[0]}/{group}: cannot be read: {error}"
                continue
            if wrong:
                yield f"{FOLDERS[0]}/{group}: wrong geometry hash: {wrong:,} of {describe_count(total, 'structure')}"

    def _reduction_problems(self, snapshot: "Snapshot") -> Iterator[str]:
        for path, problem in self._bad_iterations(snapshot):
            yield f"{path.relative_to(self.path)}: {problem}"

    def _bad_iterations(self, snapshot: "Snapshot") -> Iterator[tuple[Path, str]]:
        from scimill.atoms.database.reductions import Reductions
        from scimill.atoms.database.segments import check_segment

        reductions = Reductions(self.path)
        for name in reductions.names():
            for number in reductions.iterations(name):
                try:
                    check_segment(reductions.folder(name) / f"{number}.h5")
                    reductions.load(name, number, snapshot.groups)
                except (ScimillError, KeyError, OSError) as error:
                    yield reductions.folder(name) / f"{number}.h5", f"cannot be read: {error.args[0]}"

    # ---- repair ----

    def repair(self, world: World) -> str:
        """Keep every whole record and move damaged files to the folder Set_aside. See `Artifact.repair`."""
        return world.on_root(self._repair)

    def _repair(self) -> str:
        claim = Claim(self.path / LOCK)
        with storage_errors(self.path, "locking the database"):
            claim.acquire()
        try:
            done = [*self._repair_journals(), *self._repair_reductions()]
            left = self._verify().problems
        finally:
            claim.release()
        if left:
            what = f"cannot repair {left[0]}" + (f", and {len(left) - 1} more" if left[1:] else "")
            raise StorageError(what, where=str(self.path), remedy="import these structures again; the others are sound")
        return "\n".join(done) if done else f"{self.path}: sound; nothing to repair"

    def _repair_journals(self) -> Iterator[str]:
        """Write the whole records of each damaged journal to a new one, and replace it in one step."""
        from scimill.atoms.database import salvage

        for path in self._journals():
            with storage_errors(path, "repairing a journal"):
                found = salvage.salvage(path)
                if not found.is_damaged:
                    continue
                kept = self._free_path(path)
                new = kept.with_name(kept.name + ".new")
                new.unlink(missing_ok=True)
                salvage.write(new, found)
                _copy(path, kept)
            rename(new, path)
            whole = describe_count(len(found.records), "whole record")
            yield f"{path}: {whole} kept; the damaged journal was moved to {kept}"

    def _repair_reductions(self) -> Iterator[str]:
        """Move unreadable iterations aside, so that the previous one is the newest."""
        if any(self._seal_problems()):
            return
        with self._open() as snapshot:
            bad = [path for path, _ in self._bad_iterations(snapshot)]
        for path in bad:
            kept = self._free_path(path)
            rename(path, kept)
            yield f"{path}: moved to {kept}; the previous iteration is now the newest"

    def _free_path(self, path: Path) -> Path:
        """Return an unused path in the folder Set_aside for a file."""
        folder = self.path / SET_ASIDE
        folder.mkdir(exist_ok=True)
        name = "-".join(path.relative_to(self.path).parts)
        names = (folder / (name if number == 0 else f"{name}.{number}") for number in range(10**6))
        return next(name for name in names if not name.exists())

    # ---- contents ----

    def inspect(self) -> str:
        """Describe groups, columns and reductions."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        from scimill.atoms.database.reductions import Reductions

        with self._open() as snapshot:
            compressed = sum(snapshot.groups.values())
            waiting = snapshot.uncompressed_rows()
            yield f"{self.path}: structures: {compressed:,} compressed, {waiting:,} uncompressed"
            for group, rows in snapshot.groups.items():
                yield f"  {group:<16} {rows:,}: {', '.join(snapshot.names(group))}"
            reductions = Reductions(self.path)
            for name in reductions.names():
                newest = reductions.load(name, None, snapshot.groups)
                trained = sum(int((index == 1).sum()) for index in newest.index.values())
                structures = describe_count(trained, "structure")
                yield f"reduction {name}: iteration {newest.iteration}, {structures} to train on"

    def identity(self) -> str:
        """Return a digest of the manifest and of the sizes of the journals that are not yet compressed."""
        digest = hashlib.sha256()
        with storage_errors(self.path, "reading the database"):
            digest.update((self.path / MANIFEST).read_bytes())
            for path in self._journals():
                digest.update(f"{path.relative_to(self.path)} {path.stat().st_size}\n".encode())
        return digest.hexdigest()

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Empty, because structures come from many commands."""
        return {}

    @property
    def groups(self) -> dict[str, int]:
        """Number of compressed structures of each stoichiometry."""
        with self._open() as snapshot:
            return dict(snapshot.groups)

    @property
    def fields(self) -> Mapping[str, Values]:
        """Columns of the compressed structures, by "stoichiometry/column"."""
        from scimill.atoms.kernels.composition import species_of

        found = {}
        with self._open() as snapshot:
            for group, rows in snapshot.groups.items():
                for name in snapshot.names(group):
                    c = snapshot.columns[name]
                    shape = (rows, *c.row_shape(len(species_of(group))))
                    read = partial(self._read, group, name)
                    found[f"{group}/{name}"] = Values(shape, c.dtype, c.units, c.long_name, read, f"{group}_row")
        return found

    def _read(self, group: str, name: str, index: Any) -> NDArray[Any]:
        with self._open() as snapshot:
            return np.asarray(snapshot.rows(group, names=[name])[name][index])


def _count_wrong(snapshot: "Snapshot", group: str, first: int, stop: int) -> int:
    """Count rows whose geometry does not match its stored hash."""
    from scimill.atoms.kernels.composition import species_of
    from scimill.atoms.kernels.geometry import geometry_hash

    columns = snapshot.rows(group, first, stop)
    with np.errstate(invalid="ignore"):  # damaged coordinates may be NaN
        made = geometry_hash(species_of(group), columns["coordinates"], columns["cell"], columns["pbc"])
    return int(np.count_nonzero(made != columns["geometry_hash"]))


def _copy(path: Path, kept: Path) -> None:
    """Link a file to a second name, or copy it if the file system has no hard links."""
    try:
        os.link(path, kept)
    except OSError:
        shutil.copyfile(path, kept)
        sync(kept)
