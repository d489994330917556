"""A store in one process: made, stopped, damaged, resumed, read back, published, verified, repacked."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from mpi import change_ledger, dataset_hashes
from scimill.errors import ConfigError, InputError, ScimillError, Stopped, StorageError
from scimill.parallel import report
from scimill.parallel.world import Stop
from scimill.store import commands, writer
from scimill.store.direct import aligned
from scimill.store.layout import Field, Layout
from scimill.store.memory import block_memory
from scimill.store.output import Output
from scimill.store.provenance import git_state
from scimill.store.reader import Reader
from scimill.store.repack import Packing, repack
from scimill.store.verify import verify
from scimill.store.writer import BlockData
from unit.store.stores import ALONE, LAYOUT, PROVENANCE, content, fill, part_of

STOPPING = 1  # block during which the signal comes


def stopping(block: int) -> BlockData:
    """Make a block; in one of them, as a scheduler would, ask this process to stop."""
    if block == STOPPING:
        os.kill(os.getpid(), signal.SIGUSR2)
    return content(block)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "store.h5"
    assert fill(Output(path))
    return path


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """Return the name of a store of which the last block is missing."""
    with pytest.raises(Stopped, match="stopped by signal SIGUSR2; finished blocks are kept"):
        fill(Output(tmp_path / "store.h5"), stopping)
    assert [path.name for path in tmp_path.iterdir()] == ["store.h5.part"]
    return tmp_path / "store.h5"


def test_a_stopped_store_is_resumed(unfinished: Path, whole: Path) -> None:
    with Reader.open(part_of(unfinished)) as reader:
        assert reader.count_pending() == LAYOUT.blocks - STOPPING - 1
        with pytest.raises(InputError, match="the store is unfinished"):
            reader.require_complete()
    assert verify(part_of(unfinished), ALONE).problems == ()
    assert fill(Output(unfinished, resume=True))
    assert dataset_hashes(unfinished) == dataset_hashes(whole)
    assert not fill(Output(unfinished, resume=True))  # complete already
    assert list(unfinished.parent.iterdir()) == [unfinished]


def test_a_signal_while_done_blocks_are_verified_stops_the_run(unfinished: Path) -> None:
    def check_same(_: str) -> str:
        os.kill(os.getpid(), signal.SIGUSR2)
        return ""

    stop = Stop(ALONE)
    with pytest.raises(Stopped, match="stopped by signal SIGUSR2 while verifying finished blocks"):
        writer.open_writer(ALONE, Output(unfinished, resume=True), LAYOUT, PROVENANCE, check_same, stop)
    stop.restore()
    assert list(unfinished.parent.iterdir()) == [part_of(unfinished)]


def test_what_is_written_can_be_read_while_the_store_is_open(tmp_path: Path) -> None:
    stop = Stop(ALONE)
    opened = writer.open_writer(ALONE, Output(tmp_path / "store.h5"), LAYOUT, PROVENANCE, lambda _: "", stop)
    assert opened is not None
    opened.write(1, content(1), 0.0)
    assert np.array_equal(opened.reader().rows(1, "spectrum"), content(1).fields["spectrum"])
    assert opened.rows_done() == 4096
    assert not opened.finish()
    stop.restore()
    assert list(tmp_path.iterdir()) == [tmp_path / "store.h5.part"]


def test_a_store_of_which_nothing_is_made_is_sound_as_far_as_it_is(tmp_path: Path, whole: Path) -> None:
    stop = Stop(ALONE)
    opened = writer.open_writer(ALONE, Output(tmp_path / "store.h5"), LAYOUT, PROVENANCE, lambda _: "", stop)
    assert opened is not None
    assert not opened.finish()
    stop.restore()
    found = verify(part_of(tmp_path / "store.h5"), ALONE)
    assert (found.pending, found.problems) == (LAYOUT.blocks, ())
    assert fill(Output(tmp_path / "store.h5", resume=True))
    assert dataset_hashes(tmp_path / "store.h5") == dataset_hashes(whole)


def test_damaged_blocks_of_an_unfinished_store_are_made_anew(
    unfinished: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(part_of(unfinished), "r+", locking=False) as file:
        file["count"][5] += 1
    made = []
    assert fill(Output(unfinished, resume=True), lambda block: made.append(block) or content(block))
    assert "1 block with a wrong checksum: recomputing" in capsys.readouterr().err
    assert made == [0, 2]
    assert dataset_hashes(unfinished) == dataset_hashes(whole)


def test_what_a_killed_run_left_in_a_table_is_removed(unfinished: Path, whole: Path) -> None:
    with h5py.File(part_of(unfinished), "r+", locking=False) as file:
        file["found/row"][...] = 77
        change_ledger(file, 0, state=0)
        change_ledger(file, 1, state=0)
    assert fill(Output(unfinished, resume=True))
    assert dataset_hashes(unfinished) == dataset_hashes(whole)
    assert verify(unfinished, ALONE).problems == ()


def test_stray_rows_after_those_of_a_block_are_damage(whole: Path, tmp_path: Path) -> None:
    path = shutil.copy(whole, tmp_path / "store.h5")
    with h5py.File(path, "r+", locking=False) as file:
        file["found/row"][5] = 77
        change_ledger(file, 2, state=0)
    found = verify(path, ALONE)
    assert found.damaged == (0, 2)
    assert found.problems == (
        "block 0: there are stray bytes after its table rows", "block 2: its state is 0, not 255 (done)",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("provenance", "layout", "difference", "message"),
    [
        (replace(PROVENANCE, campaign="other"), LAYOUT, "", "the store belongs to campaign test, not other"),
        (replace(PROVENANCE, algorithm=2), LAYOUT, "", "the store has algorithm 1, but this scimill has 2"),
        (PROVENANCE, replace(LAYOUT, rows=9000), "", "started with another configuration: another layout"),
        (PROVENANCE, LAYOUT, "size was 1", "started with another configuration: size was 1"),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_what_would_change_the_bytes_is_not_resumed(
    provenance, layout, difference: str, message: str, finished: bool, unfinished: Path
) -> None:
    if finished:
        fill(Output(unfinished, resume=True))
    before = sorted(unfinished.parent.iterdir())
    with pytest.raises(ConfigError, match=message):
        fill(Output(unfinished, resume=True), content, provenance, layout, difference)
    assert sorted(unfinished.parent.iterdir()) == before


def test_an_output_that_exists_is_kept_unless_it_is_overwritten(unfinished: Path, whole: Path) -> None:
    with pytest.raises(StorageError, match="an unfinished output exists"):
        fill(Output(unfinished))
    assert fill(Output(unfinished, overwrite=True))
    with pytest.raises(StorageError, match="the output already exists"):
        fill(Output(unfinished))
    assert dataset_hashes(unfinished) == dataset_hashes(whole)


@pytest.mark.parametrize("alignment", [4096, 65_536])
def test_past_the_page_cache_the_bytes_are_the_same(alignment: int, whole: Path, tmp_path: Path) -> None:
    """Whole pages of aligned memory go past it; the last block, which ends within a page, and the table do not."""
    path, memory, sets = tmp_path / "store.h5", block_memory(LAYOUT), []

    def make(block: int) -> BlockData:
        data, arrays = content(block), memory(LAYOUT.rows_in(block))
        sets.append(arrays)
        for name, rows in arrays.items():
            rows[...] = data.fields[name]
            assert rows.ctypes.data % 4096 == 0
        return replace(data, fields=arrays)

    assert fill(Output(path, direct=True, alignment=alignment), make)
    assert dataset_hashes(path) == dataset_hashes(whole)
    assert verify(path, ALONE).problems == ()
    assert not np.shares_memory(sets[0]["count"], sets[1]["count"])  # the last block may still be written
    assert np.shares_memory(sets[0]["count"], sets[2]["count"])


def test_where_one_host_cannot_write_past_the_page_cache_it_does_not() -> None:
    """Rank 0 decides for all; a file of the kernel stands for the file on such a host."""
    background = writer._Background(Path("/proc/self/comm"))
    assert background.begin(aligned(4096), 0) is None
    background.close()


def test_progress_is_reported(
    unfinished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "LINE_INTERVAL", 0.0)
    fill(Output(unfinished, resume=True))
    verify(unfinished, ALONE)
    repack(unfinished, Output(unfinished.with_name("packed.h5")), Packing("gzip", 1, True, 6000))
    said = capsys.readouterr().err
    for line in ("verifying finished blocks: 100%", "make: 100%", "verify:   0%", "repack: 100%"):
        assert line in said, said


# ---- before it gets its name ------------------------------------------------------------------------------------


def test_what_the_storage_lost_is_found_before_the_store_is_published(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"

    def make(block: int) -> BlockData:
        if block == LAYOUT.blocks - 1:
            stored = part_of(path).read_bytes()
            with part_of(path).open("r+b") as file:
                file.seek(stored.index(content(0).fields["count"].tobytes()))
                file.write(bytes(4096))
        return content(block)

    with pytest.raises(StorageError, match="the storage does not hold what was written in block 0"):
        fill(Output(path, read_back_all=True), make)
    assert not path.exists()
    assert fill(Output(path, resume=True))
    assert verify(path, ALONE).problems == ()


def test_a_file_that_another_program_put_there_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading back and renaming."""
    path, read_back = tmp_path / "store.h5", writer.require_stored

    def read_back_and_replace(*given: Any) -> None:
        read_back(*given)
        shutil.copy(part_of(path), tmp_path / "copy")
        (tmp_path / "copy").replace(part_of(path))

    monkeypatch.setattr(writer, "require_stored", read_back_and_replace)
    with pytest.raises(StorageError, match="another program replaced the unfinished file"):
        fill(Output(path))
    assert [path.name for path in tmp_path.iterdir()] == ["store.h5.part"]


