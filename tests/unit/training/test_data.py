"""The samples in batches on any number of ranks; when blocks are loaded, and how long they are kept."""

import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi import wait_until
from scimill.config import Layer, build
from scimill.droplets.generate import generate
from scimill.droplets.learning.network import DropletTask
from scimill.droplets.learning.train import make_task
from scimill.droplets.params import DropletsGenerateConfig, DropletsTrainConfig
from scimill.errors import ConfigError
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.store.reader import Reader
from scimill.training.data import (
    Batch,
    Feed,
    Source,
    Split,
    Tensors,
    assign_ranks,
    make_windows,
    prefetch,
    split_blocks,
)

ALONE = World(None)
CPU = torch.device("cpu")
FIELDS = ("initial_radius", "initial_temperature", "salinity", "radius", "temperature")
BLOCKS, BLOCK_ROWS, ROWS = 16, 64, 1000  # the last block has 40 rows


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, configure: Callable[..., DropletsGenerateConfig]) -> Path:
    path = tmp_path_factory.mktemp("store") / "droplets.h5"
    generate(configure(count=ROWS, block_size=BLOCK_ROWS, tolerance=1e-4), Output(path), ALONE)
    return path


@pytest.fixture(scope="module")
def table(store: Path) -> np.ndarray:
    """All rows, read without scimill."""
    with h5py.File(store, locking=False) as file:
        return np.stack([file[name][:] for name in FIELDS], 1)


@pytest.fixture(scope="module")
def store_of_times(tmp_path_factory: pytest.TempPathFactory, configure: Callable[..., DropletsGenerateConfig]) -> Path:
    path = tmp_path_factory.mktemp("store") / "times.h5"
    generate(configure(count=100, block_size=64, samples=3, tolerance=1e-4), Output(path), ALONE)
    return path


@pytest.fixture
def reader(store: Path) -> Iterator[Reader]:
    with Reader.open(store) as opened:
        yield opened


def columns(rows: dict[str, np.ndarray]) -> Tensors:
    """Return rows unchanged: all droplets differ, so a row identifies its droplet."""
    return (torch.from_numpy(np.stack([rows[name] for name in FIELDS], 1)),)


def make_config(**values: object) -> DropletsTrainConfig:
    return build(DropletsTrainConfig, [Layer("test", {"batch_size": 150, "window": 5, **values})])


def make_feed(reader: Reader, rank: int = 0, size: int = 1, **values: object) -> Feed:
    config = make_config(**values)
    source = Source(reader, FIELDS, columns, CPU, keep=config.in_memory)
    split = split_blocks(BLOCKS, config, config.seed)
    return Feed(source, split, reader.layout.rows_in, config, rank, size)


def epoch_of(feed: Feed, epoch: int = 0, skip: int = 0) -> list[Batch]:
    return [batch for batch, _ in feed.training(epoch, skip)]


def rows_of(table: np.ndarray, blocks: tuple[int, ...]) -> np.ndarray:
    """Sort the rows of some blocks."""
    return in_order(np.concatenate([table[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS] for block in blocks]))


def in_order(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.T)]


def together(parts: list[Tensors]) -> np.ndarray:
    return in_order(np.concatenate([tensors[0].numpy() for tensors in parts]))


def test_the_rows_of_the_test_store_are_all_different(table: np.ndarray) -> None:
    assert len(np.unique(table, axis=0)) == len(table) == ROWS


# ---- the split --------------------------------------------------------------------------------------------------

SHARES = st.floats(0, 0.3)


@given(blocks=st.integers(3, 300), validation=SHARES, test=SHARES, seed=st.integers(0, 2**63 - 1))
@settings(max_examples=60, deadline=None)
def test_every_block_is_for_one_thing_and_a_share_gets_one_at_least(
    blocks: int, validation: float, test: float, seed: int
) -> None:
    config = make_config(validation_share=validation, test_share=test)
    split = split_blocks(blocks, config, seed)
    assert sorted((*split.train, *split.validation, *split.test)) == list(range(blocks))
    assert split.train
    for share, part in ((validation, split.validation), (test, split.test)):
        assert (len(part) == 0) == (share == 0)
        assert abs(len(part) - share * blocks) <= 1
    assert split_blocks(blocks, config, seed) == split


