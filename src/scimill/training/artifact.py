"""A training run or an ensemble as an artifact."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.artifacts import COMPLETE, Artifact, Findings
from scimill.config import Layer, read_yaml
from scimill.errors import InputError
from scimill.files import storage_errors
from scimill.parallel.world import World
from scimill.training.files import CONFIG, LAST, METRICS, MODEL, PREVIOUS, RESULT, RUN, members_of


class RunArtifact(Artifact):
    """Directory of a training run or an ensemble. PyTorch is imported only to read tensors."""

    kind = "training run"

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a directory holds the records of a run, or of the members of an ensemble."""
        try:
            return any((run / CONFIG).is_file() and (run / RUN).is_file() for run in (path, *members_of(path)))
        except OSError:
            return False

    @property
    def runs(self) -> list[Path]:
        """Directories of an ensemble's members, or the run's own directory."""
        return members_of(self.path) or [self.path]

    def describe_completeness(self) -> str:
        """Return `COMPLETE`, or which runs are not finished."""
        unfinished = [run for run in self.runs if not (run / RESULT).exists()]
        return f"not finished: {', '.join(run.name for run in unfinished)}" if unfinished else COMPLETE

    def verify(self, world: World) -> Findings:
        """Check that it is finished, with intact records and model; only rank 0 reads them."""
        from scimill.training.directory import verify_run

        return Findings(world.on_root(verify_run, self.path))

    def inspect(self) -> str:
        """Describe the store, the environment, the result and the configuration of each run."""
        return "\n".join(line for run in self.runs for line in _describe(run))

    def identity(self) -> str:
        """Return a digest of the records and models."""
        digest = hashlib.sha256()
        for run in self.runs:
            for name in (CONFIG, RUN, RESULT, MODEL):
                with storage_errors(run / name, "reading the run"):
                    content = (run / name).read_bytes() if (run / name).exists() else b""
                digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    # ---- repair ----

    def repair(self, world: World) -> str:
        """Say what to do about damaged tensors; training resumes from the newest intact checkpoint."""
        return world.on_root(lambda: "\n".join(self._diagnose(run) for run in self.runs))

    def _diagnose(self, run: Path) -> str:
        from scimill.training.directory import verify_run

        damaged = [name for name in (MODEL, LAST, PREVIOUS) if _is_damaged(run / name)]
        command = _command_line(run)
        resume = command if "--resume" in command else f"{command} --resume"
        is_finished = (run / RESULT).exists()
        if is_finished and (MODEL in damaged or not (run / MODEL).exists()):
            raise InputError(f"the model is damaged or missing, without a copy; damaged: {', '.join(damaged)}",
                             where=str(run), remedy=f"train again in another directory: {command}")  # fmt: skip
        if is_finished and damaged:
            return f"{run}: the model is intact; damaged: {', '.join(damaged)}, which a finished run does not need"
        if is_finished:
            verify_run(run)
            return f"{run}: sound; there is nothing to repair"
        if {LAST, PREVIOUS} <= {
            *damaged,
            *(name for name in (LAST, PREVIOUS) if not (run / name).exists()),
        } and damaged:
            raise InputError(f"no checkpoint is intact; damaged: {', '.join(damaged)}", where=str(run),
                             remedy=f"train again in another directory: {command}")  # fmt: skip
        from_previous = f" from {PREVIOUS}, because {LAST} is damaged" if LAST in damaged else ""
        return f"{run}: not finished; resume{from_previous}: {resume}"

    # ---- in Python ----

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Record of the run, or of an ensemble's first member: store, split, network, environment."""
        return _read_record(self.runs[0])

    def _config(self) -> Layer:
        return read_yaml(self.runs[0] / CONFIG)

    @property
    def metrics(self) -> dict[str, NDArray[Any]]:
        """Columns of metrics.csv by name, for the run or an ensemble's first member."""
        path = self.runs[0] / METRICS
        with storage_errors(path, "reading the metrics"), path.open(newline="", encoding="utf-8") as file:
            names, *rows = list(csv.reader(file)) or [[]]
        return {name: _column([row[number] for row in rows]) for number, name in enumerate(names)}


def _column(texts: list[str]) -> NDArray[Any]:
    """Convert to numbers, with NaN for empty cells; keep texts if one is not a number."""
    try:
        return np.array([float(text) if text else np.nan for text in texts])
    except ValueError:
        return np.array(texts)


def _is_damaged(path: Path) -> bool:
    """Return whether a file of tensors exists and is damaged."""
    from scimill.training.checkpoint import read_tensors

    if not path.exists():
        return False
    try:
        read_tensors(path, "model" if path.name == MODEL else "checkpoint")
    except InputError:
        return True
    return False


def _read_record(run: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((run / RUN).read_text("utf-8"))
    except (OSError, ValueError):
        raise InputError("the run's record is damaged", where=str(run / RUN)) from None
    return record


def _command_line(run: Path) -> str:
    return str(_read_record(run).get("environment", {}).get("command_line", "scimill … train"))


def _describe(run: Path) -> Iterator[str]:
    record = _read_record(run)
    yield f"{run}: {'finished' if (run / RESULT).exists() else 'not finished'}"
    yield from (f"  {name:<16} {value}" for name, value in record.get("store", {}).items() if name != "config")
    yield from (f"  {name:<16} {value}" for name, value in record.get("environment", {}).items() if value != "")
    if (run / RESULT).exists():
        yield f"  {'result':<16} {' '.join((run / RESULT).read_text('utf-8').split())}"
    yield "configuration:"
    yield from ("  " + line for line in (run / CONFIG).read_text("utf-8").splitlines())
