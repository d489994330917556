"""Generating datasets when something fails: one short message, no output that looks complete, and resuming."""

import errno
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faults import bench_killer
from faults.conftest import Mount
from mpi import SCIMILL, Result, dataset_hashes, done_blocks, scimill, start, succeed, wait_until
from scimill.bench import generate
from scimill.bench.dataset.ledger import ROW, DatasetManifest
from scimill.bench.dataset.verify import verify
from scimill.bench.params import BenchGenerateConfig, ScaleConfig, SizeConfig
from scimill.bench.scale import scale
from scimill.config import Layer, build
from scimill.errors import ConfigError, InputError, ScimillError, StorageError
from scimill.parallel.world import World
from scimill.store import direct
from scimill.store.output import Output

COMMAND = ("bench", "generate", "dlrm")
STORAGE = 4
SMALL = ("--size", "2MB", "--block-size", 2**16)


def configure(**values: Any) -> BenchGenerateConfig:
    return build(
        BenchGenerateConfig, [Layer("test", {"workload": "dlrm", "size": "1MB", "block_size": 2**16, **values})]
    )


def make(path: Path, *, resume: bool = False, overwrite: bool = False, **values: Any) -> bool:
    return generate.generate(configure(**values), Output(path, resume, overwrite), World(None))


def assert_refused(result: Result, code: int, reason: str) -> None:
    assert (result.returncode, len(result.errors), result.tracebacks) == (code, 1, 0), result
    assert reason in result.stderr, result
    assert result.seconds < 60


def message(error: type[ScimillError], reason: str, **values: Any) -> None:
    """Check that a configuration is refused in at most four lines."""
    with pytest.raises(error, match=reason) as refused:
        configure(**values)
    assert len(str(refused.value).splitlines()) <= 4


# ---- requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["0", "-1", "nan", "inf", "10 apples", "", "1e300", True, "1KiBB", [1]])
def test_an_invalid_size_is_refused(size: object) -> None:
    message(ConfigError, "size", size=size)


@pytest.mark.parametrize(
    ("text", "size"),
    [("10GB", 10**10), ("10GiB", 10 * 2**30), ("1.5e9", 1_500_000_000), ("2 TiB", 2**41), ("7k", 7000), (12345, 12345)],
)
def test_sizes_have_units(text: object, size: int) -> None:
    assert configure(size=text).size == size


def test_a_missing_size_is_reported() -> None:
    with pytest.raises(ConfigError, match="size is required"):
        build(BenchGenerateConfig, [Layer("flags", {"workload": "bert"})])


@pytest.mark.parametrize(("workload", "form"), [("imseg", "bin"), ("bert", "text"), ("dlrm", "tfrecord")])
def test_a_format_of_another_workload_is_refused_with_the_valid_ones(workload: str, form: str) -> None:
    message(ConfigError, r"has no format .*imseg: npy, hdf5; bert: tfrecord, hdf5", workload=workload, format=form)


@pytest.mark.parametrize("values", [{"depth_range": "100:200"}, {"width_range": "300:200"}, {"instances_range": "0:1"}])
def test_invalid_ranges_are_refused(values: dict[str, str]) -> None:
    message(ConfigError, "must be low:high", **values)


@pytest.mark.parametrize(("workload", "form"), [("imseg", "npy"), ("bert", "tfrecord"), *(
    ("dlrm", form) for form in ("bin", "npz", "text", "parquet", "npy", "hdf5")
)])  # fmt: skip
def test_a_request_below_a_record_is_refused(tmp_path: Path, workload: str, form: str) -> None:
    with pytest.raises(ConfigError, match=r"less than the smallest dataset") as refused:
        make(tmp_path / "set", workload=workload, format=form, size=100)
    assert "at least" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


# ---- places -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_dataset_larger_than_the_disk_is_refused_before_it_begins(mount: Mount, ranks: int) -> None:
    disk = mount("8m")
    assert_refused(scimill(*COMMAND, disk / "set", "--size", "9MB", ranks=ranks), 4, "not enough disk space")
    assert list(disk.iterdir()) == []