def test_another_seed_splits_otherwise() -> None:
    config = make_config(validation_share=0.2)
    assert len({split_blocks(100, config, seed) for seed in range(10)}) == 10


@pytest.mark.parametrize(("blocks", "validation", "test"), [(1, 0.05, 0.0), (2, 0.05, 0.05), (4, 0.5, 0.49)])
def test_too_few_blocks_are_refused(blocks: int, validation: float, test: float) -> None:
    with pytest.raises(ConfigError, match="too few to train, validate and test"):
        split_blocks(blocks, make_config(validation_share=validation, test_share=test), 1)


def test_one_block_is_enough_to_train_only() -> None:
    assert split_blocks(1, make_config(validation_share=0), 1) == Split((0,), (), ())


@given(counts=st.lists(st.integers(1, 9), min_size=3, max_size=20), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=40, deadline=None)
def test_a_group_is_for_one_thing_as_a_whole(counts: list[int], seed: int) -> None:
    groups = [group for group, count in enumerate(counts) for _ in range(count)]
    split = split_blocks(len(groups), make_config(validation_share=0.2, test_share=0.2), seed, groups)
    parts = [{groups[block] for block in part} for part in (split.train, split.validation, split.test)]
    assert sorted(group for part in parts for group in part) == list(range(len(counts)))
    assert sorted((*split.train, *split.validation, *split.test)) == list(range(len(groups)))
    assert all(parts)


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"1 group of blocks .*, too few"):
        split_blocks(100, make_config(), 1, [7] * 100)