def test_a_structure_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    fields = (Field("a", "f4", "1", "a", (2,), axes=("x",)), Field("b", "f4", "1", "b", (3,), axes=("x",)))
    with pytest.raises(ValueError, match="the dimension x has 2 and 3 elements"):
        fill(Output(tmp_path / "store.h5"), layout=Layout(4, 4, fields))
    assert list(tmp_path.iterdir()) == []


# ---- what is in it ----------------------------------------------------------------------------------------------


def test_values_outside_their_range_are_counted(tmp_path: Path) -> None:
    def make(block: int) -> BlockData:
        data = content(block)
        if block == 1:
            data.fields["count"][:2] = 100
            data.fields["spectrum"][7, 3] = np.nan
        return data

    fill(Output(tmp_path / "store.h5"), make)
    found = verify(tmp_path / "store.h5", ALONE)
    assert found.damaged == ()
    assert found.problems == (
        "block 1: 2 values of count are outside 0 … 99", "block 1: 1 value of spectrum is outside 0 … 1 m",
    )  # fmt: skip


def test_a_reader_gives_rows_tables_and_what_identifies_the_store(whole: Path, tmp_path: Path) -> None:
    table = LAYOUT.tables[0]
    with Reader.open(whole) as reader:
        reader.require_complete()
        assert reader.table_rows(2, table, "row").tolist() == [1, 2]
        assert reader.table_row_numbers(table).tolist() == [6, 12, 13]
        assert np.array_equal(reader.rows(1, "count"), content(1).fields["count"])
        identity, sums = reader.identity(), reader.checksums()
        assert sorted(sums) == [0, 1, 2]
    assert fill(Output(tmp_path / "again.h5"))
    with Reader.open(tmp_path / "again.h5") as reader:
        assert (reader.identity(), reader.checksums()) == (identity, sums)


