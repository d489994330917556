"""Scaling a dataset: the size, the fair choice, the distribution of added records, and refused inputs."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bench_data as data
from scimill.bench.formats.imseg_npy.cases import EVALUATION
from scimill.bench.generate import generate
from scimill.bench.kernels.scaling import Pieces, pick, split_into_files
from scimill.bench.params import BenchGenerateConfig, ScaleConfig
from scimill.bench.scale import scale
from scimill.config import Layer, build
from scimill.errors import ConfigError, InputError, StorageError
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.store.verify import verify

WORKLOADS = {
    "bin": "dlrm",
    "text": "dlrm",
    "npz": "dlrm",
    "triplets": "dlrm",
    "parquet": "dlrm",
    "bert": "bert",
    "imseg": "imseg",
}
RECORD = {"bin": 160, "text": 400, "npz": 320, "triplets": 160, "parquet": 7000, "bert": 4000}
RECORD["imseg"] = 5 * 131 * 128**2
"""Bytes of the longest record of the inputs below; for parquet, of the metadata of one more file."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    data.make_bin(folder / "bin", train=20_000, test=2000)
    data.make_text(folder / "text", 4000)
    data.make_npz(folder / "npz", [4000, 3000])
    data.make_triplets(folder / "triplets", [4000, 3000])
    data.make_parquet(folder / "parquet", [4000, 3000])
    data.make_records(folder / "bert", [150, 100], evaluation=30)
    data.make_cases(folder / "imseg", [0, 1, 2, 3, 7, 9])
    return folder


def config_of(kind: str, **values) -> ScaleConfig:
    return build(ScaleConfig, [Layer("test", {"workload": WORKLOADS[kind], **values})])


def scaled(inputs: Path, kind: str, output: Path, **values) -> str:
    summary = scale(config_of(kind, **values), inputs / kind, Output(output), World(None))
    assert summary is not None
    return summary


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != "manifest.json")


def total(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in names(folder))


def hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names(folder)}


@pytest.mark.parametrize("factor", [0.37, 2.6])
@pytest.mark.parametrize("kind", WORKLOADS)
def test_the_size_is_met_within_a_record(inputs, tmp_path, kind, factor):
    size = round(total(inputs / kind) * factor) if kind != "parquet" else round(7000 * 160 * factor)  # compressed
    fits = (("at-least", 0, 1), ("at-most", -1, 0), ("nearest", -0.5, 0.5))
    for fit, low, high in fits[:1] if kind == "parquet" else fits:
        scaled(inputs, kind, tmp_path / fit, size=size, fit=fit)
        assert low * RECORD[kind] <= total(tmp_path / fit) - size <= high * RECORD[kind]
        shutil.rmtree(tmp_path / fit)


# ---- added records have the same distribution but other values --------------------------------------------------


def test_rows_that_are_added(inputs, tmp_path):
    scaled(inputs, "bin", tmp_path / "out", size=10_000_000)
    before, after = (
        np.fromfile(folder / "terabyte_processed_train.bin", "<i4").reshape(-1, 40)
        for folder in (inputs / "bin", tmp_path / "out")
    )
    assert np.array_equal(after[: len(before)], before)
    again = after[len(before) : 2 * len(before)]
    for column in range(40):
        assert np.array_equal(np.sort(again[:, column]), np.sort(before[:, column]))
    assert len(np.unique(after, axis=0)) > 0.999 * len(after)
    assert (tmp_path / "out" / "day_fea_count.npz").read_bytes() == (inputs / "bin" / "day_fea_count.npz").read_bytes()
    test = (tmp_path / "out" / "terabyte_processed_test.bin").stat().st_size
    assert test / total(tmp_path / "out") == pytest.approx(2000 / 22_000, rel=0.01)


