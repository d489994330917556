"""The training loop: load, step, log, save, validate. It is the same on one rank and on many.

The loss is a sum over samples. Each rank computes the gradient of its samples' part, divided by the number of samples
of all ranks; one sum over the ranks per step makes the gradient of the whole batch. In the same sum travel the loss
and the wish to stop, so all ranks log the same numbers and agree at a step's end.
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

ELSEWHERE = "another rank"
WISHES = ("save", "stop")  # what a rank may want after a step; the sum over the ranks reaches all of them
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Task(Protocol):
    """What a campaign trains."""

    @property
    def network(self) -> Mapping[str, Any]:
        """What the network is made from, so that it can be made again; its `campaign` says whose it is."""

    @property
    def model(self) -> torch.nn.Module:
        """The network, with its first weights."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the store that it learns from."""

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms of the loss."""

    def samples(self, block: int) -> int:
        """How many samples `prepare` makes of a block."""

    def prepare(self, rows: Mapping[str, NDArray[Any]]) -> Tensors:
        """Make tensors of a block's rows; the first axis of each is the samples."""

    def losses(self, tensors: Tensors) -> torch.Tensor:
        """Sum of each term of the loss over the samples."""


@runtime_checkable
class Sequences(Protocol):
    """What a task has besides, whose blocks follow each other in time."""

    @property
    def groups(self) -> Sequence[int]:
        """Group of each block; blocks of one group are all for training, or all for validation, or for tests."""

    @property
    def span(self) -> int:
        """Consecutive blocks whose rows `prepare` gets together; their samples count as the first block's."""

    def augment(self, tensors: Tensors, stream: np.random.Generator) -> Tensors:
        """Vary a block's training samples, in each epoch by another stream."""


@runtime_checkable
class Divided(Protocol):
    """What a task has besides, that knows which blocks are for what; the shares of the configuration are not used."""

    @property
    def split(self) -> Split:
        """Which blocks are for training, for validation and for neither."""


@runtime_checkable
class Collective(Protocol):
    """What a task has besides, whose loss knows the samples of all ranks, and sums over them while it is computed.

    All ranks then compute the losses of equally many parts of a batch, of which some may be empty. A validation is not
    collective: its loss is that of each part by itself.
    """

    def join(self, ranks: Ranks) -> None:
        """Get to know the ranks, before the first loss."""


@dataclasses.dataclass
class Position:
    """How far training has come, and the best of it."""

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
    ranks, stop : the ranks, and whether this one was asked to stop.
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
        self._scaler.scale(torch.zeros(1, device=self._device))  # makes the scale: a rank may have no samples to
        self._gradients = Gradients(task.model, extras=len(task.terms) + len(WISHES))
        self._sums, self._wishes = torch.split(self._gradients.extras, [len(task.terms), len(WISHES)])
        self._interval = Interval(task.terms, self._device)
        self.position = Position()
        self.best: State = {}

    def run(self) -> str:
        """Train until the last epoch, or until patience ends, or until a rank is asked to stop.

        Returns
        -------
        Why to stop before the end; empty where training has come to it.

        Raises
        ------
        NumericalError : the loss is not finite; on all ranks.

        """
        self._show = self._progress()
        if self.position.epoch and not self.position.epoch_step:  # the checkpoint was written, but perhaps not this
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
        """Whether the last epoch is done, or no epoch has been better for as long as patience lasts."""
        position, patience = self.position, self._config.patience
        tired = patience is not None and position.epoch - position.best_epoch >= patience
        return position.epoch >= self._config.epochs or tired

    def _epoch(self) -> str:
        """Train on the batches that are left of this epoch; return why to stop, or an empty text."""
        position, steps = self.position, self._feed.steps(self.position.epoch)
        self._interval = Interval(self._task.terms, self._device)  # its clock begins here, not before the validation
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
                return self._stop.reason or ELSEWHERE
            self._stop.record_block_time(waited + time.monotonic() - started)
            if self._show.due():
                self._show.update(int(self._feed.training_samples * (position.epoch + part)))
        return ""

    # ---- a step -------------------------------------------------------------------------------------------------

    def _step(self, batch: Batch, rate: float) -> tuple[bool, bool]:
        """Do one step; return whether to save a checkpoint, and whether to stop."""
        self._seed()
        self._gradients.zero()
        self._sums.copy_(self._backward(batch))
        self._wishes[0] = float(self._records.checkpoint_due(self.position.step + 1))
        self._wishes[1] = float(self._stop.requested())
        self._ranks.sum_(self._gradients.buffer)
        self._update(rate)
        self.position.step += 1
        self.position.epoch_step += 1
        saving, stopping = (self._wishes > 0).tolist()
        return saving, stopping

    def _seed(self) -> None:
        """Give layers that draw random numbers a stream that belongs to the step, so that none need be saved."""
        words = np.random.SeedSequence((self._config.seed, self.position.step, self._ranks.rank))
        seed = int(words.generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also formats a stack trace, for GPUs that are not
        if self._device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _backward(self, batch: Batch) -> torch.Tensor:
        """Add up the gradient of this rank's samples; return their sums of the terms."""
        sums = torch.zeros_like(self._sums)
        for tensors in _parts(batch.tensors, self._config.accumulation, empty=isinstance(self._task, Collective)):
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
        """Mean loss over the validation blocks of all ranks; minus infinity without any, so that the last is best."""
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
        """Write a row of what is not yet recorded."""
        if self._interval.samples:
            self._record("train", self._interval)
            self._interval = Interval(self._task.terms, self._device)

    def _record(self, split: str, interval: Interval) -> float:
        """Write a row of metrics and return its loss, which all ranks know."""
        row = interval.row()
        if not np.isfinite(row["loss"]):
            self._ranks.world.fail(
                NumericalError(
                    f"the {split} loss is {row['loss']} at step {self.position.step}",
                    where=str(self._records.folder),
                    remedy="give a smaller --learning-rate, a longer --warmup-steps or --clip-norm, and --overwrite",
                )
            )
        rate = self._optimizer.param_groups[0]["lr"]
        position = {"step": self.position.step, "epoch": self.position.epoch, "split": split, "learning_rate": rate}
        self._records.add(position | row)
        return float(row["loss"])

    def save(self) -> None:
        """Write a checkpoint, after the row of what is not yet recorded."""
        self._flush()
        self._records.save(self.state())

    def state(self) -> State:
        """All that training goes on from; the random numbers and the order of the data follow from the position."""
        return {
            "position": dataclasses.asdict(self.position),
            "model": self._task.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "best": self.best,
        }

    def restore(self, state: State) -> None:
        """Go on from a state."""
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
    """Cut a batch into parts of almost the same size; `empty` is whether those without samples count."""
    for part in zip(*(torch.tensor_split(tensor, count) for tensor in tensors), strict=True):
        if empty or len(part[0]):
            yield part
