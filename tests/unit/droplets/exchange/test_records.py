"""Import and export of the original generator's records, and copies made by repack."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from scimill.config import Layer, build
from scimill.droplets.exchange import records
from scimill.droplets.generate import generate
from scimill.droplets.kernels.weird import BITS
from scimill.droplets.params import DropletsGenerateConfig, DropletsImportConfig
from scimill.errors import InputError, StorageError
from scimill.parallel.world import World
from scimill.store.inspect import inspect
from scimill.store.output import Output
from scimill.store.reader import Reader
from scimill.store.repack import Packing, repack
from scimill.store.verify import verify

ALONE = World(None)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, configure: Callable[..., DropletsGenerateConfig]) -> Path:
    path = tmp_path_factory.mktemp("store") / "droplets.h5"
    generate(configure(count=1500, block_size=512, samples=2, tolerance=1e-4), Output(path), ALONE)
    return path


def import_config(*files: Path, **values: object) -> DropletsImportConfig:
    return build(
        DropletsImportConfig, [Layer("test", {"files": [str(file) for file in files], "block_size": 256, **values})]
    )


def write_records(path: Path, count: int, seed: int) -> np.ndarray:
    low = [1e-8, 273, 1e-22, 273, 0.65, 0.8, 1e-3, 1e-6, 290]
    high = [1e-3, 310, 1e-10, 310, 1.1, 1.2, 10, 1e-6, 290]
    made = np.random.default_rng(seed).uniform(low, high, (count, 9)).astype("<f4")
    made.tofile(path)
    return made


def test_export_writes_nine_columns_per_sample(store: Path, tmp_path: Path) -> None:
    assert records.export_file(store, Output(tmp_path / "a.data")) == 3000
    exported = np.fromfile(tmp_path / "a.data", dtype="<f4").reshape(-1, 9)
    with h5py.File(store) as file:
        np.testing.assert_array_equal(exported[:, 0], np.repeat(file["initial_radius"][:], 2))
        np.testing.assert_array_equal(exported[:, 6], file["time"][:].ravel())
        np.testing.assert_array_equal(exported[:, 8], file["temperature"][:].ravel())


def test_several_files_come_back_as_they_were(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.data" for name in "abc"]
    for seed, (file, count) in enumerate(zip(files, (700, 1, 299), strict=True)):
        write_records(file, count, seed)
    records.import_files(import_config(*files), Output(tmp_path / "s.h5"), ALONE)
    assert verify(tmp_path / "s.h5", ALONE).problems == ()
    assert records.export_file(tmp_path / "s.h5", Output(tmp_path / "back.data")) == 1000
    assert (tmp_path / "back.data").read_bytes() == b"".join(file.read_bytes() for file in files)


def test_imported_weird_records_carry_their_classes(tmp_path: Path) -> None:
    made = write_records(tmp_path / "a.data", 300, 1)
    made[[3, 290], 7], made[290, 8], made[5, 8] = 1e-9, 400, np.nan
    made.tofile(tmp_path / "a.data")
    records.import_files(import_config(tmp_path / "a.data"), Output(tmp_path / "s.h5"), ALONE)
    with Reader.open(tmp_path / "s.h5") as reader:
        weird = np.concatenate([reader.rows(block, "weird") for block in range(2)])
    small, hot = BITS["outputs-radius_too_small"], BITS["outputs-temperature_too_large"]
    assert (weird[3], weird[290], weird[0]) == (small, small | hot, 0)
    assert weird[5] == BITS["inputs-evaluation_warning"]


@pytest.mark.parametrize("size", [0, 1, 35, 37, 36 * 5 + 4])
def test_a_partial_record_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.data").write_bytes(bytes(size))
    with pytest.raises(InputError, match="not a multiple of the record size" if size else "the file is empty"):
        records.import_files(import_config(tmp_path / "a.data"), Output(tmp_path / "s.h5"), ALONE)
    assert not list(tmp_path.glob("s.h5*"))


def test_export_replaces_a_file_only_with_overwrite(store: Path, tmp_path: Path) -> None:
    (tmp_path / "a.data").write_text("precious")
    with pytest.raises(StorageError, match="exists"):
        records.export_file(store, Output(tmp_path / "a.data"))
    assert (tmp_path / "a.data").read_text() == "precious"
    records.export_file(store, Output(tmp_path / "a.data", overwrite=True))
    assert (tmp_path / "a.data").stat().st_size == 3000 * 36


@pytest.mark.parametrize("compression", ["gzip", "lzf", "none"])
def test_a_repacked_store_holds_the_same_and_is_verified(store: Path, tmp_path: Path, compression: str) -> None:
    copy = tmp_path / "copy.h5"
    before, after = repack(store, Output(copy), Packing(compression, level=4, shuffle=True, chunk_rows=500))
    assert (before, after) == (store.stat().st_size, copy.stat().st_size)
    with h5py.File(store) as old, h5py.File(copy) as new:
        assert dict(old.attrs) == dict(new.attrs)
        for name in ("radius", "time", "weird/classes", "blocks"):
            np.testing.assert_array_equal(old[name][:], new[name][:])
            assert dict(new[name].attrs).keys() == dict(old[name].attrs).keys()
        assert new["radius"].chunks == (500, 2)
    assert verify(copy, ALONE).problems == ()


def test_inspect_shows_origin_datasets_ledger_and_configuration(store: Path) -> None:
    text = inspect(store)
    for part in ("campaign         droplets", "radius", "float32", "blocks: 3 of 3 done", "  samples: 2", "attempts: "):
        assert part in text
