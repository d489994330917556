"""Files that rank 0 writes during a run: metrics, checkpoints, the best model."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scimill.config import to_yaml
from scimill.training.checkpoint import State, save_checkpoint, save_model
from scimill.training.metrics import MetricsLog
from scimill.training.params import Checkpointing


class Records:
    """Metrics and checkpoints of a run; only rank 0 writes.

    Parameters
    ----------
    folder : the run directory.
    config : how often to write.
    about : provenance recorded in the model file.
    enabled : whether this is rank 0.

    """

    def __init__(self, folder: Path, config: Checkpointing, about: Mapping[str, Any], *, enabled: bool) -> None:
        self.folder = folder
        self._config, self._about, self._enabled = config, about, enabled
        self._log: MetricsLog | None = None
        self._saved_at, self._saved_step = time.monotonic(), 0

    def open(self, terms: Sequence[str], state: State | None) -> None:
        """Start the metrics, or continue them from a checkpoint."""
        if self._enabled:
            size, step = (state["metrics_size"], state["position"]["step"]) if state else (0, 0)
            self._log = MetricsLog(self.folder, terms, size, step)
            self._saved_step = step

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row of metrics."""
        if self._log:
            self._log.add(row)

    def checkpoint_due(self, step: int) -> bool:
        """Return whether rank 0 has to save a checkpoint after a step."""
        if not self._enabled:
            return False
        every = self._config.checkpoint_steps
        due_by_step = every is not None and step - self._saved_step >= every
        return due_by_step or time.monotonic() - self._saved_at >= self._config.checkpoint_interval

    def save(self, state: State) -> None:
        """Write a checkpoint."""
        if self._log:
            store, split = self._about["store"]["identity"], self._about["split"]
            origin = {"config": to_yaml(self._config), "store": store, "split": split}
            save_checkpoint(self.folder, state | origin | {"metrics_size": self._log.size()})
        self._saved_at, self._saved_step = time.monotonic(), state["position"]["step"]

    def save_model(self, model: State, position: Mapping[str, Any]) -> None:
        """Write the best model so far."""
        if self._enabled:
            save_model(self.folder, {**self._about, "state": model, "position": dict(position)})

    def close(self) -> None:
        """Close the metrics."""
        if self._log:
            self._log.close()
