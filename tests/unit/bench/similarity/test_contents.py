"""The similarity of datasets, and their pictures."""

import shutil

import numpy as np
import pytest
from PIL import Image

import bench_data as data
from scimill.bench.generate import generate
from scimill.bench.kernels.similarity import largest_difference
from scimill.bench.params import BenchGenerateConfig, ScaleConfig, SimilarityConfig
from scimill.bench.scale import scale
from scimill.bench.similarity.compare import describe_similarity
from scimill.bench.similarity.contents import texture
from scimill.bench.similarity.reference import plot
from scimill.bench.similarity.samples import list_files, take_sample
from scimill.bench.similarity.store_samples import on_disk, planned
from scimill.config import Layer, build
from scimill.errors import ConfigError, InputError
from scimill.parallel.world import Stop, World
from scimill.store.blocks import run_blocks
from scimill.store.layout import Field, Layout
from scimill.store.output import Output
from scimill.store.provenance import Provenance
from scimill.store.writer import BlockData, open_writer

FORMATS = {"bert": ("bert", "tfrecord", "12MB"), "text": ("dlrm", "text", "4MB"),
           "bin": ("dlrm", "bin", "6MB"), "npz": ("dlrm", "npz", "12MB"), "npy": ("dlrm", "npy", "6MB"),
           "parquet": ("dlrm", "parquet", "6MB"), "imseg": ("imseg", "npy", "60MB")}  # fmt: skip


