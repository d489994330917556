"""Datasets of dlrm: what their readers find, with the same rows in every format."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scimill.bench import generate
from scimill.bench.dataset.ledger import DatasetManifest
from scimill.bench.dataset.plan import MARGIN, KnownBytes
from scimill.bench.formats import catalogue, dlrm
from scimill.bench.formats.dlrm_arrays import npz, parquet
from scimill.bench.formats.npy import npy_header
from scimill.bench.kernels import clicks
from scimill.bench.params import BenchGenerateConfig
from scimill.config import Layer, build
from scimill.parallel.world import World
from scimill.store.output import Output
from splitmix import halves


def configure(**values: Any) -> BenchGenerateConfig:
    return build(
        BenchGenerateConfig, [Layer("test", {"workload": "dlrm", "size": "1.2MB", "rows_per_file": 3000, **values})]
    )


def make(folder: Path, **values: Any) -> Path:
    """Generate a dataset, of about 7000 rows by default."""
    generate.generate(configure(**values), Output(folder / "set"), World(None))
    return folder / "set"


def rows(folder: Path, **values: Any) -> np.ndarray:
    """All rows of the training and the test file of the binary format, as the trainer reads them."""
    found = make(folder, format="bin", **values)
    files = [np.fromfile(found / f"terabyte_processed_{name}.bin", dtype=np.int32) for name in ("train", "test")]
    return np.concatenate([file.reshape(-1, 40) for file in files])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return rows(tmp_path_factory.mktemp("bin"))


def test_values_are_in_the_ranges_that_the_counts_state(table: np.ndarray, tmp_path: Path) -> None:
    counts = np.load(make(tmp_path, format="bin") / "day_fea_count.npz")["counts"]
    assert counts.shape == (26,)
    assert set(np.unique(table[:, 0])) == {0, 1}
    assert table.min() == 0 and table[:, 1:14].max() < 2_557_264
    assert (table[:, 14:] < counts).all()
    assert (table[:, 14:].max(axis=0) > 0.99 * counts - 2).all()
    np.testing.assert_allclose(table[:, 1:14].mean(axis=0) / 2_557_264, 0.5, atol=0.02)


def test_values_are_the_words_of_splitmix64(table: np.ndarray) -> None:
    ranges = [2, *[2_557_264] * 13, *clicks.COUNTS] * 5
    bits = halves(int(dlrm.key(1)), 0, 100)
    expected = [(half * count) >> 32 for half, count in zip(bits, ranges, strict=True)]
    assert table[:5].ravel().tolist() == expected


def test_text_has_the_fields_of_criteo(tmp_path: Path) -> None:
    text = (make(tmp_path, format="text") / "train.txt").read_bytes()
    assert text.endswith(b"\n")
    fields = [line.split(b"\t") for line in text.splitlines()]
    assert {len(line) for line in fields} == {40}
    bits = list(halves(int(dlrm.key(1)), 0, 20 * 30))
    for number, line in enumerate(fields[:30]):
        label, *features = bits[40 * number : 40 * number + 40]
        expected = [f"{(label * 2) >> 32}", *(f"{(b * 1001) >> 32}" for b in features[:13])]
        assert b"\t".join(line).decode() == "\t".join([*expected, *(f"{b:08x}" for b in features[13:])])
    integers = np.array([[int(field) for field in line[1:14]] for line in fields])
    assert (integers.min(), integers.max()) == (0, 1000)


def test_skewed_text_repeats_its_categories_and_leaves_missing_fields_empty(tmp_path: Path) -> None:
    text = (make(tmp_path, format="text", ids="skewed", missing=0.25) / "train.txt").read_text()
    fields = np.array([line.split("\t") for line in text.splitlines()])
    np.testing.assert_allclose((fields[:, 1:] == "").mean(axis=0), 0.25, atol=0.03)
    present = fields[fields[:, 14] != "", 14]
    assert all(re.fullmatch("[0-9a-f]{8}", value) for value in present)
    assert len(set(present)) < 0.8 * len(present)
    assert all(0 <= int(value) < 65536 for value in fields[:, 5] if value)


def test_the_test_file_has_its_share(tmp_path: Path) -> None:
    found = make(tmp_path, format="bin", evaluation_share=0.25)
    sizes = [(found / f"terabyte_processed_{name}.bin").stat().st_size for name in ("train", "test")]
    assert [size % 160 for size in sizes] == [0, 0]
    assert sizes[1] / sum(sizes) == pytest.approx(0.25, abs=1e-3)


def test_npz_holds_the_same_rows_in_arrays_that_begin_at_pages(table: np.ndarray, tmp_path: Path) -> None:
    found = make(tmp_path, format="npz", size="2.4MB")
    totals = np.load(found / "day_day_count.npz")["total_per_file"]
    first = 0
    for number, count in enumerate(totals.tolist()):
        path = found / f"day_{number}_reordered.npz"
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert [member.filename for member in archive.infolist()] == ["X_int.npy", "X_cat.npy", "y.npy"]
        with np.load(path) as day:
            assert {day[name].dtype for name in day} == {np.dtype(np.int64)}
            joined = np.column_stack([day["y"], day["X_int"], day["X_cat"]])
        assert len(joined) == count
        np.testing.assert_array_equal(joined, table[first : first + count])
        first += count
    assert len(totals) > 2 and first <= len(table)


def test_the_triplet_holds_the_same_rows(table: np.ndarray, tmp_path: Path) -> None:
    found = make(tmp_path, format="npy")
    for number in range(3):
        dense, sparse, labels = (np.load(found / f"day_{number}_{name}.npy") for name in ("dense", "sparse", "labels"))
        assert (dense.dtype, sparse.dtype, labels.dtype) == (np.float32, np.int32, np.int32)
        expected = table[3000 * number : 3000 * (number + 1)][: len(labels)]
        np.testing.assert_array_equal(np.column_stack([labels, dense.astype(np.int32), sparse]), expected)


def test_parquet_holds_the_same_rows(table: np.ndarray, tmp_path: Path) -> None:
    found = make(tmp_path, format="parquet")
    tables = [pq.read_table(found / f"day_{number}.parquet") for number in range(3)]
    assert [len(part) for part in tables[:2]] == [3000, 3000]
    assert set(tables[0].schema.types) == {pa.int32()}
    joined = np.concatenate([np.column_stack([part[name].to_numpy() for name in part.column_names]) for part in tables])
    np.testing.assert_array_equal(joined, table[: len(joined)])


def test_parquet_of_several_row_groups_is_read(tmp_path: Path) -> None:
    rows = parquet.GROUP_ROWS + 5
    config = configure(format="parquet", rows_per_file=rows)
    (file,) = catalogue.make_plan(config, parquet.template(rows).size, World(None)).files
    content = np.zeros(file.size + 2 * MARGIN, dtype=np.uint8)
    file.fill(0, file.size, content, MARGIN)
    found = pq.read_table(pa.BufferReader(content[MARGIN : MARGIN + file.size].tobytes()))
    expected = np.empty((5, 40), dtype=np.int32)
    clicks.fill_rows(expected, dlrm.key(1), parquet.GROUP_ROWS, 0, dlrm.distribution("uniform", 0.0))
    for column, name in enumerate(found.column_names):
        np.testing.assert_array_equal(found[name].to_numpy()[-5:], expected[:, column])


def test_members_of_more_than_4_gib_have_the_headers_of_zip64(tmp_path: Path) -> None:
    rows = 60_000_000
    file = catalogue.make_plan(configure(format="npz", rows_per_file=rows), npz.size_of(rows), World(None)).files[0]
    with (tmp_path / "day.npz").open("wb") as sparse:
        for offset, segment in zip(file.offsets, file.segments, strict=False):
            if isinstance(segment, KnownBytes):
                sparse.seek(offset)
                sparse.write(segment.content)
    with zipfile.ZipFile(tmp_path / "day.npz") as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
        assert archive.open("X_cat.npy").read(128) == npy_header((file.records, 26), "<i8")
    assert sizes["X_cat.npy"] == 128 + file.records * 26 * 8 > 2**32


def test_preprocessed_is_one_file(tmp_path: Path) -> None:
    found = make(tmp_path, format="bin", binary_name="preprocessed", size=160 * 1000 - 1)
    assert {path.name for path in found.iterdir()} == {".scimill", "manifest.json", "preprocessed.bin"}
    assert (found / "preprocessed.bin").stat().st_size == 160_000


def test_skewed_ids_repeat_and_missing_features_are_zero(tmp_path: Path) -> None:
    skewed = rows(tmp_path, ids="skewed", missing=0.2)
    counts = np.array(clicks.COUNTS)
    # u⁸ < 1/1000 for u < 0.4217, and a fifth is missing
    share = (skewed[:, 14:] <= counts // 1000).mean(axis=0)[counts > 100_000]
    np.testing.assert_allclose(share, 1 - 0.8 * (1 - 0.4217), atol=0.03)
    assert set(np.unique(skewed[:, 0])) == {0, 1}


@pytest.mark.parametrize("form", ["bin", "npz", "npy", "text"])
@pytest.mark.parametrize("fit", ["at-least", "at-most", "nearest"])
@pytest.mark.parametrize("size", [30_000, 1_234_567, 900_000_000])
def test_the_size_is_within_a_row_of_the_request(form: str, fit: str, size: int) -> None:
    config = configure(format=form, fit=fit, rows_per_file=3_000_000)
    total = catalogue.make_plan(config, size, World(None)).size
    record = {"bin": 160, "npz": 320, "npy": 160, "text": 300}[form]
    assert {"at-least": 0 <= total - size < record, "at-most": 0 <= size - total < record}.get(
        fit, abs(total - size) <= record // 2
    )


@pytest.mark.parametrize("form", ["bin", "npz", "npy", "text"])
def test_any_range_of_a_file_is_made_by_itself(form: str) -> None:
    file = catalogue.make_plan(configure(format=form), 600_000, World(None)).files[0]
    whole = np.zeros(file.size + 2 * MARGIN, dtype=np.uint8)
    file.fill(0, file.size, whole, MARGIN)
    random = np.random.default_rng(1)
    for start in random.integers(0, file.size // 4, 20) * 4:
        stop = min(file.size, int(start) + 20_000)
        work = np.full(20_000 + 2 * MARGIN, 255, dtype=np.uint8)
        file.fill(int(start), stop, work, MARGIN)
        np.testing.assert_array_equal(work[MARGIN : MARGIN + stop - start], whole[MARGIN + start : MARGIN + stop])


def test_the_manifest_vouches_for_the_joined_checksums(tmp_path: Path) -> None:
    from crc32c import crc32c

    found = make(tmp_path, format="npz", size="2.4MB", block_size=65536)
    for entry in DatasetManifest.read(found).files:
        content = (found / entry.name).read_bytes()
        assert (entry.size, entry.crc32c) == (len(content), crc32c(content))