def test_space_is_reserved_so_that_a_disk_cannot_fill_up_while_writing(mount: Mount) -> None:
    disk = mount("8m")
    (disk / "other").write_bytes(bytes(3 << 20))
    with pytest.raises(StorageError, match="not enough disk space"):
        make(disk / "set", size="6MB")
    make(disk / "set", size="4MB")
    assert not verify(disk / "set", World(None)).problems


def test_space_of_an_unfinished_run_is_not_counted_again(mount: Mount) -> None:
    disk = mount("8m")
    make(disk / "set", size="6MB")
    unfinish(disk / "set", 3)
    assert make(disk / "set", size="6MB", resume=True)
    assert not verify(disk / "set", World(None)).problems


def unfinish(path: Path, blocks: int) -> None:
    """Make a complete dataset look like one of a killed run, whose first blocks are not done."""
    (path / "manifest.json").unlink()
    with (path / ".scimill/ledger").open("r+b") as ledger:
        ledger.write(bytes(ROW.itemsize * blocks))
    with next(path.glob("*.bin")).open("r+b") as file:
        file.write(bytes(1000))
    path.rename(path.with_name(path.name + ".part"))


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_limit_of_file_sizes_is_reported(tmp_path: Path, ranks: int) -> None:
    program = ("prlimit", "--fsize=1000000", *SCIMILL)
    assert_refused(scimill(*COMMAND, tmp_path / "set", "--size", "5MB", ranks=ranks, program=program), 4, "full")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_missing_directory_is_reported_once(tmp_path: Path, ranks: int) -> None:
    result = scimill(*COMMAND, tmp_path / "missing/set", *SMALL, ranks=ranks)
    assert_refused(result, 4, "the output's directory does not exist")