def test_archives_that_are_added(inputs, tmp_path):
    """Arrays keep their rows per file, and the counts match; compressed inputs give the same output."""
    scaled(inputs, "npz", tmp_path / "out", size=3 * 7000 * 320)
    data.make_npz(tmp_path / "compressed", [4000, 3000], compressed=True)
    scale(config_of("npz", size=3 * 7000 * 320), tmp_path / "compressed", Output(tmp_path / "same"), World(None))
    assert hashes(tmp_path / "same") == hashes(tmp_path / "out")
    files = [np.load(tmp_path / "out" / f"day_{number}_reordered.npz") for number in range(6)]
    rows = [np.hstack([file["y"][:, None], file["X_int"], file["X_cat"]]) for file in files]
    counts = np.load(tmp_path / "out" / "day_day_count.npz")["total_per_file"]
    assert counts.tolist() == [len(table) for table in rows] == [4000, 3000, 4000, 3000, 4000, counts[-1]]
    assert np.array_equal(rows[0], data.rows(4000, seed=0))
    for column in range(40):
        assert np.array_equal(np.sort(rows[2][:, column]), np.sort(rows[0][:, column]))
    assert len(np.unique(np.vstack(rows), axis=0)) > 0.999 * counts.sum()


def test_triplets_that_are_added(inputs, tmp_path):
    scaled(inputs, "triplets", tmp_path / "out", size=2 * 7000 * 160 + 8000)
    for name, dtype, columns in (("dense", "float32", 13), ("sparse", "int32", 26), ("labels", "int32", 1)):
        arrays = [np.load(tmp_path / "out" / f"day_{number}_{name}.npy") for number in range(4)]
        assert [array.shape for array in arrays] == [(4000, columns), (3000, columns)] * 2
        assert {str(array.dtype) for array in arrays} == {dtype}
        assert np.array_equal(np.sort(arrays[0], axis=0), np.sort(arrays[2], axis=0))
        assert np.array_equal(arrays[0], np.load(inputs / "triplets" / f"day_0_{name}.npy"))
        assert (name == "labels") == np.array_equal(arrays[0], arrays[2])


def test_tables_that_are_added(inputs, tmp_path):
    import pyarrow.parquet as pq

    scaled(inputs, "parquet", tmp_path / "out", size=3 * 7000 * 160)
    tables = [pq.read_table(tmp_path / "out" / f"day_{number}.parquet") for number in range(4)]
    rows = [np.stack([column.to_numpy() for column in table.columns], axis=1) for table in tables]
    assert [len(table) for table in rows] == [4000, 3000, 4000, 3000]
    assert np.array_equal(rows[0], data.rows(4000, seed=0))
    assert not np.array_equal(rows[2], rows[0])
    assert np.array_equal(np.sort(rows[2], axis=0), np.sort(rows[0], axis=0))
    assert len(np.unique(np.vstack(rows), axis=0)) > 0.999 * 14_000


def test_lines_that_are_added(inputs, tmp_path):
    scaled(inputs, "text", tmp_path / "out", size=2 * total(inputs / "text"))
    before, after = (data.read_text(folder / "train.txt") for folder in (inputs / "text", tmp_path / "out"))
    again = after[len(before) :]
    assert after[: len(before)] == before
    assert len(again) == len(before)
    for column in range(40):
        assert sorted(line[column] for line in again) == sorted(line[column] for line in before)
    assert len({tuple(line) for line in after}) == len(after)


def test_records_that_are_added(inputs, tmp_path):
    """Tokens are shuffled; special and masked tokens, and their originals, keep their places."""
    scaled(inputs, "bert", tmp_path / "out", size=3 * total(inputs / "bert"))
    before = [record for path in sorted((inputs / "bert").glob("part*")) for record in data.read_records(path)]
    after = [record for path in sorted((tmp_path / "out").glob("part*")) for record in data.read_records(path)]
    assert len(after) == 3 * len(before)
    assert names(tmp_path / "out") == ["eval_10k", *(f"part-{i:05}-of-00500" for i in range(6))]
    for old, new in zip(before + before, after[len(before) :], strict=True):
        for name in set(old) - {"input_ids"}:
            assert np.array_equal(old[name], new[name])
        assert np.array_equal(np.sort(old["input_ids"]), np.sort(new["input_ids"]))
        assert (old["input_ids"] != new["input_ids"]).any()
        count = int(old["masked_lm_weights"].sum())
        stays = old["input_ids"] < 128
        stays[old["masked_lm_positions"][:count]] = True
        assert np.array_equal(old["input_ids"][stays], new["input_ids"][stays])
    assert len({record["input_ids"].tobytes() for record in after}) == len(after)


