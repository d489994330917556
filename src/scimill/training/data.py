"""Batches of a store, the same for any number of ranks.

The training blocks of an epoch are shuffled and cut into windows. Each step of a window takes a part of every block in
it; rows are shuffled within their block. So the content of a batch does not depend on the number of ranks. Each rank
reads only its own blocks of a window, and holds its part of two windows: the current one, and the one being loaded.

A sample may also be a sequence, made of the rows of consecutive blocks.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from scimill.errors import ConfigError, InputError, StorageError
from scimill.parallel.report import describe_count
from scimill.store.reader import Reader
from scimill.store.verify import block_damage
from scimill.training.params import Loading, TrainingConfig

T = TypeVar("T")
Tensors = tuple[torch.Tensor, ...]
Prepare = Callable[[Mapping[str, NDArray[Any]]], Tensors]
Augment = Callable[[Tensors, np.random.Generator], Tensors]
SPLIT, BLOCKS, SAMPLES, AUGMENTATION = range(4)  # first word of the spawn keys of this module's streams


@dataclasses.dataclass(frozen=True)
class Split:
    """Blocks for training, for validation, and held out for tests."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def split_blocks(blocks: int, config: Loading, seed: int, groups: Sequence[int] | None = None) -> Split:
    """Split the blocks of a store; every share above 0 gets at least one block.

    Parameters
    ----------
    blocks : how many there are.
    config, seed : the shares, and the seed of the split.
    groups : group of each block, if blocks are correlated: a group is never split.

    Raises
    ------
    ConfigError : too few blocks, or groups.
    """
    names = range(blocks) if groups is None else sorted(set(groups))
    validation, test = _held_out_counts(len(names), config, in_groups=groups is not None)
    order = [names[index] for index in _stream(seed, SPLIT).permutation(len(names))]
    parts = (order[validation + test :], order[:validation], order[validation : validation + test])
    if groups is None:
        return Split(*(tuple(sorted(part)) for part in parts))
    return Split(*(tuple(block for block, group in enumerate(groups) if group in part) for part in parts))


def _held_out_counts(count: int, config: Loading, *, in_groups: bool) -> tuple[int, int]:
    """Return how many blocks or groups are for validation, and for tests."""
    found, remedy = describe_count(count, "block"), "generate with a smaller --block-size"
    if in_groups:
        found = f"{describe_count(count, 'group')} of blocks (members or periods)"
        remedy = "use more groups, or shorter ones"
    shares = (config.validation_share, config.test_share)
    validation, test = (max(1, round(share * count)) if share else 0 for share in shares)
    if validation + test >= count:
        raise ConfigError(
            f"the store has {found}, too few to train, validate and test",
            allowed=f"{validation + test + 1} or more with these shares",
            remedy=f"{remedy}, or give --validation-share 0",
        )
    return validation, test


