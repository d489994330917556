"""repair: damaged blocks are restored, an interrupted repair resumes, and losses are named."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import droplet_traces
from mpi import Result, dataset_hashes, done_blocks, scimill, start, succeed, wait_until

SMALL = ("--count", 2000, "--block-size", 100, "--tolerance", 1e-4)
SLOW = ("--count", 40_000, "--block-size", 1024, "--tolerance", 1e-12)
"""Seconds of work, to be interrupted."""
DLRM = ("--size", "2MB", "--format", "npz", "--block-size", 2**16)


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 4]))


def damage_rows(path: Path, dataset: str, *rows: int) -> None:
    """Flip a bit of some rows of a dataset."""
    with h5py.File(path, "r", locking=False) as file:
        offset, size = file[dataset].id.get_offset(), file[dataset].dtype.itemsize
    for row in rows:
        flip(path, offset + row * size)


def file_hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_left_alone(result: Result, path: Path, before: object, look: Callable[[Path], object], *words: str) -> None:
    """Check that the repair was refused with these words, and changed and renamed nothing."""
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
    assert [word for word in words if word not in result.stderr] == [], result
    assert look(path) == before
    assert not list(path.parent.glob("*.part*"))


@pytest.fixture(scope="module")
def droplets(compiled_kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "droplets.h5"
    succeed("droplets", "generate", path, *SMALL)
    return path


@pytest.fixture
def store(droplets: Path, tmp_path: Path) -> Path:
    return shutil.copy(droplets, tmp_path / "droplets.h5")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "set"
    succeed("bench", "generate", "dlrm", folder, *DLRM)
    return folder


@pytest.fixture
def dataset(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "set")


# ---- stores -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
def test_damaged_blocks_of_a_store_are_recomputed(store: Path, ranks: int) -> None:
    before = dataset_hashes(store)
    damage_rows(store, "radius", 350, 1999)
    damage_rows(store, "blocks", 7)
    assert "run scimill repair" in scimill("verify", store).stderr
    assert "repaired blocks 3, 7, 19" in succeed("repair", store, ranks=ranks).stdout
    assert dataset_hashes(store) == before
    assert "sound" in succeed("verify", store).stdout
    assert [path.name for path in store.parent.iterdir()] == ["droplets.h5"]


def test_a_sound_store_is_left_alone(store: Path) -> None:
    before = store.stat()
    assert "nothing to repair" in succeed("repair", store).stdout
    assert store.stat().st_mtime_ns == before.st_mtime_ns


def test_a_killed_repair_is_continued(compiled_kernel: None, tmp_path: Path) -> None:
    store, part = tmp_path / "droplets.h5", tmp_path / "droplets.h5.part"
    succeed("droplets", "generate", store, *SLOW, ranks=2)
    before = dataset_hashes(store)
    damage_rows(store, "radius", *range(0, 40_000, 1000))
    with start("repair", store, ranks=2) as job:
        wait_until(lambda: part.exists() and 0 < len(done_blocks(part)) < 40, "blocks that are pending again")
        job.kill(1)
        assert job.wait().returncode != 0
    assert part.exists()
    assert not store.exists()
    succeed("repair", store)
    assert dataset_hashes(store) == before
    assert not part.exists()


def test_an_unfinished_output_of_the_same_name_is_not_touched(store: Path) -> None:
    damage_rows(store, "radius", 350)
    part = shutil.copy(store, store.with_name("droplets.h5.part"))
    before = store.read_bytes()
    result = scimill("repair", store)
    assert (result.returncode, len(result.errors)) == (4, 1), result
    assert store.read_bytes() == before
    assert Path(part).read_bytes() == before


def test_a_damaged_structure_is_not_repaired(store: Path) -> None:
    flip(store, 100)
    before = store.read_bytes()
    assert_left_alone(scimill("repair", store), store, before, Path.read_bytes, "seal")


def test_a_repacked_copy_is_not_repaired(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copies" / "copy.h5"
    copy.parent.mkdir()
    succeed("repack", store, copy, "--compression", "none")
    with h5py.File(copy, "r", locking=False) as file:
        offset = file["radius"].id.get_chunk_info(0).byte_offset
    flip(copy, offset)
    assert_left_alone(scimill("repair", copy), copy, copy.read_bytes(), Path.read_bytes)


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """A store of records that differ from each other."""
    records = np.abs(np.random.default_rng(1).standard_normal((300, 9))).astype("<f4") + 1
    records.tofile(tmp_path / "records.data")
    files = (tmp_path / "records.data", tmp_path / "droplets.h5")
    succeed("droplets", "import-data", *files, "--kind", "records", "--block-size", 100)
    damage_rows(tmp_path / "droplets.h5", "radius", 150)
    return tmp_path / "droplets.h5"


def test_imported_blocks_are_read_again(imported: Path) -> None:
    assert "repaired block 1" in succeed("repair", imported).stdout


def test_imported_steps_of_a_trace_are_read_again(tmp_path: Path) -> None:
    droplet_traces.write(tmp_path / "trace.data", droplet_traces.simulate(20, 16, 0.1))
    succeed("droplets", "import-data", tmp_path / "trace.data", tmp_path / "steps.h5", "--block-size", 100)
    before = dataset_hashes(tmp_path / "steps.h5")
    damage_rows(tmp_path / "steps.h5", "radius", 150)
    assert "repaired block 1" in succeed("repair", tmp_path / "steps.h5").stdout
    assert dataset_hashes(tmp_path / "steps.h5") == before


def test_imported_blocks_whose_source_is_gone_are_named(imported: Path) -> None:
    before = imported.read_bytes()
    (imported.parent / "records.data").unlink()
    words = ("block 1", "the other 2 of 3 blocks", "records.data", "import-data")
    assert_left_alone(scimill("repair", imported), imported, before, Path.read_bytes, *words)


def test_a_source_that_has_changed_is_found(imported: Path) -> None:
    flip(imported.parent / "records.data", 36 * 150)
    result = scimill("repair", imported)
    assert (result.returncode, len(result.errors)) == (4, 1), result
    assert "recomputing gave different bytes in block 1" in result.stderr


# ---- datasets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
def test_damaged_blocks_of_a_dataset_are_recomputed(dataset: Path, ranks: int) -> None:
    before = file_hashes(dataset)
    flip(dataset / "day_0_reordered.npz", 200_000)
    flip(dataset / ".scimill/ledger", 5)
    (dataset / "day_fea_count.npz").unlink()
    succeed("repair", dataset, ranks=ranks)
    assert file_hashes(dataset) == before
    assert [path.name for path in dataset.parent.iterdir()] == ["set"]


def test_a_dataset_that_is_cut_short_and_has_lost_its_ledger_is_made_again(dataset: Path) -> None:
    before = file_hashes(dataset)
    os.truncate(dataset / "day_0_reordered.npz", 1000)
    shutil.rmtree(dataset / ".scimill")
    assert scimill("verify", dataset).returncode == 4
    succeed("repair", dataset)
    assert file_hashes(dataset) == before


def test_a_repair_that_died_after_renaming_is_continued(dataset: Path) -> None:
    before = file_hashes(dataset)
    flip(dataset / "day_0_reordered.npz", 200_000)
    dataset.rename(dataset.with_name("set.part"))
    succeed("repair", dataset)
    assert file_hashes(dataset) == before


def test_strange_files_in_a_dataset_are_not_touched(dataset: Path) -> None:
    flip(dataset / "day_0_reordered.npz", 200_000)
    (dataset / "notes.txt").write_text("mine")
    before = file_hashes(dataset)
    assert_left_alone(scimill("repair", dataset), dataset, before, file_hashes, "notes.txt")


def test_a_damaged_manifest_is_not_repaired(dataset: Path) -> None:
    flip(dataset / "manifest.json", 200)
    before = file_hashes(dataset)
    assert_left_alone(scimill("repair", dataset), dataset, before, file_hashes, "manifest")


# ---- training runs ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(droplets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    small = ("--epochs", 2, "--hidden", 8, "--batch-size", 256, "--threads", 1)
    succeed("droplets", "train", droplets, "--output", run, *small)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def test_a_sound_run_has_nothing_to_repair(run: Path) -> None:
    assert "nothing to repair" in succeed("repair", run).stdout


def test_a_damaged_model_of_a_finished_run_is_named(run: Path) -> None:
    flip(run / "model.pt", 500)
    before = file_hashes(run)
    result = scimill("repair", run)
    assert (result.returncode, len(result.errors)) == (3, 1), result
    assert "droplets train" in result.stderr
    assert file_hashes(run) == before


def test_an_unfinished_run_goes_on_from_the_checkpoint_that_is_whole(run: Path) -> None:
    (run / "result.json").unlink()
    shutil.copy(run / "checkpoint.pt", run / "checkpoint-previous.pt")
    flip(run / "checkpoint.pt", 500)
    text = succeed("repair", run).stdout
    assert "checkpoint-previous.pt" in text
    assert "--resume" in text
