"""Parameters shared by all training commands."""

from typing import Literal, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from scimill.config import STRICT, Duration, Number, Run, Switch, Whole, parameter


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Optimization:
    """Optimization."""

    optimizer: Literal["adam", "adamw", "lars"] = parameter("adam", "Adam, Adam with decoupled weight decay, or LARS")
    learning_rate: Number = parameter(1e-2, "largest learning rate, after the warm-up", gt=0, le=1e3)
    weight_decay: Number = parameter(0.0, "weight decay", ge=0, lt=1)
    momentum: Number = parameter(0.9, "momentum of LARS", ge=0, lt=1)
    batch_size: Whole = parameter(4096, "samples per step, over all ranks", ge=1, le=2**31)
    accumulation: Whole = parameter(1, "number of parts in which a batch is computed, to save memory", ge=1)
    epochs: Whole = parameter(10, "passes over the training blocks", ge=1, le=10**6)
    warmup_steps: Whole = parameter(200, "steps over which the learning rate rises from 0", ge=0, le=10**9)
    schedule: Literal["constant", "step", "cosine"] = parameter("cosine", "the learning rate after the warm-up")
    step_epochs: Whole = parameter(1, "schedule step: epochs between two reductions", ge=1)
    step_factor: Number = parameter(0.5, "schedule step: factor of each reduction", gt=0, le=1)
    final_learning_rate: Number = parameter(1e-3, "schedule cosine: final learning rate / largest one", ge=0, le=1)
    clip_norm: Number | None = parameter(None, "largest norm of the gradient; longer ones are scaled down", gt=0)
    patience: Whole | None = parameter(None, "stop after this many epochs without a better validation loss", ge=1)
    precision: Literal["float32", "float64", "bfloat16", "float16"] = parameter(
        "float32", "arithmetic of the network; half precisions are mixed with float32; float16 needs a GPU"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Loading:
    """Data."""

    window: Whole = parameter(16, "blocks whose samples are mixed and held in memory; give at least one per rank", ge=1)
    validation_share: Number = parameter(0.05, "share of the blocks for validation after each epoch", ge=0, lt=1)
    test_share: Number = parameter(0.0, "share of the blocks held out for tests", ge=0, lt=1)
    in_memory: Switch = parameter(
        False, "keep all blocks of a rank in memory after the first epoch", affects_data=False
    )

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Checkpointing:
    """Checkpoints and records."""

    checkpoint_steps: Whole | None = parameter(None, "steps between checkpoints", affects_data=False, ge=1)
    checkpoint_interval: Duration = parameter("10min", "time between checkpoints", affects_data=False)
    log_steps: Whole = parameter(100, "steps between rows of metrics.csv", affects_data=False, ge=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Hardware:
    """Hardware."""

    device: Literal["auto", "cpu", "cuda"] = parameter(
        "auto", "device to compute on; auto: this rank's GPU if there is one", affects_data=False
    )
    threads: Whole | None = parameter(
        None, "threads per rank; if not given, the host's cores divided by its ranks", affects_data=False, ge=1, le=1024
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingConfig(Optimization, Loading, Checkpointing, Hardware, Run):
    """Parameters shared by all training commands."""

    @model_validator(mode="after")
    def _patience_has_something_to_wait_for(self) -> Self:
        if self.patience is not None and not self.validation_share:
            raise ValueError("patience needs a validation_share above 0")
        return self