def core(image: np.ndarray) -> np.ndarray:
    """Return unclipped voxels along the depth of an image of shape (1, depth, width, width)."""
    return image[0, :, 64, 64]


def is_near(a: np.ndarray, b: np.ndarray, reach: float) -> bool:
    return bool(np.abs(a - b).max() <= reach)


def test_cases_that_are_added(inputs, tmp_path):
    """An image is shifted cyclically along its depth, with noise where it is not clipped; labels shift with it."""
    scaled(inputs, "imseg", tmp_path / "out", size=round(1.4 * total(inputs / "imseg")))
    old, new = names(inputs / "imseg"), names(tmp_path / "out")
    assert set(old) < set(new)
    assert all((tmp_path / "out" / name).read_bytes() == (inputs / "imseg" / name).read_bytes() for name in old)
    images = {name: np.load(inputs / "imseg" / name) for name in old if "_x" in name}
    for name in sorted(set(new) - set(old)):
        if "_y" in name:
            continue
        image, label = np.load(tmp_path / "out" / name), np.load(tmp_path / "out" / name.replace("_x", "_y"))
        matches = [
            (source, turn) for source, other in images.items() if other.shape == image.shape
            for turn in range(1, image.shape[1]) if is_near(np.roll(core(other), -turn), core(image), 0.03)
        ]  # fmt: skip
        ((source, turn),) = matches
        other = np.roll(images[source], -turn, 1)
        assert is_near(other, image, 0.03)
        assert np.array_equal(np.roll(np.load(inputs / "imseg" / source.replace("_x", "_y")), -turn, 1), label)
        clipped = other == np.float32(-2.340702)
        assert (image[clipped] == other[clipped]).all()
        assert (image[~clipped] != other[~clipped]).mean() > 0.99
        assert image.std() == pytest.approx(other.std(), rel=1e-3)


# ---- a smaller dataset is a fair choice -------------------------------------------------------------------------


def test_a_smaller_set_keeps_cases_their_numbers_and_the_share_of_evaluation(inputs, tmp_path):
    summary = scaled(inputs, "imseg", tmp_path / "out", size=total(inputs / "imseg") // 2, fit="nearest")
    kept = names(tmp_path / "out")
    assert set(kept) < set(names(inputs / "imseg"))
    evaluation = [name for name in kept if name.startswith(("case_00000", "case_00003"))]
    assert len(kept) == 6
    assert len(evaluation) == 2
    assert "evaluation 33" in summary


def test_every_record_is_as_likely_to_be_kept(inputs, tmp_path):
    """Over 40 seeds, lines are kept as evenly over the file as if each were drawn independently."""
    before = [tuple(line) for line in data.read_text(inputs / "text" / "train.txt")]
    counts = np.zeros(len(before))
    place = {line: number for number, line in enumerate(before)}
    for seed in range(40):
        out = tmp_path / str(seed)
        scaled(inputs, "text", out, size=total(inputs / "text") // 4, seed=seed)
        counts[[place[tuple(line)] for line in data.read_text(out / "train.txt")]] += 1
        shutil.rmtree(out)
    tenths = counts.reshape(10, -1).mean(axis=1)
    assert counts.mean() == pytest.approx(10, abs=0.1)
    # Pieces of about 13 lines are kept together: the mean of 400 lines scatters by sqrt(10 · 0.75 / 31).
    assert np.abs(tenths - 10).max() < 5 * np.sqrt(10 * 0.75 / 31)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=8), min_size=1, max_size=12),
    st.integers(1, 3000), st.sampled_from(["at-least", "at-most", "nearest"]), st.integers(0, 9), st.booleans(),
)  # fmt: skip
def test_picks_meet_any_request(lengths, request, fit, seed, shuffled):
    sizes = np.array([sum(piece) for piece in lengths])
    pieces = Pieces(np.zeros(len(sizes), dtype=int), np.cumsum(sizes) - sizes, sizes, np.array(list(map(len, lengths))))
    picks = pick(pieces, request, fit, shuffled, np.random.default_rng(seed), lambda i: np.array(lengths[i]))
    off, longest = picks.total - request, max(map(max, lengths))
    assert -longest < off < longest
    assert off >= 0 if fit == "at-least" else off <= 0 if fit == "at-most" else abs(off) <= longest
    times = np.bincount(picks.piece, minlength=len(sizes))
    assert times.max() - times.min() <= 1
    assert sum(len(range(*part.indices(len(picks.piece)))) for part in split_into_files(picks, sizes)) == len(
        picks.piece
    )


