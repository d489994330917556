"""A dataset of plain files as an artifact."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scimill.artifacts import COMPLETE, PART, BlockArtifact, Damage, Findings, Recipe
from scimill.bench.dataset.ledger import FOLDER, MANIFEST, DatasetManifest, Ledger, PendingWrite, is_done
from scimill.bench.dataset.verify import plan_of, verify
from scimill.config import parse_yaml
from scimill.parallel.report import describe_count, describe_numbers
from scimill.parallel.world import World

CAMPAIGN = "bench"


class DatasetArtifact(BlockArtifact):
    """A directory of files in other programs' formats, with a manifest and a ledger; finished or not."""

    kind = "dataset"

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Whether a directory holds a ledger, or a manifest that contains its own checksum."""
        try:
            manifest = path / MANIFEST
            return (path / FOLDER).is_dir() or (manifest.is_file() and b"manifest_crc32c" in manifest.read_bytes())
        except OSError:
            return False

    @property
    def _is_part(self) -> bool:
        return self.path.suffix == PART

    @property
    def manifest(self) -> DatasetManifest:
        """Manifest of a finished dataset: workload, format, sizes, files with their checksums."""
        return DatasetManifest.read(self.path)

    @property
    def files(self) -> list[Path]:
        """Files of a finished dataset."""
        return [self.path / entry.name for entry in self.manifest.files]

    def describe_completeness(self) -> str:
        """Return `COMPLETE`, or how many blocks are missing."""
        if not self._is_part:
            DatasetManifest.read(self.path)
            return COMPLETE
        blocks = PendingWrite.read(self.path).blocks
        return f"unfinished: {blocks - len(self.sums()):,} of {blocks:,} blocks to do"

    def verify(self, world: World) -> Findings:
        """Check every byte of every file; the ranks share the blocks."""
        report = verify(self.path, world)
        size, count = report.manifest.size, len(report.manifest.files)
        files = describe_count(count, "file")
        return Findings(f"{self.path}: sound; {size:,} bytes in {files}", report.problems)

    def inspect(self) -> str:
        """Describe the manifest, or the configuration of an unfinished dataset."""
        if self._is_part:
            config = PendingWrite.read(self.path).config
            lines = [f"{self.path}: {self.describe_completeness()}"]
        else:
            manifest = self.manifest
            config = manifest.config
            lines = [
                f"{self.path}: {manifest.workload}, {manifest.format};"
                f" {manifest.size:,} bytes, {manifest.records:,} records",
                *(f"  {name:<16} {value}" for name, value in self.provenance.items() if name != "config"),
                *(f"{e.name}  {e.size:,} bytes, {e.records:,} records, CRC-32C {e.crc32c:08x}" for e in manifest.files),
            ]
        return "\n".join([*lines, "configuration:", *("  " + line for line in config.splitlines())])

    def identity(self) -> str:
        """Digest of the files' names, sizes and checksums; if unfinished, of the configuration."""
        if self._is_part:
            return hashlib.sha256(PendingWrite.read(self.path).config.encode()).hexdigest()
        rows = [f"{e.name} {e.size} {e.records} {e.crc32c}" for e in self.manifest.files]
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    # ---- repair ----

    def recipe(self) -> Recipe:
        """Return the recipe that made the dataset; only scaled datasets have an input."""
        config = PendingWrite.read(self.path).config if self._is_part else self.manifest.config
        maker = "scale" if "input" in parse_yaml(config, "the stored configuration").values else "generate"
        return Recipe(CAMPAIGN, maker, config)

    def find_damage(self, world: World) -> Damage:
        """Find the damaged blocks and files."""
        report = verify(self.path, world)
        count = plan_of(report.manifest).blocks
        lost = [describe_numbers("block", report.damaged)] if report.damaged else []
        lost += [f"file {name}" for name in report.wrong_files]
        if report.problems and not lost:
            lost = [report.problems[0]]
        obstacle = (
            f"it contains files that do not belong to it, such as {report.unexpected_files[0]}"
            if report.unexpected_files
            else ""
        )
        whole = f"{count - len(report.damaged):,} of {count:,} blocks in files of the right size"
        return Damage(", ".join(lost), whole, obstacle)

    def sums(self) -> Mapping[int, int]:
        """Checksums of all blocks that have a sound row in the ledger."""
        blocks = PendingWrite.read(self.path).blocks if self._is_part else plan_of(self.manifest).blocks
        try:
            rows = Ledger(self.path, blocks).rows()
        except OSError:
            return {}
        return {block: int(rows["crc32c"][block]) for block in range(blocks) if is_done(block, rows[block])}

    def prepare_part(self) -> None:
        """Turn a finished dataset into an unfinished one; the manifest has all that resuming needs."""
        manifest = self.manifest
        blocks = plan_of(manifest).blocks
        (self.path / FOLDER).mkdir(exist_ok=True)
        pending = PendingWrite.of(manifest, blocks)
        pending.write(self.path)
        Ledger(self.path, blocks).create()  # extends a truncated ledger to its full length and keeps its rows
        super().prepare_part()

    # ---- in Python ----

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How the dataset was made, and its configuration; if unfinished, the record of the run."""
        if self._is_part:
            return dataclasses.asdict(PendingWrite.read(self.path))
        manifest = self.manifest
        return {
            **manifest.made, "seed": manifest.seed, "algorithm": manifest.algorithm, "config": manifest.config,
        }  # fmt: skip
