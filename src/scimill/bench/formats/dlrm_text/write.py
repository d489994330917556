"""Writer of dlrm's text format: ``train.txt``, one line per row, fields separated by tabs, missing fields empty."""

import dataclasses

import numpy as np

from scimill.bench.dataset.plan import DataFile, DatasetPlan
from scimill.bench.dataset.streams import Offsets, StreamSegment, measure
from scimill.bench.formats import dlrm
from scimill.bench.kernels import lines
from scimill.bench.kernels.clicks import Distribution
from scimill.bench.params import PlanConfig, block_size_of
from scimill.parallel.world import World
from scimill.store.direct import Bytes


@dataclasses.dataclass(frozen=True)
class LineEncoder:
    """Encoder of lines; satisfies `streams.RecordEncoder`."""

    key: np.uint64
    distribution: Distribution
    texts: lines.Words
    group: int = 2048
    typical: int = 285

    def lengths(self, first: int, count: int) -> Offsets:
        """Return the bytes of each of `count` lines, starting at `first`."""
        out = np.empty(count, dtype=np.int64)
        lines.lengths(out, self.key, first, self.distribution, self.texts)
        return out

    def encode(self, work: Bytes, at: int, limit: int, first: int, last: int) -> None:
        """Write lines; see `streams.RecordEncoder`."""
        lines.encode(work, at, limit, self.key, first, last, self.distribution, self.texts)


def make_plan(config: PlanConfig, request: int, world: World) -> DatasetPlan:
    """Plan ``train.txt``."""
    distribution = dlrm.distribution(config.ids, config.missing, is_text=True)
    stream = measure(
        LineEncoder(dlrm.key(config.seed), distribution, lines.integer_texts(int(distribution.ranges[1]))),
        request,
        world,
    )
    count = stream.fit(request, config.fit, "line")
    return DatasetPlan((DataFile("train.txt", count, (StreamSegment.of(stream, 0, count),)),), block_size_of(config))