# ---- modes and knobs --------------------------------------------------------------------------------------------


def test_copies_and_other_orders_report_their_duplicates(inputs, tmp_path):
    size = 3 * total(inputs / "text")
    before = sorted(data.read_text(inputs / "text" / "train.txt"))
    for mode in ("copy", "permute"):
        assert "66.67% duplicates" in scaled(inputs, "text", tmp_path / mode, size=size, mode=mode)
        after = data.read_text(tmp_path / mode / "train.txt")
        assert sorted(after) == sorted(before * 3)
    assert data.read_text(tmp_path / "copy" / "train.txt")[4000:8000] != after[4000:8000]


def test_the_share_of_duplicates_is_the_requested_one(inputs, tmp_path):
    summary = scaled(inputs, "bin", tmp_path / "out", size=30_000_000, duplicates=0.3)
    rows = np.fromfile(tmp_path / "out" / "terabyte_processed_train.bin", "<i4").reshape(-1, 40)
    share = 1 - len(np.unique(rows, axis=0)) / len(rows)
    assert share == pytest.approx(0.3 * 8 / 9, rel=0.1)
    assert float(summary.split(" bytes")[1].split(", ")[1].split("%")[0]) / 100 == pytest.approx(share, rel=0.05)


@pytest.mark.parametrize("kind", ["bin", "text", "bert", "imseg"])
def test_repetition_makes_added_records_compressible(inputs, tmp_path, kind):
    import zlib

    ratios = []
    for share in (0, 0.8):
        out = tmp_path / str(share)
        scaled(inputs, kind, out, size=2 * total(inputs / kind), compressible=share)
        largest = max(out.iterdir(), key=lambda path: path.stat().st_size if path.is_file() else 0)
        name = "case_00012_x.npy" if kind == "imseg" else "part-00002-of-00500" if kind == "bert" else largest.name
        content = (out / name).read_bytes()[-400_000:]
        ratios.append(len(zlib.compress(content, 1)) / len(content))
    assert ratios[1] < 0.9 * ratios[0]


def test_a_directory_is_not_a_store(inputs, tmp_path):
    config = build(ScaleConfig, [Layer("test", {"workload": "dlrm", "size": "1MB", "format": "hdf5"})])
    with pytest.raises(ConfigError, match="a directory is not a store"):
        scale(config, inputs / "bin", Output(tmp_path / "out"), World(None))