def test_sources_outside_a_repository_have_no_state(tmp_path: Path) -> None:
    (tmp_path / "module.py").touch()
    assert git_state(tmp_path / "module.py") == ""


# ---- copies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["gzip", "lzf", "none"])
def test_a_packed_copy_holds_the_same(compression: str, whole: Path, tmp_path: Path) -> None:
    output = Output(tmp_path / "packed.h5")
    before, after = repack(whole, output, Packing(compression, 4, True, 1000))
    assert (before, after) == (whole.stat().st_size, output.path.stat().st_size)
    assert dataset_hashes(output.path) == dataset_hashes(whole)
    assert verify(output.path, ALONE).problems == ()
    with h5py.File(output.path) as file:
        assert file["count"].compression == (None if compression == "none" else compression)
        assert file["count"].chunks == (1000,)


def test_the_command_says_how_large_the_copy_is(whole: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.h5"
    result = CliRunner().invoke(commands.repack, [str(whole), str(packed), "--level", "9"])
    size = report.human(packed.stat().st_size)
    assert result.output.splitlines()[-1] == f"{packed}: {size}, from {report.human(whole.stat().st_size)}"


def test_a_copy_replaces_neither_its_source_nor_what_exists(whole: Path, unfinished: Path) -> None:
    packing = Packing("gzip", 4, True, 1000)

    def refuse(source: Path, output: Output, message: str) -> None:
        with pytest.raises(ScimillError, match=message):
            repack(source, output, packing)

    refuse(whole, Output(whole, overwrite=True), "the output is the source")
    refuse(whole, Output(unfinished), "an unfinished output exists")
    refuse(part_of(unfinished), Output(unfinished.with_name("b.h5")), "the store is unfinished")
    repack(whole, Output(unfinished, overwrite=True), packing)
    refuse(whole, Output(unfinished), "the output already exists")
    assert list(unfinished.parent.iterdir()) == [unfinished]
