"""The training loop: load, step, log, save, validate. It is the same on one rank and on many.

The loss is a sum over samples. Each rank computes the gradient of its own samples, divided by the number of samples of
all ranks; one sum over the ranks per step gives the gradient of the whole batch. The same sum carries the loss and
requests to stop, so all ranks log the same numbers and stop after the same step.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from scimill.errors import NumericalError
from scimill.parallel.report import Progress
from scimill.parallel.world import Stop
from scimill.training.checkpoint import State
from scimill.training.data import Batch, Feed, Split, Tensors
from scimill.training.gradients import Gradients
from scimill.training.metrics import Interval
from scimill.training.optimizers import learning_rate, make_optimizer
from scimill.training.params import TrainingConfig
from scimill.training.ranks import Ranks
from scimill.training.records import Records

ANOTHER_RANK = "another rank"
REQUESTS = ("save", "stop")  # what a rank may request after a step; their sum reaches all ranks
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Task(Protocol):
    """What a campaign trains."""

    @property
    def network(self) -> Mapping[str, Any]:
        """Parameters from which to make the network again; its `campaign` names the campaign."""

    @property
    def model(self) -> torch.nn.Module:
        """The network with its initial weights."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the store to train on."""

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms of the loss."""

    def samples(self, block: int) -> int:
        """Return how many samples `prepare` makes from a block."""

    def prepare(self, rows: Mapping[str, NDArray[Any]]) -> Tensors:
        """Make tensors from a block's rows; the first axis of each is the samples."""

    def losses(self, tensors: Tensors) -> torch.Tensor:
        """Return the sum of each term of the loss over the samples."""


@runtime_checkable
class SequenceTask(Protocol):
    """Additional members of a task whose blocks follow each other in time."""

    @property
    def groups(self) -> Sequence[int]:
        """Group of each block; all blocks of a group go to training, to validation or to tests."""

    @property
    def span(self) -> int:
        """Number of consecutive blocks passed to `prepare`; their samples count as the first block's."""

    def augment(self, tensors: Tensors, stream: np.random.Generator) -> Tensors:
        """Vary a block's training samples, with another stream in each epoch."""


@runtime_checkable
class SplitTask(Protocol):
    """Additional member of a task that splits the blocks itself, without the configured shares."""

    @property
    def split(self) -> Split:
        """Blocks for training, for validation and for neither."""


@runtime_checkable
class CollectiveTask(Protocol):
    """Additional member of a task whose loss depends on the samples of all ranks, by sums over the ranks.

    All ranks then compute the losses of the same number of parts of a batch; parts may be empty. Validation is not
    collective: each part has its own loss.
    """

    def join(self, ranks: Ranks) -> None:
        """Receive the ranks before the first loss is computed."""


@dataclasses.dataclass
class Position:
    """Progress of training, and its best epoch so far."""

    epoch: int = 0
    epoch_step: int = 0
    step: int = 0
    best_epoch: int = 0
    best_loss: float = float("inf")