def test_clones_are_refused_if_the_file_system_has_none(inputs):
    """/dev/shm is a tmpfs, which cannot clone."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        config, output = config_of("imseg", size=10**8, mode="reflink"), Output(Path(folder) / "out")
        with pytest.raises(StorageError, match="the file system cannot clone files"):
            scale(config, inputs / "imseg", output, World(None))
        assert list(Path(folder).iterdir()) == []
    with pytest.raises(ConfigError, match="mode = reflink shares whole files"):
        config_of("bert", size=10**6, mode="reflink")


# ---- refused inputs ----------------------------------------------------------------------------------------------


def refusal(kind: str, folder: Path, output: Path, capsys, **values) -> tuple[str, str]:
    """Return the error of scaling a folder, and the report before it; check that nothing is left behind."""
    with pytest.raises(InputError) as caught:
        scale(config_of(kind, size=10**8, **values), folder, Output(output), World(None))
    assert not output.exists()
    assert len(str(caught.value).splitlines()) <= 4
    return caught.value.what, capsys.readouterr().err


def test_all_defects_of_cases_are_reported_at_once(tmp_path, capsys):
    folder = tmp_path / "in"
    data.make_cases(folder, [27, 30, 31, 32, 40, 41, 42, 43])
    (folder / "case_00027_y.npy").unlink()
    (folder / "case_00030_x.npy").unlink()
    os.truncate(folder / "case_00031_x.npy", 10**6)
    np.save(folder / "case_00032_x.npy", np.load(folder / "case_00032_x.npy").astype(np.float64))
    (folder / "case_00040_y.npy").write_bytes(b"no array")
    np.save(folder / "case_00041_y.npy", np.full((1, 130, 128, 128), 3, dtype=np.uint8))
    np.save(folder / "case_00042_y.npy", np.zeros((1, 64, 128, 128), dtype=np.uint8))
    what, report = refusal("imseg", folder, tmp_path / "out", capsys)
    assert what.startswith("the dataset has 7 defects")
    for text in (
        "case_00027_y.npy: is missing", "case_00030_x.npy: is missing",
        "case_00031_x.npy: is 7,454,272 bytes too short",
        "case_00032_x.npy: has dtype float64, not float32", "case_00040_y.npy: is not a .npy file",
        "case_00041_y.npy: has label 3", "case_00042_y.npy: has shape (1, 64, 128, 128)",
    ):  # fmt: skip
        assert text in report
    config = config_of("imseg", size=10**7, skip_damaged=True)
    assert scale(config, folder, Output(tmp_path / "sound"), World(None)) is not None
    assert names(tmp_path / "sound") == ["case_00043_x.npy", "case_00043_y.npy"]


def test_damaged_records_are_reported(inputs, tmp_path, capsys):
    folder = tmp_path / "in"
    shutil.copytree(inputs / "bert", folder)
    flipped = bytearray((folder / "part-00027-of-00500").read_bytes())
    flipped[5000] ^= 1
    (folder / "part-00027-of-00500").write_bytes(flipped)
    os.truncate(folder / "part-00029-of-00500", 5000)
    short = data.sequence(np.random.default_rng(1))
    short["input_ids"] = short["input_ids"][:511]
    (folder / "part-00031-of-00500").write_bytes(data.frame(data.example(short)))
    lacking = data.sequence(np.random.default_rng(1))
    del lacking["segment_ids"]
    (folder / "part-00033-of-00500").write_bytes(data.frame(data.example(lacking)))
    (folder / "part-00035-of-00500").touch()
    what, report = refusal("bert", folder, tmp_path / "out", capsys)
    assert what.startswith("the dataset has 5 defects")
    assert report.count("is cut short, or its checksum is wrong") == 2
    assert "has features with the wrong number of values" in report
    assert "lacks features that bert needs" in report
    assert "part-00035-of-00500: is empty" in report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("\t", " "),
            "line 1 does not have 40 fields separated by tabs (4,000 of 4,000 lines wrong)",
        ),
        (lambda text: text.replace("\n", "\r\n"), "line 1 ends in CR LF"),
        (lambda text: text[:30_000] + "\t" + text[30_000:], "has"),
        (lambda text: text.replace("0", "x"), "has a field that is not a number"),
        (lambda text: text + "7" * 100_000 + "\n", "line 4,001 is longer than any valid line"),
        (lambda text: "", "is empty"),
    ],
)
def test_damaged_lines_are_reported(inputs, tmp_path, capsys, change, message):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "train.txt").write_bytes(change((inputs / "text" / "train.txt").read_text()).encode())
    what, report = refusal("text", folder, tmp_path / "out", capsys)
    assert message in what
    assert message in report


def test_a_text_without_its_last_newline_is_accepted(inputs, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    text = (inputs / "text" / "train.txt").read_text()
    (folder / "train.txt").write_text(text[:-1])
    scale(config_of("text", size=len(text)), folder, Output(tmp_path / "out"), World(None))
    assert (tmp_path / "out" / "train.txt").read_text() == text


def test_damaged_rows_are_reported(inputs, tmp_path, capsys):
    folder = tmp_path / "in"
    shutil.copytree(inputs / "bin", folder)
    with (folder / "terabyte_processed_train.bin").open("ab") as file:
        file.write(bytes(70))
    (folder / "terabyte_processed_test.bin").write_bytes(b"")
    what, report = refusal("bin", folder, tmp_path / "out", capsys)
    assert what.startswith("the dataset has 2 defects")
    assert "3200070 bytes are not a whole number of 160-byte rows" in report
    assert "terabyte_processed_test.bin: is empty" in report


def test_damaged_arrays_are_reported(inputs, tmp_path, capsys):
    folder = tmp_path / "in"
    data.make_npz(folder, [300] * 4)
    os.truncate(folder / "day_0_reordered.npz", 10_000)
    np.savez(folder / "day_1_reordered.npz", X_int=np.ones((300, 13), int), X_cat=np.ones((299, 26), int))
    np.savez(folder / "day_2_reordered.npz", X_int=np.ones((300, 12), int), X_cat=np.ones((300, 26), int), y=np.ones(3))
    what, report = refusal("npz", folder, tmp_path / "out", capsys)
    for text in (
        "day_0_reordered.npz, X_int: is damaged: File is not a zip file",
        "day_1_reordered.npz, y: is not in the file",
        "day_2_reordered.npz, X_int: has shape (300, 12)",
    ):
        assert text in report
    folder = tmp_path / "triplets"
    shutil.copytree(inputs / "triplets", folder)
    os.truncate(folder / "day_0_dense.npy", 10_000)
    np.save(folder / "day_1_sparse.npy", np.ones((2999, 26), dtype=np.int32))
    what, report = refusal("triplets", folder, tmp_path / "out", capsys)
    assert "the dataset has 2 defects" in what
    assert "day_0_dense.npy: is 198,128 bytes too short" in report
    assert "day_1_dense.npy: has arrays with different numbers of rows: 2999, 3000" in report
    (folder / "day_0_labels.npy").unlink()
    data.make_parquet(tmp_path / "tables", [300, 300])
    os.truncate(tmp_path / "tables" / "day_1.parquet", 1000)
    assert "day_1.parquet, label: is damaged" in refusal("parquet", tmp_path / "tables", tmp_path / "out", capsys)[1]
    assert "day_0_labels.npy: is missing" in refusal("triplets", folder, tmp_path / "out", capsys)[1]


def test_other_inputs_are_refused(inputs, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    refuse = partial(refusal, "bert", output=tmp_path / "out", capsys=capsys)
    assert refuse(tmp_path / "none")[0] == "no such dataset"
    assert refuse(tmp_path / "empty")[0] == "no files of bert"
    assert refuse(inputs / "imseg")[0] == "no files of bert"
    shutil.copytree(inputs / "bin", tmp_path / "both")
    shutil.copy(inputs / "text" / "train.txt", tmp_path / "both")
    assert refusal("bin", tmp_path / "both", tmp_path / "out", capsys)[0] == "files of more than one format: bin, text"


def test_links_are_followed_unless_they_lead_nowhere(inputs, tmp_path, capsys):
    for kind in ("bin", "npz", "bert", "imseg", "text"):
        folder = tmp_path / kind
        folder.mkdir()
        for name in names(inputs / kind):
            (folder / name).symlink_to(inputs / kind / name)
        scaled(tmp_path, kind, tmp_path / f"{kind}-out", size=total(inputs / kind) // 2)
        last = max(folder.iterdir(), key=lambda path: path.stat().st_size)
        last.unlink()
        last.symlink_to(tmp_path / "nowhere")
        what = refusal(kind, folder, tmp_path / "out", capsys)[0]
        assert any(text in what for text in ("is missing", "no such file", "no files of", "one training file")), what


def test_other_outputs_are_refused(inputs, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(inputs / "bert", folder)
    (tmp_path / "link").symlink_to(folder)
    for output in (folder, tmp_path / "link", folder / "out"):
        with pytest.raises(ConfigError, match="the output is the input, or inside it"):
            scale(config_of("bert", size=10**6), folder, Output(output), World(None))
    with pytest.raises(ConfigError, match="less than the smallest dataset with these parameters: one record"):
        scale(config_of("bert", size=100, fit="at-most"), folder, Output(tmp_path / "out"), World(None))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other").touch()
    with pytest.raises(StorageError, match="holds other data"):
        scale(config_of("bert", size=10**6), folder, Output(tmp_path / "full"), World(None))
    with pytest.raises(StorageError, match="not enough disk space"):
        scale(config_of("imseg", size=10**15), inputs / "imseg", Output(tmp_path / "out"), World(None))
    assert names(folder) == names(inputs / "bert")


def test_resuming_with_another_input_is_refused(inputs, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(inputs / "bin", folder)
    config = config_of("bin", size=10**6)
    assert scale(config, folder, Output(output), World(None)) is not None
    assert scale(config, folder, Output(output, resume=True), World(None)) is None
    with pytest.raises(ConfigError, match="seed was 1, is 2"):
        scale(config_of("bin", size=10**6, seed=2), folder, Output(output, resume=True), World(None))
    os.utime(folder / "terabyte_processed_train.bin")
    with pytest.raises(ConfigError, match="the input is a different dataset, or has changed"):
        scale(config, folder, Output(output, resume=True), World(None))


LEAN = """
import sys
import scimill.bench.commands, scimill.bench.generate, scimill.bench.scale
from scimill.bench.formats import catalogue
for workload, form in catalogue.FORMATS:
    catalogue.reader(workload, form)