def test_paths_that_cannot_hold_a_dataset_are_refused(mount: Mount, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(StorageError, match="the output is a file"):
        make(tmp_path / "file")
    with pytest.raises(StorageError, match="mount point"):
        make(mount("8m"))
    mount("8m", "ro")
    with pytest.raises(StorageError, match="cannot be written"):
        make(tmp_path / "disk-8m/set")


def test_other_data_are_never_replaced(tmp_path: Path) -> None:
    for name in ("set", "set.part"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "thesis.tex").write_text("years of work")
        for flags in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(StorageError):
                make(tmp_path / "set", **flags)
        assert (folder / "thesis.tex").read_text() == "years of work"
        shutil.rmtree(folder)


def test_an_empty_directory_becomes_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert make(tmp_path / "set")
    assert DatasetManifest.read(tmp_path / "set").workload == "dlrm"


def test_an_older_set_is_kept_or_replaced_whole_but_never_mixed(tmp_path: Path) -> None:
    make(tmp_path / "set", size="2MB", format="text")
    with pytest.raises(StorageError, match="the output already exists"):
        make(tmp_path / "set")
    with pytest.raises(ConfigError, match="seed was 1, is 2"):
        make(tmp_path / "set", size="2MB", format="text", seed=2, resume=True)
    assert not make(tmp_path / "set", size="2MB", format="text", resume=True)
    assert make(tmp_path / "set", seed=2, overwrite=True)
    assert not (tmp_path / "set/train.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
    assert not verify(tmp_path / "set", World(None)).problems


def test_an_unfinished_set_is_resumed_with_its_own_configuration_only(tmp_path: Path) -> None:
    make(tmp_path / "set")
    unfinish(tmp_path / "set", 3)
    with pytest.raises(StorageError, match="unfinished output exists"):
        make(tmp_path / "set")
    with pytest.raises(ConfigError, match="seed was 1, is 2"):
        make(tmp_path / "set", seed=2, resume=True)
    assert make(tmp_path / "set", resume=True, direct=False)
    assert not verify(tmp_path / "set", World(None)).problems


def test_two_runs_do_not_write_one_set(tmp_path: Path) -> None:
    with start(*COMMAND, tmp_path / "set", "--size", "2GB", "--block-size", 2**16) as job:
        wait_until((tmp_path / "set.part").exists, "the first run")
        with pytest.raises(StorageError, match="another run is writing"):
            make(tmp_path / "set", resume=True)
        job.end()
    shutil.rmtree(tmp_path / "set.part")


# ---- file systems without direct I/O ----------------------------------------------------------------------------


def test_without_direct_io_the_page_cache_is_used_and_this_is_reported(
    ramfs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = np.arange(20_000, dtype=np.int32).view(np.uint8)
    assert direct.allocate_file(ramfs / "file", content.size) is False
    assert (ramfs / "file").stat().st_size == content.size
    assert direct.open_pages(ramfs / "file") is None
    file = direct.AlignedFile(ramfs / "file", direct=True)
    file.write(content, 0)
    file.close()
    assert (ramfs / "file").read_bytes() == content.tobytes()
    assert direct.use_direct(ramfs, wanted=True) is False
    assert list(ramfs.iterdir()) == [ramfs / "file"]
    assert capfd.readouterr().err.count("does not support direct I/O") == 1
    assert direct.use_direct(ramfs, wanted=False) is False
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("workload", "ranks"), [("imseg", 3), ("bert", 1), ("dlrm", 3)])
def test_a_store_is_the_same_past_and_through_the_page_cache(tmp_path: Path, workload: str, ranks: int) -> None:
    files = []
    for flag in ("--direct", "--no-direct"):
        files.append(tmp_path / f"set{flag}.h5")
        size = "40MB" if workload == "imseg" else "15MB"
        options = ("--format", "hdf5", "--size", size, "--block-size", 2**22, flag)
        result = succeed("bench", "generate", workload, files[-1], *options, ranks=ranks)
        assert "does not support direct I/O" not in result.stderr
        assert "generate: 100%" in result.stderr
    assert dataset_hashes(files[0]) == dataset_hashes(files[1])


class Pages(direct.Pages):
    """Count the writes of blocks, and let one of them fail."""

    written, refused = 0, -1

    def write(self, content: direct.Bytes, offset: int) -> None:
        Pages.written += content.size > direct.PAGE  # a write of a single page only tests direct I/O
        if Pages.written == Pages.refused:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().write(content, offset)


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> type[Pages]:
    monkeypatch.setattr(direct, "Pages", Pages)
    monkeypatch.setattr(Pages, "written", 0)
    monkeypatch.setattr(Pages, "refused", -1)
    return Pages


STORE = {"format": "hdf5", "size": "10MB", "block_size": 2**19}  # blocks of 3072 rows: whole pages of all three fields


def test_fields_of_whole_blocks_are_written_past_the_page_cache(tmp_path: Path, pages: type[Pages]) -> None:
    make(tmp_path / "set.h5", **STORE)
    whole = 10**7 // 160 // 3072
    assert pages.written == 3 * whole
    config = build(ScaleConfig, [Layer("test", {"workload": "dlrm", "size": "15MB"})])
    scale(config, tmp_path / "set.h5", Output(tmp_path / "scaled.h5"), World(None))
    assert pages.written == 3 * (whole + 15 * 10**6 // 160 // 3072)


def test_a_block_that_cannot_be_written_is_reported_and_not_marked_done(tmp_path: Path, pages: type[Pages]) -> None:
    make(tmp_path / "whole.h5", **STORE)
    pages.written, pages.refused = 0, 20  # the second field of block 6
    child = os.fork()  # a failing process leaves its file open
    if child == 0:
        try:
            make(tmp_path / "set.h5", **STORE)
        except StorageError as error:
            os._exit(STORAGE if "while writing block 6" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == STORAGE
    pages.refused = -1
    assert done_blocks(tmp_path / "set.h5.part") == [0, 1, 2, 3, 4, 5]
    make(tmp_path / "set.h5", **STORE, resume=True)
    assert dataset_hashes(tmp_path / "set.h5") == dataset_hashes(tmp_path / "whole.h5")


def test_only_whole_pages_are_written_past_the_page_cache(tmp_path: Path) -> None:
    memory = direct.aligned(8 * direct.PAGE)
    assert memory.ctypes.data % direct.PAGE == 0
    memory[:] = np.random.default_rng(1).integers(0, 256, memory.size)
    assert not direct.Pages.accepts(memory[1 : direct.PAGE + 1], 0)
    assert not direct.Pages.accepts(memory[: direct.PAGE], 512)
    assert not direct.Pages.accepts(memory[:-1], 0)
    direct.allocate_file(tmp_path / "file", 9 * direct.PAGE)
    pages = direct.open_pages(tmp_path / "file")
    assert pages is not None and pages.accepts(memory, direct.PAGE)
    pages.write(memory, direct.PAGE)
    pages.close()
    assert (tmp_path / "file").read_bytes() == bytes(direct.PAGE) + memory.tobytes()


def test_blocks_of_partial_pages_are_written_in_full(tmp_path: Path) -> None:
    buffer = direct.aligned(2**16)
    buffer[:] = np.random.default_rng(1).integers(0, 256, buffer.size)
    direct.allocate_file(tmp_path / "file", 50_001)
    file = direct.AlignedFile(tmp_path / "file", direct=True)
    file.write(buffer[: 8 * 4096], 0)
    file.write(buffer[8 * 4096 : 50_001], 8 * 4096)
    file.close()
    assert (tmp_path / "file").read_bytes() == buffer[:50_001].tobytes()


# ---- interruptions-----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workload", "form"), [("bert", "tfrecord"), ("dlrm", "npz"), ("dlrm", "hdf5")])
def test_killed_at_random_instants_and_resumed_to_the_same_bytes(tmp_path: Path, workload: str, form: str) -> None:
    program = (sys.executable, bench_killer.__file__)
    result = scimill(
        tmp_path, workload, form, 10, 1, program=program, env={"PYTHONPATH": str(Path(__file__).parents[1])}
    )
    assert result.returncode == 0, result
    outcomes = [line.split() for line in result.stdout.splitlines()]
    assert [verdict for _, verdict in outcomes] == ["same"] * 10
    assert len({done for done, _ in outcomes}) > 3, outcomes  # they were killed at different points


def test_a_killed_rank_ends_the_job_and_others_resume_it(tmp_path: Path) -> None:
    ledger = tmp_path / "set.part/.scimill/ledger"
    size = ("--size", "150MB", "--block-size", 2**16)
    with start(*COMMAND, tmp_path / "set", *size, ranks=2) as job:
        wait_until(lambda: ledger.exists() and any(ledger.read_bytes()), "the first block")
        job.kill(1)
        assert job.wait().returncode != 0
    assert not (tmp_path / "set").exists()
    succeed(*COMMAND, tmp_path / "set", *size, "--resume", ranks=3)
    succeed(*COMMAND, tmp_path / "whole", *size)
    assert bench_killer.hashes(tmp_path / "set") == bench_killer.hashes(tmp_path / "whole")


def test_interrupted_with_ctrl_c_and_resumed(tmp_path: Path) -> None:
    ledger = tmp_path / "set.part/.scimill/ledger"
    size = ("--size", "150MB", "--block-size", 2**16)
    with start(*COMMAND, tmp_path / "set", *size) as job:
        wait_until(lambda: ledger.exists() and any(ledger.read_bytes()), "the first block")
        os.kill(job.rank(0), signal.SIGINT)
        result = job.wait()
    assert (result.returncode, result.tracebacks) == (75, 0), result
    assert "--resume" in result.stderr
    succeed(*COMMAND, tmp_path / "set", *size, "--resume")
    assert not verify(tmp_path / "set", World(None)).problems


# ---- verify -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "set"
    make(folder, format="npz", rows_per_file=1000)
    return folder


@pytest.fixture
def damaged(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "set")


def flip(path: Path, place: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ (1 << bit)]))


def test_verify_finds_every_flipped_bit(damaged: Path) -> None:
    random = np.random.default_rng(1)
    files = sorted(path for path in damaged.rglob("*") if path.is_file() and path.name not in ("run.json",))
    assert not verify(damaged, World(None)).problems
    for path in files:
        for place in random.integers(0, path.stat().st_size, 4).tolist():
            if path.name == "ledger" and place % ROW.itemsize > 20:
                continue  # reserved bytes, which are not used
            flip(path, place, place % 8)
            try:
                assert verify(damaged, World(None)).problems, (path, place)
            except StorageError:
                assert path.name == "manifest.json"
            flip(path, place, place % 8)
    assert not verify(damaged, World(None)).problems


@pytest.mark.parametrize("ranks", [1, 2])
def test_verify_names_the_file_and_the_bytes(damaged: Path, ranks: int) -> None:
    flip(damaged / "day_1_reordered.npz", 200_000)
    result = scimill("bench", "verify", damaged, ranks=ranks)
    assert_refused(result, 4, "1 problem found")
    assert "day_1_reordered.npz: bytes 196608 to 262144 do not match" in result.stdout


def test_verify_finds_missing_strange_and_cut_files(damaged: Path) -> None:
    (damaged / "day_0_reordered.npz").unlink()
    os.truncate(damaged / "day_1_reordered.npz", 1000)
    (damaged / "day_9_reordered.npz").touch()
    text = "\n".join(verify(damaged, World(None)).problems)
    assert "day_0_reordered.npz: is missing" in text
    assert "day_1_reordered.npz: has 1000 bytes, not" in text
    assert "day_9_reordered.npz: does not belong" in text


def test_verify_refuses_paths_that_are_not_datasets(tmp_path: Path, damaged: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        verify(tmp_path / "missing", World(None))
    with pytest.raises(InputError, match="a file, not a dataset"):
        verify(damaged / "manifest.json", World(None))
    with pytest.raises(InputError, match="unfinished"):
        verify(damaged.rename(tmp_path / "other.part"), World(None))
    damaged = (tmp_path / "other.part").rename(damaged)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not a finished dataset"):
        verify(tmp_path / "empty", World(None))
    for text in ("", "{}", "[1]", "nonsense", json.dumps({"manifest_crc32c": 1, "format_version": 1})):
        (damaged / "manifest.json").write_text(text)
        with pytest.raises(StorageError, match="the manifest is damaged"):
            verify(damaged, World(None))


def test_a_negative_memory_factor_is_refused() -> None:
    with pytest.raises(ConfigError, match="--memory-factor -1 is out of range"):
        build(SizeConfig, [Layer("flags", {"workload": "bert", "memory_factor": -1})])


# ---- traces -----------------------------------------------------------------------------------------------------


def test_a_trace_that_is_interrupted_is_kept(tmp_path: Path) -> None:
    """Interrupt with Ctrl-C, as a user stops a trainer."""
    written, trace = tmp_path / "written", tmp_path / "trace.csv"
    program = f"import time\nfile = open({str(written)!r}, 'wb', 0)\nwhile file.write(bytes(1000)): time.sleep(0.01)"
    with start("bench", "trace", trace, "--", sys.executable, "-c", program) as job:
        wait_until(lambda: written.exists() and written.stat().st_size >= 5000, "five writes")
        os.kill(job.process.pid, signal.SIGINT)
        result = job.wait()
    assert (result.returncode, len(result.errors)) == (3, 1), result
    assert "its trace so far is kept" in result.stderr
    assert sum(",write," in line and line.endswith("written") for line in trace.read_text().splitlines()) >= 5
    size = written.stat().st_size
    time.sleep(0.2)
    assert written.stat().st_size == size, "the command continues"
