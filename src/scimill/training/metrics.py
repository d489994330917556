"""Metrics of a run: always in metrics.csv, and in TensorBoard if it is installed."""

import csv
import importlib.util
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scimill.errors import InputError
from scimill.files import storage_errors
from scimill.training.files import BOARD, METRICS

ThreadHook = Callable[[threading.ExceptHookArgs], Any]
COLUMNS = ("step", "epoch", "split", "samples", "loss", "learning_rate", "samples_per_second", "data_wait", "seconds")
"""Columns of every run, followed by one per term of the loss. data_wait is a share of the time."""


class MetricsLog:
    """Rows of metrics.csv.

    Parameters
    ----------
    folder : the run directory.
    terms : names of the terms of the loss.
    size : bytes of the file when the checkpoint to resume from was written; the rest is truncated.
    step : that checkpoint's step.

    """

    def __init__(self, folder: Path, terms: Sequence[str], size: int, step: int) -> None:
        self._path = folder / METRICS
        self._columns = [*COLUMNS, *(f"loss_{term}" for term in terms)]
        with storage_errors(self._path, "opening the metrics"):
            self._file = self._path.open("r+" if size else "w", newline="", encoding="utf-8")
            if size > os.fstat(self._file.fileno()).st_size:
                raise InputError("metrics.csv is shorter than when the checkpoint was written", where=str(self._path))
            self._file.truncate(size)
            self._file.seek(0, os.SEEK_END)
        self._writer = csv.DictWriter(self._file, self._columns)
        if not size:
            self._write(dict(zip(self._columns, self._columns, strict=True)))
        with storage_errors(self._path, "opening the metrics of TensorBoard"):
            self._board = _tensorboard(folder, step)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row."""
        self._write(row)
        if self._board:
            with storage_errors(self._path, "writing the metrics of TensorBoard"):
                for name, value in row.items():
                    if isinstance(value, float):
                        self._board.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def _write(self, row: Mapping[str, Any]) -> None:
        with storage_errors(self._path, "writing the metrics"):
            self._writer.writerow({name: f"{v:.8g}" if isinstance(v, float) else v for name, v in row.items()})
            self._file.flush()

    def size(self) -> int:
        """Sync the file and return its size in bytes."""
        with storage_errors(self._path, "syncing the metrics"):
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close both records."""
        with storage_errors(self._path, "closing the metrics"):
            self._file.close()
            if self._board:
                self._board.close()


def _tensorboard(folder: Path, step: int) -> Any:
    """Return TensorBoard's writer, or None if it is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    threading.excepthook = _ignore_disk_errors(threading.excepthook)
    return SummaryWriter(str(folder / BOARD), purge_step=step or None)


def _ignore_disk_errors(hook: ThreadHook) -> ThreadHook:
    """Suppress TensorBoard's traceback if the disk is full; metrics.csv reports that."""

    def handle(failure: threading.ExceptHookArgs) -> None:
        is_board = failure.thread is not None and type(failure.thread).__module__.startswith("tensorboard.")
        if not (is_board and issubclass(failure.exc_type, OSError)):
            hook(failure)

    return handle


class Interval:
    """Totals since the last row: sums of the terms, samples, time, and time waited for data.

    Parameters
    ----------
    terms : names of the terms.
    device : where the sums are.

    """

    def __init__(self, terms: Sequence[str], device: torch.device) -> None:
        self._terms = terms
        self.sums = torch.zeros(len(terms), dtype=torch.float64, device=device)
        self.samples, self._waited, self._started = 0, 0.0, time.monotonic()

    def add(self, sums: torch.Tensor, samples: int, waited: float) -> None:
        """Count a batch."""
        self.sums += sums
        self.samples += samples
        self._waited += waited

    def row(self) -> dict[str, Any]:
        """Return the columns of a row: means over the samples, rates."""
        seconds = time.monotonic() - self._started
        means = [float(value) for value in self.sums / self.samples]
        return {
            "samples": self.samples,
            "loss": sum(means),
            "samples_per_second": self.samples / seconds,
            "data_wait": self._waited / seconds,
            "seconds": seconds,
            **{f"loss_{term}": mean for term, mean in zip(self._terms, means, strict=True)},
        }


Curves = dict[str, dict[str, NDArray[np.float64]]]
"""Columns of metrics.csv, by split."""


def read_curves(run: Path) -> Curves:
    """Read the metrics of a run.

    Raises
    ------
    InputError : the metrics are missing.

    """
    path = run / METRICS
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
    except OSError as error:
        raise InputError.unreadable("metrics of a run", error, path) from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError("not the metrics of a run", where=str(path)) from None
    if not rows:
        raise InputError("no metrics yet", where=str(path))
    try:
        return {
            split: _columns([row for row in rows if row["split"] == split]) for split in {row["split"] for row in rows}
        }
    except (KeyError, ValueError, TypeError):
        raise InputError("not the metrics of a run", where=str(path)) from None


def _columns(rows: list[dict[str, str]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "split"}