def make(folder, kind, seed):
    workload, form, size = FORMATS[kind]
    values = {"workload": workload, "format": form, "size": size, "seed": seed, "rows_per_file": 10_000}
    values |= {"depth_range": "128:150", "width_range": "128:150"} if kind == "imseg" else {}
    values |= {"instances_range": "1000:1300"} if kind == "bert" else {}
    generate(build(BenchGenerateConfig, [Layer("test", values)]), Output(folder / f"{kind}-{seed}"), World(None))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Each format twice, from two seeds."""
    folder = tmp_path_factory.mktemp("sets")
    for kind in FORMATS:
        for seed in (1, 2):
            make(folder, kind, seed)
    return folder


def compared(a, b, picture=None) -> dict[str, float]:
    lines = describe_similarity(SimilarityConfig(), a, b, picture).splitlines()
    rows = [line.split() for line in lines if not line.startswith(("  A", "  B"))]
    return {row[0]: float(row[1]) if row[1][0].isdigit() else 1.0 for row in rows}


@pytest.mark.parametrize("kind", FORMATS)
def test_same_distribution_other_seed(sets, tmp_path, kind):
    picture_of = tmp_path / "both.png" if kind == "bin" else None
    parts = compared(sets / f"{kind}-1", sets / f"{kind}-2", picture_of)
    # Four cases show the distribution of their shapes only roughly.
    assert parts["similarity"] >= (0.9 if kind == "imseg" else 0.95), parts
    assert compared(sets / f"{kind}-1", sets / f"{kind}-1")["similarity"] == 1.0
    other = "bin-1" if kind != "bin" else "bert-1"
    assert compared(sets / f"{kind}-1", sets / other)["similarity"] <= 0.7
    if picture_of:
        with Image.open(picture_of) as picture:
            assert picture.size == (2400, 1350)


@pytest.mark.parametrize("kind", ["bert", "text", "bin"])
def test_a_scaled_set_is_like_its_input(sets, tmp_path, kind):
    values = {"workload": FORMATS[kind][0], "size": "20MB"}
    scale(build(ScaleConfig, [Layer("test", values)]), sets / f"{kind}-1", Output(tmp_path / "out"), World(None))
    parts = compared(sets / f"{kind}-1", tmp_path / "out")
    assert parts["similarity"] >= 0.95, parts
    assert parts["duplicates"] > 0.99


def test_a_picture_takes_the_place_of_nothing_else(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("0,1,READ\n")
    with pytest.raises(ConfigError, match=r"the picture's name must end in \.png"):
        compared(trace, trace, trace)
    assert trace.read_text() == "0,1,READ\n"


def test_stores_are_compared(sets, tmp_path):
    for seed, workload, name in ((1, "dlrm", "dlrm.h5"), (2, "dlrm", "again.store"), (1, "bert", "bert.h5")):
        values = {"workload": workload, "format": "hdf5", "size": "3MB", "seed": seed}
        generate(build(BenchGenerateConfig, [Layer("test", values)]), Output(tmp_path / name), World(None))
    one, same, other = (tmp_path / name for name in ("dlrm.h5", "again.store", "bert.h5"))
    assert compared(one, one)["similarity"] == 1.0
    assert compared(one, same)["similarity"] >= 0.95
    assert compared(one, other)["similarity"] <= 0.7


@pytest.mark.parametrize(("workload", "preset"), [("imseg", None), ("bert", "realistic"), ("dlrm", None)])
def test_pictures_of_stores(tmp_path, workload, preset):
    """Beside the distribution that the store was generated from, with values like its own, or beside another."""
    values = {"workload": workload, "format": "hdf5", "size": "40MB" if workload == "imseg" else "3MB"}
    values |= {"depth_range": "128:150", "width_range": "128:150", "ids": "skewed"}
    store = tmp_path / "a.store"
    generate(build(BenchGenerateConfig, [Layer("test", values)]), Output(store), World(None))
    pictures = plot(store, tmp_path / "pictures", preset)
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.size == (2400, 1350)
            assert len(picture.getcolors(1 << 22)) > 50
    config = build(BenchGenerateConfig, [Layer("test", values)])
    seen = on_disk(store, np.random.default_rng(1))
    distribution = planned(config, 10**9, np.random.default_rng(2))
    for name in distribution[1]:
        is_edge = name in ("depth", "width")  # of two cases
        assert largest_difference(seen[1][name], distribution[1][name]) < (1 if is_edge else 0.02), name


def test_a_store_of_no_workload_is_not_drawn(tmp_path):
    alone, layout = World(None), Layout(8, 4, (Field("radius", "float32", "m", "radius of a droplet"),))
    writer = open_writer(
        alone, Output(tmp_path / "a.h5"), layout, Provenance("test", 1, "{}", 1), lambda _: "", Stop(alone)
    )
    run_blocks(
        alone, writer, lambda _: BlockData({"radius": np.ones(4, np.float32)}), Stop(alone), what="make", unit="rows"
    )
    with pytest.raises(InputError, match="not a store of a workload"):
        plot(tmp_path / "a.h5", tmp_path / "pictures", None)
    assert not (tmp_path / "pictures").exists()


def test_another_distribution_shows_in_the_values(sets, tmp_path):
    values = {"workload": "dlrm", "format": "bin", "size": "6MB", "ids": "skewed"}
    generate(build(BenchGenerateConfig, [Layer("test", values)]), Output(tmp_path / "skewed"), World(None))
    parts = compared(sets / "bin-1", tmp_path / "skewed")
    assert parts["values"] < 0.7
    assert parts["records"] == parts["names"] == 1


def test_copies_are_found_by_their_blocks(sets, tmp_path):
    folder = tmp_path / "copies"
    shutil.copytree(sets / "npy-1", folder)
    for path in list(folder.glob("day_0_*")):
        shutil.copy(path, folder / path.name.replace("day_0", "day_9"))
    random = np.random.default_rng(1)
    before, after = (texture(list_files(place), random).duplicates for place in (sets / "npy-1", folder))
    assert before < 0.05
    assert 0.15 < after < 0.3


def test_largest_difference_agrees_with_scipy():
    from scipy.stats import ks_2samp

    random = np.random.default_rng(1)
    a, b = random.integers(0, 9, 500), random.integers(2, 14, 700)
    assert largest_difference(a, b) == pytest.approx(ks_2samp(a, b).statistic, abs=1e-12)
    assert largest_difference(np.array([np.nan, 1.0]), np.array([1.0, 1.0])) == 0.5


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_seen_of_a_planned_set_is_what_is_written(sets, kind):
    """A picture's reference values come from plans, never written; here the same set is read from disk."""
    from scimill.bench.dataset.ledger import DatasetManifest
    from scimill.bench.formats import catalogue
    from scimill.bench.similarity.samples import PlannedFile
    from scimill.config import parse_yaml

    folder = sets / f"{kind}-1"
    config = build(BenchGenerateConfig, [parse_yaml(DatasetManifest.read(folder).config, "manifest")])
    planned = sorted(
        (PlannedFile(f) for f in catalogue.make_plan(config, config.size, World(None)).files), key=lambda f: f.name
    )
    a, b = (take_sample(files, np.random.default_rng(3), "here") for files in (list_files(folder), planned))
    assert a.fields.keys() == b.fields.keys()
    assert all(np.array_equal(a.fields[name], b.fields[name], equal_nan=True) for name in a.fields)


@pytest.mark.parametrize("kind", ["imseg", "bert", "text"])
def test_pictures(sets, tmp_path, kind):
    preset = "original" if kind == "text" else None
    for path in plot(sets / f"{kind}-1", tmp_path / "pictures", preset):
        with Image.open(path) as picture:
            assert picture.size == (2400, 1350)
            assert len(picture.getcolors(1 << 22)) > 50


def test_what_is_no_data_set_is_told(sets, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("hello")
    data.make_text(tmp_path / "text", 2000)
    text = (tmp_path / "text" / "train.txt").read_text()
    (tmp_path / "text" / "train.txt").write_text(text.replace("\t", " "))
    trace = tmp_path / "trace.csv"
    trace.write_text("start,end,type\n1,2,READ\n")
    for path, message in (
        (tmp_path / "none", "no such dataset"), (tmp_path / "empty", "the dataset is empty"),
        (tmp_path / "other", "no files of a known format"), (tmp_path / "text", "damaged dlrm text data"),
        (trace, "a trace and a dataset cannot be compared"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            describe_similarity(SimilarityConfig(), path, sets / "bin-1", None)
    with pytest.raises(InputError, match="no files of a known format"):
        plot(tmp_path / "other", tmp_path / "pictures", None)
    assert not (tmp_path / "pictures").exists()
