"""What writing and verifying a store ask of the file system, as strace sees it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpi import SCIMILL
from scimill.parallel.world import Stop, World
from scimill.store.layout import Field, Layout, Table
from scimill.store.output import Output
from scimill.store.provenance import Provenance
from scimill.store.writer import BlockData, open_writer

ALONE = World(None)
ROWS = 400_000
CALL = re.compile(r"^\d+ +(read|pread64|write|pwrite64)\(\d+<([^>]*)>.*= (\d+)$", re.MULTILINE)


def write(path: Path, block_rows: int) -> Layout:
    """Write a store of nine fields and a table, like that of droplets."""
    fields = tuple(Field(f"field{number}", "float32", "1", "a number", valid=(0.0, 1.0)) for number in range(9))
    table = Table("found", block_rows // 16, (Field("row", "int32", "1", "a row"),))
    layout = Layout(ROWS, block_rows, fields, (table,))
    writer = open_writer(ALONE, Output(path), layout, Provenance("test", 1, "", 0), lambda _: "", Stop(ALONE))
    assert writer is not None
    dice = np.random.default_rng(1)
    for block in range(layout.blocks):
        rows = {field.name: dice.random(layout.rows_in(block), dtype=np.float32) for field in fields}
        writer.write(block, BlockData(rows, {"found": {"row": np.arange(block_rows // 20, dtype=np.int32)}}), 0.0)
    assert writer.finish()
    return layout


def trace(path: Path, *command: str) -> list[tuple[str, int]]:
    """Run a command under strace; return its calls for a file, and their bytes."""
    log = path.with_suffix(".strace")
    calls = "trace=read,pread64,write,pwrite64"
    done = subprocess.run(["strace", "-f", "-y", "-e", calls, "-o", log, *command], capture_output=True, check=False)
    assert done.returncode == 0, done
    found = CALL.findall(log.read_text())
    return [(call, int(count)) for call, name, count in found if name.startswith(str(path))]


@pytest.mark.parametrize(("block_rows", "limit"), [(65_536, 1.1), (1000, 1.3)])
def test_verify_reads_each_byte_about_once(block_rows: int, limit: float, tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    write(path, block_rows)
    read = sum(count for _, count in trace(path, *SCIMILL, "verify", str(path)))
    assert 0.9 <= read / path.stat().st_size <= limit


def test_marking_a_block_as_done_is_one_write(tmp_path: Path) -> None:
    """The blocks differ by their number: each takes one write per field, and one for its row of the ledger."""
    path = tmp_path / "store.h5"
    tests = str(Path(__file__).parents[2])
    program = f"import sys; sys.path.insert(0, {tests!r}); from parallel.store.test_calls import Path, write; "
    program += "write(Path(sys.argv[1]), int(sys.argv[2]))"
    counts = []
    for block_rows in (20_000, 40_000):
        calls = trace(path, sys.executable, "-c", program, str(path), str(block_rows))
        counts.append(sum(call in ("write", "pwrite64") for call, _ in calls))
        path.unlink()
    assert counts[0] - counts[1] == 10 * (9 + 1 + 1)  # fields, the field of the table, the ledger