@dataclasses.dataclass(frozen=True)
class Window:
    """Blocks that are mixed, with their numbers of samples, and the number of steps they give.

    The shuffling depends on the seed, the epoch and the block.
    """

    blocks: tuple[int, ...]
    samples: tuple[int, ...]
    steps: int
    seed: int
    epoch: int

    def batch_samples(self) -> list[int]:
        """Return the number of samples in each step's batch, over all ranks."""
        even, left = divmod(sum(self.samples), self.steps)
        return [even + (step < left) for step in range(self.steps)]

    def assign_steps(self, indices: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the step of each sample of some blocks, and these samples in the order of their steps.

        The window's samples go to its steps in turn, so the sizes of its batches differ by at most one.
        """
        firsts = np.cumsum([0, *self.samples])
        steps, orders, first = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for index in indices:
            steps.append((firsts[index] + np.arange(self.samples[index])) % self.steps)
            orders.append(self.order(index) + first)
            first += self.samples[index]
        step_of = np.concatenate(steps)
        return step_of, np.concatenate(orders)[np.argsort(step_of, kind="stable")]

    def order(self, index: int) -> NDArray[np.int64]:
        """Return the shuffled samples of the index-th block."""
        return _stream(self.seed, SAMPLES, self.epoch, self.blocks[index]).permutation(self.samples[index])


def assign_ranks(blocks: Sequence[int], size: int) -> list[int]:
    """Return the rank of each block: evenly many per rank, preferably its number modulo the ranks."""
    room = [len(blocks) // size + (rank < len(blocks) % size) for rank in range(size)]
    ranks: list[int | None] = []
    for block in blocks:
        has_room = room[block % size] > 0
        room[block % size] -= has_room
        ranks.append(block % size if has_room else None)
    spare = (rank for rank, left in enumerate(room) for _ in range(left))
    return [next(spare) if rank is None else rank for rank in ranks]


def make_windows(
    blocks: Sequence[int], samples: Callable[[int], int], size: int, batch_size: int, seed: int, epoch: int
) -> list[Window]:
    """Make the windows of an epoch, in order.

    Parameters
    ----------
    blocks : the training blocks.
    samples : returns the number of samples in a block.
    size, batch_size : maximum number of blocks per window, and of samples per batch.
    seed, epoch : determine the order.
    """
    shuffled = _stream(seed, BLOCKS, epoch).permutation(np.asarray(blocks))
    found = []
    for part in np.array_split(shuffled, -(-len(blocks) // size)):
        counts = tuple(samples(block) for block in part.tolist())
        found.append(Window(tuple(part.tolist()), counts, -(-sum(counts) // batch_size), seed, epoch))
    return [window for window in found if window.steps]


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


@dataclasses.dataclass(frozen=True)
class Batch:
    """One rank's part of a batch, possibly empty, and the number of samples over all ranks."""

    tensors: Tensors
    samples: int


class Source:
    """The blocks of a store as tensors; each is verified when this rank first reads it.

    Parameters
    ----------
    reader : the store.
    fields : the fields to read.
    prepare : makes tensors from rows of the fields; the first axis of each is the samples.
    device : where to put batches.
    keep : whether to keep blocks in memory.
    span : number of blocks prepared together; their samples count as the first block's.
    augment : varies tensors of training samples with a new random stream in each epoch.

    """

    def __init__(
        self, reader: Reader, fields: Sequence[str], prepare: Prepare, device: torch.device, *, keep: bool,
        span: int = 1, augment: Augment | None = None,
    ) -> None:  # fmt: skip
        self._reader, self._fields, self._prepare, self._device, self._keep = reader, fields, prepare, device, keep
        self._span, self._augment = span, augment
        self.path = reader.path
        self._sound: set[int] = set()
        self._kept: dict[int, Tensors] = {}

    def load(self, block: int, *, keep: bool = True) -> Tensors:
        """Load the tensors of a block, in the order of its rows; `keep` allows keeping them in memory.

        Raises
        ------
        StorageError : its bytes are damaged.
        InputError : a value is not finite.
        """
        if block in self._kept:
            return self._kept[block]
        span = range(block, block + self._span)
        is_new = not self._sound.issuperset(span)
        for number in span:
            self._require_sound(number)
        rows = {name: np.concatenate([self._reader.rows(b, name) for b in span]) for name in self._fields}
        tensors = self._prepare(rows)
        if is_new and not all(bool(tensor.isfinite().all()) for tensor in tensors):
            bad = [name for name, values in rows.items() if not np.isfinite(values).all()]
            what, where = " and ".join(bad) or "the input of the network", f"{self.path}, block {block}"
            raise InputError(f"{what} has values that are not finite", where=where, remedy="generate the store again")
        if self._keep and keep:
            self._kept[block] = tensors
        return tensors

    def _require_sound(self, block: int) -> None:
        if block in self._sound:
            return
        if damage := block_damage(self._reader, block):
            where = f"{self.path}, block {block}"
            raise StorageError(f"the store is damaged: {damage}", where=where, remedy="run scimill verify on the store")
        self._sound.add(block)

    def batches(self, window: Window, rank: int, size: int) -> list[Batch]:
        """Return this rank's parts of all batches of a window."""
        mine = [
            index
            for index, owner in enumerate(assign_ranks(window.blocks, size))
            if owner == rank and window.samples[index]
        ]
        blocks = [window.blocks[index] for index in mine]
        parts = [self._load_augmented(block, window, keep=block % size == rank) for block in blocks] or [
            self.load_none()
        ]
        step_of, rows = window.assign_steps(mine)
        mixed = [self.to_device(torch.cat(columns)[rows]) for columns in zip(*parts, strict=True)]
        sizes = np.bincount(step_of, minlength=window.steps).tolist()
        cuts = zip(*(torch.split(tensor, sizes) for tensor in mixed), strict=True)
        return [Batch(tensors, samples) for tensors, samples in zip(cuts, window.batch_samples(), strict=True)]

    def _load_augmented(self, block: int, window: Window, *, keep: bool) -> Tensors:
        """Load a training block as augmented in this epoch, the same on any rank."""
        tensors = self.load(block, keep=keep)
        if self._augment is None:
            return tensors
        return self._augment(tensors, _stream(window.seed, AUGMENTATION, window.epoch, block))

    def load_none(self) -> Tensors:
        """Return tensors without samples."""
        layout = {field.name: field for field in self._reader.layout.fields}
        return self._prepare({name: np.empty((0, *layout[name].shape), layout[name].dtype) for name in self._fields})

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Move a tensor to the device."""
        return tensor.to(self._device)


class Feed:
    """The data of one rank: its part of each epoch's batches, and of the validation blocks.

    Parameters
    ----------
    source, split : the data, and the use of each block.
    samples : returns the number of samples in a block.
    config : sizes of windows and batches, the seed.
    rank, size : this rank, and the number of ranks.

    """

    def __init__(
        self, source: Source, split: Split, samples: Callable[[int], int], config: TrainingConfig, rank: int, size: int
    ) -> None:
        self._source, self._split, self._samples, self._config = source, split, samples, config
        self._rank, self._size = rank, size
        self.training_samples = sum(map(samples, split.train))
        self.validation_samples = sum(map(samples, split.validation))
        if config.batch_size > self.training_samples:
            raise ConfigError(
                f"batch_size {config.batch_size} exceeds the number of training samples",
                where=str(source.path),
                allowed=f"at most {self.training_samples} samples, all that there are for training",
            )
        blocks = len(split.train)
        per_window = min(config.window, blocks) * self.training_samples // blocks
        if config.batch_size > per_window:
            raise ConfigError(
                f"batch_size {config.batch_size} exceeds a window of {describe_count(config.window, 'block')}",
                where=str(source.path),
                allowed=f"at most {per_window} samples",
                remedy="give a larger --window",
            )

    def steps(self, epoch: int) -> int:
        """Return the number of steps in an epoch, the same on all ranks."""
        return sum(window.steps for window in self._windows(epoch))

    def _windows(self, epoch: int) -> list[Window]:
        config = self._config
        return make_windows(self._split.train, self._samples, config.window, config.batch_size, config.seed, epoch)

    def training(self, epoch: int, skip: int) -> Iterator[tuple[Batch, float]]:
        """Yield the batches of an epoch after skipping some, each with the seconds waited for it."""
        left = []
        for window in self._windows(epoch):
            if skip < window.steps:
                left.append((window, skip))
            skip = max(0, skip - window.steps)
        jobs = (partial(self._source.batches, window, self._rank, self._size) for window, _ in left)
        for (batches, waited), (_, first) in zip(prefetch(jobs), left, strict=True):
            for number, batch in enumerate(batches[first:]):
                yield batch, 0.0 if number else waited

    def validation(self) -> Iterator[tuple[Tensors, float]]:
        """Yield this rank's validation samples in batches, each with the seconds waited for it."""
        owners = assign_ranks(self._split.validation, self._size)
        assigned = zip(self._split.validation, owners, strict=True)
        mine = [block for block, owner in assigned if owner == self._rank and self._samples(block)]
        jobs = (partial(self._source.load, block, keep=block % self._size == self._rank) for block in mine)
        for tensors, waited in prefetch(jobs):
            parts = zip(*(torch.split(tensor, self._config.batch_size) for tensor in tensors), strict=True)
            for number, part in enumerate(parts):
                yield tuple(map(self._source.to_device, part)), 0.0 if number else waited


def prefetch(jobs: Iterable[Callable[[], T]]) -> Iterator[tuple[T, float]]:
    """Run jobs in a thread, one ahead of their use; yield each result with the seconds waited for it."""
    with ThreadPoolExecutor(1, "scimill-data") as pool:
        pending = None
        for job in jobs:
            submitted = pool.submit(job)
            if pending is not None:
                yield _timed_result(pending)
            pending = submitted
        if pending is not None:
            yield _timed_result(pending)


def _timed_result(future: Future[T]) -> tuple[T, float]:
    started = time.monotonic()
    return future.result(), time.monotonic() - started