print(*{"h5py", "pyarrow", "matplotlib", "torch"} & set(sys.modules))
"""


def test_large_libraries_are_loaded_only_where_a_format_needs_them():
    """They would take a quarter of a rank's memory."""
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == ""


# ---- stores -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    for workload, size in (("dlrm", "3MB"), ("bert", "3MB"), ("imseg", "64MB")):
        values = {"workload": workload, "format": "hdf5", "size": size, "block_size": 2**18, "sequences": "sentences"}
        values |= (
            {"depth_range": "128:131", "width_range": "128:128", "labels": "blobs", "block_size": 2**20}
            if workload == "imseg"
            else {}
        )
        generate(build(BenchGenerateConfig, [Layer("test", values)]), Output(folder / f"{workload}.h5"), World(None))
    return folder


@pytest.mark.parametrize("workload", ["dlrm", "bert"])
def test_stores_are_scaled(stores, tmp_path, workload):
    import h5py

    config = build(ScaleConfig, [Layer("test", {"workload": workload, "size": "8MB"})])
    assert scale(config, stores / f"{workload}.h5", Output(tmp_path / "out.h5"), World(None)) is not None
    with h5py.File(stores / f"{workload}.h5") as old, h5py.File(tmp_path / "out.h5") as new:
        fields = [name for name in old if isinstance(old[name], h5py.Dataset) and "units" in old[name].attrs]
        rows = len(old[fields[0]])
        unit = sum(old[name].dtype.itemsize * int(np.prod(old[name].shape[1:])) for name in fields)
        assert 0 <= len(new[fields[0]]) * unit - 8_000_000 < unit
        for name in fields:
            before, after = old[name][()], new[name][()]
            assert np.array_equal(after[:rows], before)
            assert np.array_equal(np.sort(after[rows : 2 * rows], axis=None), np.sort(before, axis=None))
            assert (name not in ("dense", "sparse", "input_ids")) == np.array_equal(after[rows : 2 * rows], before)