class Trainer:
    """Trains a task's model.

    Parameters
    ----------
    task, config : what is trained, and how.
    feed : the data.
    ranks, stop : the ranks, and this rank's requests to stop.
    records : where metrics and checkpoints go.

    """

    def __init__(
        self, task: Task, config: TrainingConfig, feed: Feed, ranks: Ranks, stop: Stop, records: Records
    ) -> None:
        self._task, self._config, self._feed = task, config, feed
        self._ranks, self._stop, self._records = ranks, stop, records
        self._device = next(task.model.parameters()).device
        self._optimizer = make_optimizer(task.model.parameters(), config)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=config.precision == "float16")
        self._scaler.scale(torch.zeros(1, device=self._device))  # creates the scale even on a rank without samples
        self._gradients = Gradients(task.model, extras=len(task.terms) + len(REQUESTS))
        self._sums, self._requests = torch.split(self._gradients.extras, [len(task.terms), len(REQUESTS)])
        self._interval = Interval(task.terms, self._device)
        self.position = Position()
        self.best: State = {}

    def run(self) -> str:
        """Train until the last epoch, until patience ends, or until a rank is asked to stop.

        Returns
        -------
        Why training stopped early; empty if it is finished.

        Raises
        ------
        NumericalError : the loss is not finite; on all ranks.

        """
        self._show = self._progress()
        if self.position.epoch and not self.position.epoch_step:  # perhaps killed between checkpoint and model
            self._records.save_model(self.best, dataclasses.asdict(self.position))
        try:
            while not self.is_finished:
                reason = self._epoch()
                if reason:
                    return reason
                self._end_epoch()
        finally:
            self._show.close()
        return ""

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch is done, or patience has run out without a better epoch."""
        position, patience = self.position, self._config.patience
        is_out_of_patience = patience is not None and position.epoch - position.best_epoch >= patience
        return position.epoch >= self._config.epochs or is_out_of_patience

    def _epoch(self) -> str:
        """Train on the rest of this epoch's batches; return why to stop, or an empty text."""
        position, steps = self.position, self._feed.steps(self.position.epoch)
        self._interval = Interval(self._task.terms, self._device)  # its clock starts here, after the validation
        for batch, waited in self._feed.training(position.epoch, position.epoch_step):
            started, part = time.monotonic(), position.epoch_step / steps
            rate = learning_rate(self._config, position.step, position.epoch + part)
            saving, stopping = self._step(batch, rate)
            self._interval.add(self._sums, batch.samples, waited)
            if position.step % self._config.log_steps == 0:
                self._flush()
            if stopping or saving:
                self.save()
            if stopping:
                return self._stop.reason or ANOTHER_RANK
            self._stop.record_block_time(waited + time.monotonic() - started)
            if self._show.due():
                self._show.update(int(self._feed.training_samples * (position.epoch + part)))
        return ""

    # ---- a step -------------------------------------------------------------------------------------------------

    def _step(self, batch: Batch, rate: float) -> tuple[bool, bool]:
        """Do one step; return whether to save a checkpoint and whether to stop."""
        self._seed()
        self._gradients.zero()
        self._sums.copy_(self._backward(batch))
        self._requests[0] = float(self._records.checkpoint_due(self.position.step + 1))
        self._requests[1] = float(self._stop.requested())
        self._ranks.sum_(self._gradients.buffer)
        self._update(rate)
        self.position.step += 1
        self.position.epoch_step += 1
        saving, stopping = (self._requests > 0).tolist()
        return saving, stopping

    def _seed(self) -> None:
        """Seed the random numbers of layers by step and rank, so that no state needs saving."""
        words = np.random.SeedSequence((self._config.seed, self.position.step, self._ranks.rank))
        seed = int(words.generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a stack trace too
        if self._device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _backward(self, batch: Batch) -> torch.Tensor:
        """Add up the gradient of this rank's samples; return their sums of the terms."""
        sums = torch.zeros_like(self._sums)
        for tensors in _parts(batch.tensors, self._config.accumulation, empty=isinstance(self._task, CollectiveTask)):
            losses = self._losses(tensors)
            torch.autograd.backward(self._scaler.scale(losses.sum() / batch.samples))
            sums += losses.detach()
        return sums

    def _losses(self, tensors: Tensors) -> torch.Tensor:
        half = HALF.get(self._config.precision)
        with torch.autocast(self._device.type, dtype=half, enabled=half is not None):
            losses = self._task.losses(tensors)
        if losses.shape != (len(self._task.terms),):
            shape = tuple(losses.shape)
            raise ValueError(f"losses has shape {shape}; expected one sum for each of {', '.join(self._task.terms)}")
        return losses

    def _update(self, rate: float) -> None:
        """Move the parameters."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        if self._scaler.is_enabled():
            self._scaler.unscale_(self._optimizer)
        if self._config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._task.model.parameters(), self._config.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()

    # ---- the end of an epoch --------------------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        """Validate, keep the best model, save."""
        started, position = time.monotonic(), self.position
        self._flush()
        loss = self._validate()
        position.epoch += 1
        position.epoch_step = 0
        if loss <= position.best_loss:
            position.best_loss, position.best_epoch = loss, position.epoch
            self.best = {name: value.clone() for name, value in self._task.model.state_dict().items()}
        self.save()
        self._records.save_model(self.best, dataclasses.asdict(position))
        if self._show.due() or self.is_finished:
            self._show.update(self._feed.training_samples * position.epoch)
        self._stop.record_block_time(time.monotonic() - started)

    def _validate(self) -> float:
        """Return the mean validation loss of all ranks; minus infinity without validation: the last is best."""
        if not self._feed.validation_samples:
            return -float("inf")
        interval = Interval(self._task.terms, self._device)
        self._task.model.eval()
        with torch.no_grad():
            for tensors, waited in self._feed.validation():
                interval.add(self._losses(tensors), 0, waited)
        self._task.model.train()
        self._ranks.sum_(interval.sums)
        interval.samples = self._feed.validation_samples
        return self._record("validation", interval)

    # ---- records ----------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Write a row for the steps since the last one."""
        if self._interval.samples:
            self._record("train", self._interval)
            self._interval = Interval(self._task.terms, self._device)

    def _record(self, split: str, interval: Interval) -> float:
        """Write a row of metrics; return its loss, the same on all ranks."""
        row = interval.row()
        if not np.isfinite(row["loss"]):
            self._ranks.world.fail(
                NumericalError(
                    f"the {split} loss is {row['loss']} at step {self.position.step}",
                    where=str(self._records.folder),
                    remedy="use --overwrite with a smaller --learning-rate, more --warmup-steps, or --clip-norm",
                )
            )
        rate = self._optimizer.param_groups[0]["lr"]
        position = {"step": self.position.step, "epoch": self.position.epoch, "split": split, "learning_rate": rate}
        self._records.add(position | row)
        return float(row["loss"])

    def save(self) -> None:
        """Write a checkpoint, after the row for the steps since the last one."""
        self._flush()
        self._records.save(self.state())

    def state(self) -> State:
        """Return all that is needed to resume; random numbers and data order follow from the position."""
        return {
            "position": dataclasses.asdict(self.position),
            "model": self._task.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "best": self.best,
        }

    def restore(self, state: State) -> None:
        """Resume from a state."""
        self.position = Position(**state["position"])
        self._task.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.best = {name: value.to(self._device) for name, value in state["best"].items()}

    def _progress(self) -> Progress:
        samples, position = self._feed.training_samples, self.position
        return Progress(
            samples * self._config.epochs, initial=samples * position.epoch, unit="samples", what="train",
            enabled=self._ranks.reports,
        )  # fmt: skip


def _parts(tensors: Tensors, count: int, *, empty: bool) -> Iterator[Tensors]:
    """Cut a batch into parts of almost equal size; `empty` says whether to yield empty parts."""
    for part in zip(*(torch.tensor_split(tensor, count) for tensor in tensors), strict=True):
        if empty or len(part[0]):
            yield part
