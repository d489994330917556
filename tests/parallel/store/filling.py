"""Make a store of three snapshots on some ranks, the first of them together; each rank is on a host of a given name.

Usage: filling.py OUTPUT HOSTS FLAGS...   (HOSTS: the ranks' names of hosts, with commas between)

    --lose BLOCK   remove what was written of a block before the store is read back
    --resume       resume the store
"""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[2]))
from scimill.parallel.partition import share
from scimill.parallel.world import Stop, World, launch, world
from scimill.store import readback
from scimill.store.blocks import run_blocks
from scimill.store.layout import Field, Layout
from scimill.store.output import Output
from scimill.store.verify import Report, verify
from scimill.store.writer import BlockData, Writer, open_writer
from unit.store.stores import PROVENANCE

SNAPSHOTS = Layout(3, 1, (Field("time", "float64", "s", "a time"), Field("field", "float32", "1", "a field", (4, 512))))


def snapshot(block: int) -> BlockData:
    """Make a block."""
    values = np.random.default_rng(block).random((1, 4, 512), dtype=np.float32)
    return BlockData({"time": np.array([float(block)]), "field": values})


def make_together(writer: Writer) -> None:
    """Write block 0; each rank gives some rows of the field, the first one the time too."""
    ranks, whole = world(), snapshot(0)
    mine = np.array_split(np.arange(4), ranks.size)[ranks.rank]
    others = {"time": whole.fields["time"]} if ranks.is_root else {}
    data = BlockData({"field": whole.fields["field"][:, mine], **others}, shared=("field",))
    writer.write_shared(0, data, int(mine[0]), ranks, time.monotonic())


def lose(path: Path, block: int) -> None:
    """Remove some bytes of a block."""
    stored = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(stored.index(snapshot(block).fields["field"].tobytes()))
        file.write(bytes(512))


def make_in_parts(ranks: World, writer: Writer, flags: list[str]) -> None:
    make_together(writer)
    for block in share(writer.pending[writer.pending > 0], ranks.rank, ranks.size).tolist():
        writer.write(block, snapshot(block), time.monotonic())
    ranks.barrier()
    if "--lose" in flags and ranks.is_root:
        lose(Output(Path(sys.argv[1])).part, int(flags[1]))
    ranks.barrier()


def main() -> int:
    ranks, flags = world(), sys.argv[3:]
    readback.host_identity = lambda: sys.argv[2].split(",")[ranks.rank]
    output = Output(Path(sys.argv[1]), "--resume" in flags, hints={"cb_nodes": "1"}, read_back_all=True)
    stop = Stop(ranks)
    writer = open_writer(ranks, output, SNAPSHOTS, PROVENANCE, lambda _: "", stop)
    if writer is None:
        return 0
    if 0 in writer.pending:
        make_in_parts(ranks, writer, flags)
        assert writer.finish()
    else:
        run_blocks(ranks, writer, snapshot, stop, what="make", unit="snapshots")
    assert verify(output.path, ranks) == Report(3, 0, 3, ())
    return 0


if __name__ == "__main__":
    launch(main)
