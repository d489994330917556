"""A whole training run; every campaign's ``train`` command calls it."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from scimill.errors import ConfigError, Stopped
from scimill.parallel.report import describe_count, say
from scimill.parallel.world import Stop, World
from scimill.store.reader import Reader
from scimill.store.verify import open_on_all_ranks
from scimill.training.checkpoint import State
from scimill.training.data import Feed, Source, Split, split_blocks
from scimill.training.directory import RunDirectory, describe_run
from scimill.training.engine import ANOTHER_RANK, CollectiveTask, SequenceTask, SplitTask, Task, Trainer
from scimill.training.params import TrainingConfig
from scimill.training.ranks import Ranks
from scimill.training.records import Records

REMEDY = "run the same command with --resume"


def train(
    make_task: Callable[[Reader], Task], store: Path, directory: RunDirectory, config: TrainingConfig, world: World
) -> bool:
    """Train on a store; collective.

    Parameters
    ----------
    make_task : makes the task, with float32 parameters; the same on all ranks.
    store : the data.
    directory : the run directory.
    config : all parameters.
    world : the ranks.

    Returns
    -------
    Whether anything was done: False if the run was already finished.

    Raises
    ------
    ScimillError : a user's mistake, a damaged file, or a loss that is not finite; `Stopped` before the end.

    """
    with Ranks(world) as ranks:
        done, reason = train_among(ranks, make_task, store, directory, config)
        if reason:
            world.fail(stopped(reason))
    return done


def stopped(reason: str) -> Stopped:
    """Return the error to raise on all ranks after training was stopped."""
    return Stopped(f"stopped by {reason}; a checkpoint was written", remedy=REMEDY)


def train_among(
    ranks: Ranks,
    make_task: Callable[[Reader], Task],
    store: Path,
    directory: RunDirectory,
    config: TrainingConfig,
    stop: Stop | None = None,
) -> tuple[bool, str]:
    """Train on a store like `train`, with some ranks of a job; others may train something else.

    Parameters
    ----------
    ranks : the ranks that train it.
    stop : requests to stop, if the caller handles them for more than this training.

    Returns
    -------
    Whether anything was done, and why it stopped early; empty if it did not.

    """
    world = ranks.world
    with directory.claimed(world), open_on_all_ranks(store, world) as reader:
        if directory.resume and world.on_root(directory.is_finished, config):
            return False, ""
        device = choose_device(config, ranks)
        with world.together():
            reader.require_complete()
            task = make_task(reader)
            split, source = _data(reader, task, config, device)
            feed = Feed(source, split, task.samples, config, ranks.rank, ranks.size)
        _place(task.model, device, config, ranks)
        if isinstance(task, CollectiveTask):
            task.join(ranks)
        record = world.on_root(describe_run, reader, split, dict(task.network), world)
        state: State | None = world.on_root(directory.begin, config, record)
        if ranks.reports:
            say(_describe_plan(task, feed, config, ranks, device, state))
        records = Records(directory.path, config, record, enabled=ranks.is_root)
        requests = stop or Stop(world.alone(), config.walltime, config.walltime_margin)
        try:
            reason = _run(Trainer(task, config, feed, ranks, requests, records), task, ranks, records, state)
        finally:
            if stop is None:
                requests.restore()
        if not reason:
            world.on_root(directory.finish)
    return True, reason


def _data(reader: Reader, task: Task, config: TrainingConfig, device: torch.device) -> tuple[Split, Source]:
    source = partial(Source, reader, task.fields, task.prepare, device, keep=config.in_memory)
    if isinstance(task, SequenceTask):
        split = split_blocks(reader.layout.blocks, config, config.seed, task.groups)
        return split, source(span=task.span, augment=task.augment)
    split = task.split if isinstance(task, SplitTask) else split_blocks(reader.layout.blocks, config, config.seed)
    return split, source()


def _run(trainer: Trainer, task: Task, ranks: Ranks, records: Records, state: State | None) -> str:
    """Train, from the checkpoint if there is one; return why a rank stopped, the same on all ranks."""
    if state:
        trainer.restore(state)
    records.open(task.terms, state)
    try:
        reasons = ranks.world.gather_all(trainer.run())
    finally:
        records.close()
    return next((reason for reason in reasons if reason not in ("", ANOTHER_RANK)), "")


def _describe_plan(
    task: Task, feed: Feed, config: TrainingConfig, ranks: Ranks, device: torch.device, state: State | None
) -> str:
    """Describe the training that is about to start."""
    epoch = state["position"]["epoch"] if state else 0
    words = [
        describe_count(sum(parameter.numel() for parameter in task.model.parameters()), "parameter"),
        f"{describe_count(feed.training_samples, 'sample')} to train on, {feed.validation_samples:,} to validate",
        f"{describe_count(feed.steps(epoch), 'step')} per epoch",
        f"{describe_count(ranks.size, 'rank')} on {device.type}",
    ]
    if ranks.size > config.window:
        window, idle = describe_count(config.window, "block"), describe_count(ranks.size - config.window, "rank")
        words.append(f"a window of {window} leaves {idle} without samples")
    return ("train: " if state is None else f"resume in epoch {epoch}: ") + "; ".join(words)


def choose_device(config: TrainingConfig, ranks: Ranks) -> torch.device:
    """Choose the device of this rank: the GPU of its local rank, or the CPU.

    Raises
    ------
    ConfigError : the device is not available, or does not support the precision.
    """
    torch.set_num_threads(config.threads or max(1, len(os.sched_getaffinity(0)) // ranks.local_size))
    torch.set_flush_denormal(True)
    has_gpu = torch.cuda.is_available()
    if has_gpu and config.device != "cpu" and not ranks.supports_gpus:
        remedy = "rebuild it with HOROVOD_GPU_OPERATIONS=NCCL, or use --device cpu"
        raise ConfigError("this Horovod was built without GPUs", where="device", remedy=remedy)
    if config.device == "cuda" and not has_gpu:
        raise ConfigError("PyTorch finds no GPU", where="device = cuda", remedy="use --device cpu")
    if config.device == "cpu" or not has_gpu:
        if config.precision == "float16":
            raise ConfigError("float16 needs a GPU", where="precision", allowed="float32, float64 or bfloat16")
        return torch.device("cpu")
    device = torch.device("cuda", ranks.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _place(model: torch.nn.Module, device: torch.device, config: TrainingConfig, ranks: Ranks) -> None:
    """Move the model to its device, and copy rank 0's parameters to all ranks."""
    model.to(device, torch.float64 if config.precision == "float64" else torch.float32)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            ranks.broadcast_(tensor)