def cases_of(path: Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return image and labels of each case of a store by number, located by the table alone."""
    import h5py

    with h5py.File(path) as file:
        starting = np.concatenate([
            np.arange(count) + block * (len(file["cases/case"]) // len(file["blocks"]))
            for block, count in enumerate(file["blocks"]["cases_rows"])
        ])  # fmt: skip
        table = [file[f"cases/{name}"][:][starting] for name in ("case", "first", "shape")]
        return {
            int(number): tuple(
                file[name][int(first) : int(first) + int(shape.prod())].reshape(shape) for name in ("image", "label")
            )
            for number, first, shape in zip(*table, strict=True)
        }


def largest(cases: dict[int, tuple[np.ndarray, np.ndarray]]) -> int:
    return max(5 * label.size for _, label in cases.values())


@pytest.mark.parametrize("mode", ["perturb", "permute", "copy"])
def test_a_store_of_cases_becomes_larger(stores, tmp_path, mode):
    """An added case is shifted along its depth, labels included; if perturbed, the image gets noise."""
    config = build(ScaleConfig, [Layer("test", {"workload": "imseg", "size": "100MB", "mode": mode})])
    summary = scale(config, stores / "imseg.h5", Output(tmp_path / "out.h5"), World(None))
    old, new = cases_of(stores / "imseg.h5"), cases_of(tmp_path / "out.h5")
    assert not verify(tmp_path / "out.h5", World(None)).problems
    assert 0 <= sum(5 * label.size for _, label in new.values()) - 100_000_000 < largest(old)
    assert list(new)[: len(old)] == list(old)
    for number, (image, label) in new.items():
        if number in old:
            assert np.array_equal(image, old[number][0])
            assert np.array_equal(label, old[number][1])
            continue
        reach = 0.03 if mode == "perturb" else 0
        shifts = range(1) if mode == "copy" else range(1, len(image))
        ((origin, turn),) = [
            (origin, turn) for origin, (other, _) in old.items() if other.shape == image.shape
            for turn in shifts if is_near(np.roll(core(other[None]), -turn), core(image[None]), reach)
        ]  # fmt: skip
        other = np.roll(old[origin][0], -turn, 0)
        assert is_near(other, image, reach)
        assert np.array_equal(np.roll(old[origin][1], -turn, 0), label)
        assert ((image != other).mean() > 0.99) == (mode == "perturb")
        assert image.std() == pytest.approx(other.std(), rel=1e-3)
    assert (" 0.00% duplicates" in summary) == (mode == "perturb")


def test_a_store_of_cases_becomes_smaller(stores, tmp_path):
    """Cases keep their numbers and evaluation its share; the size is rounded to a whole case as asked."""
    old = cases_of(stores / "imseg.h5")
    for fit, low, high in (("at-least", 0, 1), ("at-most", -1, 0)):
        config = build(ScaleConfig, [Layer("test", {"workload": "imseg", "size": "32MB", "fit": fit})])
        scale(config, stores / "imseg.h5", Output(tmp_path / f"{fit}.h5"), World(None))
        new = cases_of(tmp_path / f"{fit}.h5")
        assert new.keys() < old.keys()
        assert len(new.keys() & EVALUATION) == 1
        for number, content in new.items():
            assert all(np.array_equal(a, b) for a, b in zip(content, old[number], strict=True))
        size = sum(5 * label.size for _, label in new.values()) - 32_000_000
        assert low * largest(old) <= size <= high * largest(old)


def test_stores_that_are_refused(stores, tmp_path):
    reflink = build(ScaleConfig, [Layer("test", {"workload": "imseg", "size": "100MB", "mode": "reflink"})])
    with pytest.raises(ConfigError, match="reflink shares whole files, and a store is one"):
        scale(reflink, stores / "imseg.h5", Output(tmp_path / "out.h5"), World(None))
    other = build(ScaleConfig, [Layer("test", {"workload": "imseg", "size": "100MB"})])
    with pytest.raises(InputError, match="not a store of imseg"):
        scale(other, stores / "dlrm.h5", Output(tmp_path / "out.h5"), World(None))
    config = build(ScaleConfig, [Layer("test", {"workload": "bert", "size": "8MB"})])
    with pytest.raises(InputError, match="not a store of bert"):
        scale(config, stores / "dlrm.h5", Output(tmp_path / "out.h5"), World(None))
    content = bytearray((stores / "bert.h5").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped.h5").write_bytes(content)
    with pytest.raises(InputError, match=r"the dataset has a defect: flipped\.h5: block \d+: its data do not match"):
        scale(config, tmp_path / "flipped.h5", Output(tmp_path / "out.h5"), World(None))
    (tmp_path / "text.h5").write_text("no store")
    with pytest.raises(InputError):
        scale(config, tmp_path / "text.h5", Output(tmp_path / "out.h5"), World(None))
    assert not (tmp_path / "out.h5").exists()
