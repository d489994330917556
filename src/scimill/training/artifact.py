"""A training run, or an ensemble of them, as an artifact."""

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
    """The directory of a training run, or of an ensemble. PyTorch is imported when tensors are read."""

    kind = "training run"

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Whether a directory holds the records of a run, or those of members."""
        try:
            return any((run / CONFIG).is_file() and (run / RUN).is_file() for run in (path, *members_of(path)))
        except OSError:
            return False

    @property
    def runs(self) -> list[Path]:
        """Directories of the members of an ensemble, or the run's own."""
        return members_of(self.path) or [self.path]

    def describe_completeness(self) -> str:
        """Return `COMPLETE`, or which runs have not come to their end."""
        unfinished = [run for run in self.runs if not (run / RESULT).exists()]
        return f"not finished: {', '.join(run.name for run in unfinished)}" if unfinished else COMPLETE

    def verify(self, world: World) -> Findings:
        """Check that it is finished, and its records and model are whole; rank 0 alone reads them."""
        from scimill.training.directory import verify_run

        return Findings(world.on_root(verify_run, self.path))

    def inspect(self) -> str:
        """Describe what was trained on what, how well, and with which configuration."""
        return "\n".join(line for run in self.runs for line in _describe(run))

    def identity(self) -> str:
        """Digest of the records and models."""
        digest = hashlib.sha256()
        for run in self.runs:
            for name in (CONFIG, RUN, RESULT, MODEL):
                with storage_errors(run / name, "reading the run"):
                    content = (run / name).read_bytes() if (run / name).exists() else b""
                digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    # ---- repair ----

    def repair(self, world: World) -> str:
        """Say what to do about damaged tensors; training itself goes on from the newest checkpoint that is whole."""
        return world.on_root(lambda: "\n".join(self._judge(run) for run in self.runs))

    def _judge(self, run: Path) -> str:
        damaged = [name for name in (MODEL, LAST, PREVIOUS) if _is_damaged(run / name)]
        command = _command_line(run)
        resume = command if "--resume" in command else f"{command} --resume"
        is_finished = (run / RESULT).exists()
        if is_finished and (MODEL in damaged or not (run / MODEL).exists()):
            raise InputError(f"the model is damaged or missing, and is in no other file; damaged: {', '.join(damaged)}",
                             where=str(run), remedy=f"train again into another directory: {command}")  # fmt: skip
        if is_finished and damaged:
            return f"{run}: the model is whole; damaged: {', '.join(damaged)}, which a finished run does not need"
        if is_finished:
            return f"{run}: sound; there is nothing to repair"
        if {LAST, PREVIOUS} <= {
            *damaged,
            *(name for name in (LAST, PREVIOUS) if not (run / name).exists()),
        } and damaged:
            raise InputError(f"no checkpoint is whole; damaged: {', '.join(damaged)}", where=str(run),
                             remedy=f"train again into another directory: {command}")  # fmt: skip
        from_previous = f" from {PREVIOUS}, since {LAST} is damaged" if LAST in damaged else ""
        return f"{run}: not finished; go on{from_previous} with: {resume}"

    # ---- in Python ----

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The record of the run: store, split, network, environment; of an ensemble, of its first member."""
        return _read_record(self.runs[0])

    def _config(self) -> Layer:
        return read_yaml(self.runs[0] / CONFIG)

    @property
    def metrics(self) -> dict[str, NDArray[Any]]:
        """Columns of metrics.csv by name; of an ensemble, of its first member."""
        path = self.runs[0] / METRICS
        with storage_errors(path, "reading the metrics"), path.open(newline="", encoding="utf-8") as file:
            names, *rows = list(csv.reader(file)) or [[]]
        return {name: _column([row[number] for row in rows]) for number, name in enumerate(names)}


def _column(texts: list[str]) -> NDArray[Any]:
    """Numbers, with NaN where nothing stands; texts, where one is no number."""
    try:
        return np.array([float(text) if text else np.nan for text in texts])
    except ValueError:
        return np.array(texts)


def _is_damaged(path: Path) -> bool:
    """Whether a file of tensors is there, and not whole."""
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