# ---- windows ----------------------------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=25),
    size=st.integers(1, 30),
    batch=st.integers(1, 200),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10**6),
)
@settings(max_examples=100, deadline=None)
def test_windows_hold_every_block_once_and_batches_are_full(
    sizes: list[int], size: int, batch: int, seed: int, epoch: int
) -> None:
    made = make_windows(range(len(sizes)), sizes.__getitem__, size, batch, seed, epoch)
    dealt = sorted(block for window in made for block in window.blocks)
    assert len(set(dealt)) == len(dealt)
    assert {block for block, samples in enumerate(sizes) if samples} <= set(dealt)
    assert len(made) <= -(-len(sizes) // size)
    for window in made:
        total = sum(sizes[block] for block in window.blocks)
        assert len(window.blocks) <= size
        assert window.steps > 0
        assert window.steps == -(-total // batch)
        batches = window.batch_samples()
        assert sum(batches) == total
        assert len(batches) == window.steps
        assert max(batches) <= batch
        assert max(batches) - min(batches) <= 1


def test_the_order_belongs_to_seed_and_epoch(reader: Reader) -> None:
    def first_batch(seed: int, epoch: int) -> bytes:
        return epoch_of(make_feed(reader, seed=seed, validation_share=0), epoch)[0].tensors[0].numpy().tobytes()

    orders = [first_batch(seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)]
    assert len(set(orders)) == len(orders)
    assert [first_batch(seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)] == orders


def test_rows_and_not_only_blocks_are_shuffled(reader: Reader, table: np.ndarray) -> None:
    (batch,) = epoch_of(make_feed(reader, validation_share=0, window=BLOCKS, batch_size=ROWS))
    drawn = batch.tensors[0].numpy()
    place = {row.tobytes(): number for number, row in enumerate(table)}
    moves = np.diff([place[row.tobytes()] for row in drawn])
    assert np.mean(moves == 1) < 0.05


# ---- any number of ranks ----------------------------------------------------------------------------------------

RANKS = (1, 2, 3, 4, 7, 20)
"""More ranks than blocks in a window, and more than blocks in total."""


@pytest.mark.parametrize("batch_size", [7, 150, 300])
@pytest.mark.parametrize("size", RANKS)
def test_every_training_sample_is_in_one_batch_of_an_epoch(
    reader: Reader, table: np.ndarray, size: int, batch_size: int
) -> None:
    feeds = [make_feed(reader, rank, size, batch_size=batch_size, test_share=0.1) for rank in range(size)]
    batches = [epoch_of(feed, 3) for feed in feeds]
    split = split_blocks(BLOCKS, make_config(test_share=0.1), 1)
    trained = together([batch.tensors for mine in batches for batch in mine])
    assert trained.tobytes() == rows_of(table, split.train).tobytes()
    assert {len(mine) for mine in batches} == {feeds[0].steps(3)}
    for parts in zip(*batches, strict=True):
        assert {part.samples for part in parts} == {sum(len(part.tensors[0]) for part in parts)}


@pytest.mark.parametrize("size", RANKS[1:])
def test_a_batch_holds_the_same_rows_on_any_number_of_ranks(reader: Reader, size: int) -> None:
    alone = epoch_of(make_feed(reader), 1)
    ranks = zip(*(epoch_of(make_feed(reader, rank, size), 1) for rank in range(size)), strict=True)
    for batch, parts in zip(alone, ranks, strict=True):
        assert together([part.tensors for part in parts]).tobytes() == together([batch.tensors]).tobytes()


@pytest.mark.parametrize("size", RANKS)
def test_validation_blocks_are_validated_once_and_never_trained_on(
    reader: Reader, table: np.ndarray, size: int
) -> None:
    shares = {"validation_share": 0.2, "test_share": 0.1}
    split = split_blocks(BLOCKS, make_config(**shares), 1)
    assert (len(split.validation), len(split.test)) == (3, 2)
    parts = [
        part for rank in range(size) for part, _ in make_feed(reader, rank, size, **shares, batch_size=30).validation()
    ]
    assert together(parts).tobytes() == rows_of(table, split.validation).tobytes()
    assert all(0 < len(part[0]) <= 30 for part in parts)
    assert make_feed(reader, 0, size, **shares).validation_samples == sum(len(part[0]) for part in parts)


@pytest.mark.parametrize("size", [1, 3])
def test_an_epoch_goes_on_with_exactly_the_batches_that_are_left(reader: Reader, size: int) -> None:
    feed = make_feed(reader, size - 1, size)
    whole = epoch_of(feed, 2)
    for skip in range(len(whole) + 1):
        left = epoch_of(feed, 2, skip)
        assert [batch.samples for batch in left] == [batch.samples for batch in whole[skip:]]
        assert all(torch.equal(a.tensors[0], b.tensors[0]) for a, b in zip(left, whole[skip:], strict=True))


def test_a_batch_larger_than_the_data_is_refused(reader: Reader) -> None:
    with pytest.raises(ConfigError, match="batch_size 2000 exceeds the number of training samples"):
        make_feed(reader, batch_size=2000)


# ---- what is kept -----------------------------------------------------------------------------------------------


def test_a_source_keeps_nothing_unless_asked_to(reader: Reader) -> None:
    forgetful, keeping = (Source(reader, FIELDS, columns, CPU, keep=keep) for keep in (False, True))
    loaded = weakref.ref(forgetful.load(3)[0])
    assert loaded() is None
    first = keeping.load(3)[0]
    assert keeping.load(3)[0] is first
    assert torch.equal(forgetful.load(3)[0], first)


def test_batches_of_kept_blocks_are_the_same(reader: Reader) -> None:
    feed, keeping = make_feed(reader), make_feed(reader, in_memory=True)
    for epoch in (0, 1):
        pairs = list(zip(epoch_of(feed, epoch), epoch_of(keeping, epoch), strict=True))
        assert all(torch.equal(one.tensors[0], two.tensors[0]) for one, two in pairs)


def test_two_windows_are_held_at_most(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also, no block stays in memory once its window is mixed."""
    mixed: list[weakref.ref[torch.Tensor]] = []
    read: list[weakref.ref[torch.Tensor]] = []
    batches, load = Source.batches, Source.load

    def watched_batches(self: Source, *args: object) -> list[Batch]:
        made = batches(self, *args)
        mixed.append(weakref.ref(made[-1].tensors[0]))
        return made

    def watched_load(self: Source, block: int, **options: bool) -> Tensors:
        tensors = load(self, block, **options)
        read.append(weakref.ref(tensors[0]))
        return tensors

    monkeypatch.setattr(Source, "batches", watched_batches)
    monkeypatch.setattr(Source, "load", watched_load)
    held = [sum(ref() is not None for ref in mixed) for _ in make_feed(reader, window=2, batch_size=100).training(0, 0)]
    assert len(mixed) == 8
    assert max(held) <= 2
    assert len(read) == 15
    assert not any(ref() is not None for ref in read)


# ---- loading ahead ----------------------------------------------------------------------------------------------


def test_one_job_is_run_ahead_and_no_more() -> None:
    begun: list[int] = []
    threads: set[int] = set()

    def job(number: int) -> int:
        threads.add(threading.get_ident())
        begun.append(number)
        return number

    results = prefetch(partial(job, number) for number in range(5))
    for taken in range(5):
        assert next(results)[0] == taken
        ready = min(taken + 2, 5)
        wait_until(lambda ready=ready: len(begun) >= ready, "the job ahead")
        assert len(begun) == ready
    assert list(results) == []
    assert begun == [0, 1, 2, 3, 4]
    assert threading.get_ident() not in threads


def test_the_time_waited_is_that_of_a_job_that_is_not_ready() -> None:
    ready = threading.Event()

    def slow() -> str:
        assert ready.wait(120)
        return "slow"

    results = prefetch([lambda: "quick", slow, lambda: "quick"])
    next(results)
    threading.Timer(0.1, ready.set).start()
    result, waited = next(results)
    assert result == "slow"
    assert 0.05 < waited < 5
    assert next(results)[1] < 0.05


def test_an_error_of_a_job_is_raised_where_its_result_is_used() -> None:
    def fail() -> int:
        raise InterruptedError("of job 1")

    results = prefetch([lambda: 0, fail, lambda: 2])
    assert next(results)[0] == 0
    with pytest.raises(InterruptedError, match="of job 1"):
        next(results)


def test_nothing_to_load_yields_nothing() -> None:
    assert list(prefetch([])) == []


# ---- droplets as samples ----------------------------------------------------------------------------------------


def make_droplet_task(path: Path) -> tuple[DropletTask, Reader]:
    reader = Reader.open(path)
    return make_task(make_config(precision="float64"), reader, World(None)), reader


def test_a_droplet_with_three_times_is_three_samples(store_of_times: Path) -> None:
    task, reader = make_droplet_task(store_of_times)
    with reader:
        source = Source(reader, task.fields, task.prepare, CPU, keep=False)
        features, wanted = source.load(1)
    assert len(features) == len(wanted) == 36 * 3
    with h5py.File(store_of_times, locking=False) as file:
        radius, initial = file["radius"][64:], np.repeat(file["initial_radius"][64:], 3)
    change = np.log10(radius.astype(float).ravel()) - np.log10(initial.astype(float))
    np.testing.assert_allclose(wanted[:, 0], change, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["store", "store_of_times"])
def test_a_rank_without_blocks_gets_batches_of_no_samples(name: str, request: pytest.FixtureRequest) -> None:
    task, reader = make_droplet_task(request.getfixturevalue(name))
    with reader:
        source = Source(reader, task.fields, task.prepare, CPU, keep=False)
        whole = source.load(0)
        empty = source.load_none()
    assert [(len(part), part.shape[1:], part.dtype) for part in empty] == [
        (0, part.shape[1:], part.dtype) for part in whole
    ]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 999), min_size=1, max_size=40, unique=True), st.integers(1, 50))
def test_blocks_are_dealt_evenly_and_home_where_there_is_room(blocks: list[int], size: int) -> None:
    ranks = assign_ranks(blocks, size)
    held = np.bincount(ranks, minlength=size)
    assert held.max() - held.min() <= 1
    at_home = sum(block % size == rank for block, rank in zip(blocks, ranks, strict=True))
    room = [len(blocks) // size + (rank < len(blocks) % size) for rank in range(size)]
    wanted = np.bincount([block % size for block in blocks], minlength=size)
    assert at_home == sum(min(wanted[rank], room[rank]) for rank in range(size))


def test_only_blocks_at_home_are_kept(reader: Reader) -> None:
    sources = [Source(reader, FIELDS, columns, CPU, keep=True) for _ in range(3)]
    config = make_config(validation_share=0)
    for epoch in range(6):
        for window in make_windows(range(BLOCKS), reader.layout.rows_in, config.window, config.batch_size, 1, epoch):
            for rank, source in enumerate(sources):
                source.batches(window, rank, 3)
    for rank, source in enumerate(sources):
        assert {block % 3 for block in source._kept} == {rank}


# ---- sequences and augmentation ---------------------------------------------------------------------------------


def first_of_block(rows: dict[str, np.ndarray]) -> Tensors:
    """The first row of each of the blocks that were read together, as one sample."""
    return (torch.from_numpy(rows["salinity"][::BLOCK_ROWS].astype(np.float64))[None],)


def marked(tensors: Tensors, stream: np.random.Generator) -> Tensors:
    """Add a random number to each sample, as a column."""
    return (torch.cat((tensors[0], torch.from_numpy(stream.random((len(tensors[0]), 1)))), 1),)


def sequences(reader: Reader, rank: int, size: int, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Batches of sequences of three blocks, none starting in the last two of six; validation samples."""
    config = make_config(batch_size=2, window=4, validation_share=0.5)
    source = Source(reader, ("salinity",), first_of_block, CPU, keep=True, span=3, augment=marked)
    split = Split((0, 1, 2, 3, 4, 5), (6, 7, 14, 15), ())
    feed = Feed(source, split, lambda block: int(block not in (4, 5, 14, 15)), config, rank, size)
    batches = [batch.tensors[0].numpy() for batch in epoch_of(feed, epoch)]
    return batches, np.concatenate([tensors[0].numpy() for tensors, _ in feed.validation()] or [np.empty((0, 3))])


@pytest.mark.parametrize("size", [2, 3])
def test_sequences_and_their_augmentation_do_not_depend_on_the_ranks(
    reader: Reader, table: np.ndarray, size: int
) -> None:
    firsts = table[::BLOCK_ROWS, FIELDS.index("salinity")]
    whole, validation = sequences(reader, 0, 1, 0)
    found = in_order(np.concatenate(whole)[:, :3])
    wanted = in_order(np.stack([firsts[block : block + 3] for block in range(4)]).astype(np.float64))
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(in_order(validation), in_order(np.stack([firsts[6:9], firsts[7:10]]).astype(float)))
    parts = [sequences(reader, rank, size, 0) for rank in range(size)]
    for step, batch in enumerate(whole):
        pieces = np.concatenate([batches[step].reshape(-1, 4) for batches, _ in parts])
        np.testing.assert_array_equal(in_order(pieces), in_order(batch))
    np.testing.assert_array_equal(in_order(np.concatenate([part for _, part in parts])), in_order(validation))


def test_each_epoch_augments_anew(reader: Reader) -> None:
    marks = [in_order(np.concatenate(sequences(reader, 0, 1, epoch)[0]))[:, 3] for epoch in (0, 0, 1)]
    np.testing.assert_array_equal(marks[0], marks[1])
    assert not np.any(marks[0] == marks[2])
    assert len(set(marks[0])) == len(marks[0])
