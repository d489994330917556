"""A training run from its directory to its result: what every campaign's ``train`` command calls."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from scimill.errors import ConfigError, Stopped
from scimill.parallel.report import say
from scimill.parallel.world import Stop, World
from scimill.store.reader import Reader
from scimill.store.verify import open_everywhere
from scimill.training.checkpoint import State
from scimill.training.data import Feed, Source, Split, split_blocks
from scimill.training.directory import RunDirectory, describe_run
from scimill.training.engine import ELSEWHERE, Collective, Divided, Sequences, Task, Trainer
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
    make_task : makes what is trained, of float32 parameters; the same on all ranks.
    store : the data.
    directory : where the run is recorded.
    config : all parameters.
    world : the ranks.

    Returns
    -------
    Whether anything was done: False for a run that has come to its end before.

    Raises
    ------
    ScimillError : a user's mistake, a damaged file, a loss that is not finite; `Stopped` before the end.

    """
    with Ranks(world) as ranks:
        done, reason = train_among(ranks, make_task, store, directory, config)
        if reason:
            world.fail(stopped(reason))
    return done


def stopped(reason: str) -> Stopped:
    """What is raised, on all ranks, where training was stopped."""
    return Stopped(f"stopped by {reason}; a checkpoint was written", remedy=REMEDY)


def train_among(
    ranks: Ranks,
    make_task: Callable[[Reader], Task],
    store: Path,
    directory: RunDirectory,
    config: TrainingConfig,
    stop: Stop | None = None,
) -> tuple[bool, str]:
    """Train on a store, as `train`, by some ranks of a job; others may train something else meanwhile.

    Parameters
    ----------
    ranks : those that train it.
    stop : whether to stop, where this rank is asked for more than this; its own, for the time of the training, if not
        given.

    Returns
    -------
    Whether anything was done, and why it was stopped before its end; empty where it was not.

    """
    world = ranks.world
    with directory.claimed(world), open_everywhere(store, world) as reader:
        if directory.resume and world.on_root(directory.is_finished, config):
            return False, ""
        device = choose_device(config, ranks)
        with world.together():
            reader.require_complete()
            task = make_task(reader)
            split, source = _data(reader, task, config, device)
            feed = Feed(source, split, task.samples, config, ranks.rank, ranks.size)
        _place(task.model, device, config, ranks)
        if isinstance(task, Collective):
            task.join(ranks)
        record = world.on_root(describe_run, reader, split, dict(task.network), world)
        state: State | None = world.on_root(directory.begin, config, record)
        if ranks.reports:
            say(_describe_plan(task, feed, config, ranks, device, state))
        records = Records(directory.path, config, record, enabled=ranks.is_root)
        asked = stop or Stop(world.alone(), config.walltime, config.walltime_margin)
        try:
            reason = _run(Trainer(task, config, feed, ranks, asked, records), task, ranks, records, state)
        finally:
            if stop is None:
                asked.restore()
        if not reason:
            world.on_root(directory.finish)
    return True, reason


def _data(reader: Reader, task: Task, config: TrainingConfig, device: torch.device) -> tuple[Split, Source]:
    source = partial(Source, reader, task.fields, task.prepare, device, keep=config.in_memory)
    if isinstance(task, Sequences):
        split = split_blocks(reader.layout.blocks, config, config.seed, task.groups)
        return split, source(span=task.span, augment=task.augment)
    split = task.split if isinstance(task, Divided) else split_blocks(reader.layout.blocks, config, config.seed)
    return split, source()


def _run(trainer: Trainer, task: Task, ranks: Ranks, records: Records, state: State | None) -> str:
    """Train, from the checkpoint if there is one; return why some rank wanted to stop, on all ranks the same."""
    if state:
        trainer.restore(state)
    records.open(task.terms, state)
    try:
        reasons = ranks.world.gather_all(trainer.run())
    finally:
        records.close()
    return next((reason for reason in reasons if reason not in ("", ELSEWHERE)), "")


def _describe_plan(
    task: Task, feed: Feed, config: TrainingConfig, ranks: Ranks, device: torch.device, state: State | None
) -> str:
    """Say what is about to be done."""
    epoch = state["position"]["epoch"] if state else 0
    words = [
        f"{sum(parameter.numel() for parameter in task.model.parameters()):,} parameters",
        f"{feed.training_samples:,} samples to train on, {feed.validation_samples:,} to validate",
        f"{feed.steps(epoch):,} steps per epoch",
        f"{ranks.size} rank(s) on {device.type}",
    ]
    if ranks.size > config.window:
        words.append(f"a window of {config.window} blocks leaves {ranks.size - config.window} ranks without samples")
    return ("train: " if state is None else f"resume in epoch {epoch}: ") + "; ".join(words)


def choose_device(config: TrainingConfig, ranks: Ranks) -> torch.device:
    """Device of this rank: of the GPUs of its host, the one of its local rank.

    Raises
    ------
    ConfigError : there is none, or it does not know the precision.
    """
    torch.set_num_threads(config.threads or max(1, len(os.sched_getaffinity(0)) // ranks.local_size))
    torch.set_flush_denormal(True)
    has_gpu = torch.cuda.is_available()
    if has_gpu and config.device != "cpu" and not ranks.knows_gpus:
        remedy = "rebuild it with HOROVOD_GPU_OPERATIONS=NCCL, or give --device cpu"
        raise ConfigError("this Horovod was built without GPUs", where="device", remedy=remedy)
    if config.device == "cuda" and not has_gpu:
        raise ConfigError("there is no GPU that PyTorch can use", where="device = cuda", remedy="give --device cpu")
    if config.device == "cpu" or not has_gpu:
        if config.precision == "float16":
            raise ConfigError("float16 needs a GPU", where="precision", allowed="float32, float64 or bfloat16")
        return torch.device("cpu")
    device = torch.device("cuda", ranks.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _place(model: torch.nn.Module, device: torch.device, config: TrainingConfig, ranks: Ranks) -> None:
    """Put the model on its device, with rank 0's parameters on all ranks."""
    model.to(device, torch.float64 if config.precision == "float64" else torch.float32)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            ranks.broadcast_(tensor)
