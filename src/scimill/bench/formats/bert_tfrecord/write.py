"""Writer of TFRecord files of BERT instances: ``part-00000-of-00500``, … for training, ``eval_10k`` for evaluation."""

import dataclasses
import itertools
from functools import cache

import numpy as np
from numpy.typing import NDArray

from scimill.bench import CAMPAIGN
from scimill.bench.dataset.plan import DataFile, DatasetPlan, too_small_error
from scimill.bench.dataset.streams import Offsets, RecordStream, StreamSegment, divide_records, measure
from scimill.bench.kernels import sequences
from scimill.bench.kernels.counter import stream_key, within, words
from scimill.bench.params import PlanConfig, block_size_of
from scimill.parallel.world import World
from scimill.store.checksums import crc32c
from scimill.store.direct import Bytes

TRAINING, EVALUATION, FILES = 30, 31, 32  # random streams
MAX_EVALUATION = 10_000  # instances in eval_10k
ORIGINAL_FILES = 500  # number of files of the original dataset, which every file name contains


@dataclasses.dataclass(frozen=True)
class InstanceEncoder:
    """Encoder of framed records; satisfies `streams.RecordEncoder`."""

    key: np.uint64
    is_random: bool
    group: int = 192
    typical: int = 2600

    def lengths(self, first: int, count: int) -> Offsets:
        """Return the bytes of each of `count` records, starting at `first`."""
        out = np.empty(count, dtype=np.int64)
        sequences.lengths(out, self.key, first, self.is_random)
        return out

    def encode(self, work: Bytes, at: int, limit: int, first: int, last: int) -> None:
        """Write records; see `streams.RecordEncoder`."""
        starts = np.empty((limit - at) // 2000 + 3, dtype=np.int64)  # the shortest record has 2197 bytes
        count = sequences.encode(work, at, limit, self.key, first, last, self.is_random, length_crcs(), starts)
        places, view = starts[: count + 1].tolist(), work.data
        crcs = [crc32c(view[start + 12 : stop - 4]) for start, stop in itertools.pairwise(places)]
        sequences.put_checksums(work, starts, masked_crcs(crcs), count)


def masked_crcs(crcs: list[int]) -> NDArray[np.uint32]:
    """Mask CRC-32Cs; see `sequences.masked`."""
    return sequences.masked(np.array(crcs, dtype=np.uint64)).astype(np.uint32)


@cache
def length_crcs() -> NDArray[np.uint32]:
    """Compute the masked CRC of every possible length of a record."""
    crcs = [crc32c(length.to_bytes(8, "little")) for length in range(sequences.MOST_BYTES)]
    return masked_crcs(crcs)


def instance_encoder(config: PlanConfig, stream: int) -> InstanceEncoder:
    """Make the encoder of one random stream of a configuration."""
    return InstanceEncoder(stream_key(config.seed, CAMPAIGN.number, stream), config.sequences == "random")


def make_plan(config: PlanConfig, request: int, world: World) -> DatasetPlan:
    """Plan the training files and the evaluation file, which has at most 10 000 instances."""
    held_out = _evaluation(config, request, world)
    training = measure(instance_encoder(config, TRAINING), max(1, request - held_out.size), world)
    if request < (least := held_out.size + training.offset_of(1)):
        raise too_small_error(request, least, "instance each for training and evaluation")
    count = training.fit(request - held_out.size, config.fit, "instance")
    key = stream_key(config.seed, CAMPAIGN.number, FILES)
    parts = divide_records(count, lambda number: within(config.instances_range, words(key, number, 1)[0]))
    total = max(ORIGINAL_FILES, len(parts))
    files = [_file(f"part-{i:05}-of-{total:05}", training, *part) for i, part in enumerate(parts)]
    return DatasetPlan((*files, held_out), block_size_of(config))


def _evaluation(config: PlanConfig, request: int, world: World) -> DataFile:
    encoder = instance_encoder(config, EVALUATION)
    count = min(MAX_EVALUATION, max(1, int(request * config.evaluation_share / encoder.typical)))
    file = _file("eval_10k", measure(encoder, count * sequences.MOST_BYTES, world), 0, count)
    return dataclasses.replace(file, is_held_out=True)


def _file(name: str, stream: RecordStream, first: int, last: int) -> DataFile:
    return DataFile(name, last - first, (StreamSegment.of(stream, first, last),))
