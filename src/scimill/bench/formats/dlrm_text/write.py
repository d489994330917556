"""The text format of dlrm: ``train.txt``, a line per row, tabs between the fields, nothing where one is missing."""

import dataclasses

import numpy as np

from scimill.bench.dataset.plan import DataFile, Plan
from scimill.bench.dataset.streams import Offsets, StreamSegment, measure
from scimill.bench.formats import dlrm
from scimill.bench.kernels import lines
from scimill.bench.kernels.clicks import Law
from scimill.bench.params import Plannable, block_size_of
from scimill.parallel.world import World
from scimill.store.direct import Bytes


@dataclasses.dataclass(frozen=True)
class Lines:
    """Law of the lines; satisfies `streams.RecordLaw`."""

    key: np.uint64
    law: Law
    texts: lines.Words
    group: int = 2048
    typical: int = 285

    def lengths(self, first: int, count: int) -> Offsets:
        """Bytes of `count` lines from `first` on."""
        out = np.empty(count, dtype=np.int64)
        lines.lengths(out, self.key, first, self.law, self.texts)
        return out

    def encode(self, work: Bytes, at: int, limit: int, first: int, last: int) -> None:
        """Write lines; see `streams.RecordLaw`."""
        lines.encode(work, at, limit, self.key, first, last, self.law, self.texts)


def plan(config: Plannable, request: int, world: World) -> Plan:
    """Plan ``train.txt``."""
    law = dlrm.law(config.ids, config.missing, is_text=True)
    stream = measure(Lines(dlrm.key(config.seed), law, lines.digits(int(law.ranges[1]))), request, world)
    count = stream.fit(request, config.fit, "line")
    return Plan((DataFile("train.txt", count, (StreamSegment.of(stream, 0, count),)),), block_size_of(config))
