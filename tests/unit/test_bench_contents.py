"""The similarity of data sets, and their pictures."""

import shutil

import numpy as np
import pytest
from PIL import Image

import bench_data as data
from scimill.bench.compare import similarity
from scimill.bench.contents import texture
from scimill.bench.generate import generate
from scimill.bench.params import GenerateConfig, ScaleConfig, SimilarityConfig
from scimill.bench.reference import plot
from scimill.bench.samples import readables, take
from scimill.bench.scale import scale
from scimill.bench.similarity import largest_difference
from scimill.config import Layer, build
from scimill.errors import InputError
from scimill.parallel.world import World
from scimill.store.output import Output

FORMATS = {"bert": ("bert", "tfrecord", "12MB"), "text": ("dlrm", "text", "4MB"),
           "bin": ("dlrm", "bin", "6MB"), "npz": ("dlrm", "npz", "12MB"), "npy": ("dlrm", "npy", "6MB"),
           "parquet": ("dlrm", "parquet", "6MB"), "imseg": ("imseg", "npy", "60MB")}  # fmt: skip


def make(folder, kind, seed):
    workload, form, size = FORMATS[kind]
    values = {"workload": workload, "format": form, "size": size, "seed": seed, "rows_per_file": 10_000}
    values |= {"depth_range": "128:150", "width_range": "128:150"} if kind == "imseg" else {}
    values |= {"instances_range": "1000:1300"} if kind == "bert" else {}
    generate(build(GenerateConfig, [Layer("test", values)]), Output(folder / f"{kind}-{seed}"), World(None))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Each format twice, from two seeds."""
    folder = tmp_path_factory.mktemp("sets")
    for kind in FORMATS:
        for seed in (1, 2):
            make(folder, kind, seed)
    return folder


def compared(a, b, picture=None) -> dict[str, float]:
    lines = similarity(SimilarityConfig(), a, b, picture).splitlines()
    rows = [line.split() for line in lines if not line.startswith(("  A", "  B"))]
    return {row[0]: float(row[1]) if row[1][0].isdigit() else 1.0 for row in rows}


@pytest.mark.parametrize("kind", FORMATS)
def test_same_law_other_seed(sets, tmp_path, kind):
    picture_of = tmp_path / "both.png" if kind == "bin" else None
    parts = compared(sets / f"{kind}-1", sets / f"{kind}-2", picture_of)
    # Four cases tell their law of shapes only roughly.
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


def test_stores_are_compared(sets, tmp_path):
    for seed, workload in ((1, "dlrm"), (2, "dlrm"), (1, "bert")):
        values = {"workload": workload, "format": "hdf5", "size": "3MB", "seed": seed}
        generate(
            build(GenerateConfig, [Layer("test", values)]), Output(tmp_path / f"{workload}-{seed}.h5"), World(None)
        )
    one, same, other = (tmp_path / name for name in ("dlrm-1.h5", "dlrm-2.h5", "bert-1.h5"))
    assert compared(one, one)["similarity"] == 1.0
    assert compared(one, same)["similarity"] >= 0.95
    assert compared(one, other)["similarity"] <= 0.7
    with pytest.raises(InputError, match="a store is not drawn"):
        plot(one, tmp_path / "pictures", None)


def test_another_law_shows_in_the_values(sets, tmp_path):
    values = {"workload": "dlrm", "format": "bin", "size": "6MB", "ids": "skewed"}
    generate(build(GenerateConfig, [Layer("test", values)]), Output(tmp_path / "skewed"), World(None))
    parts = compared(sets / "bin-1", tmp_path / "skewed")
    assert parts["values"] < 0.7
    assert parts["records"] == parts["names"] == 1


def test_copies_are_found_by_their_blocks(sets, tmp_path):
    folder = tmp_path / "copies"
    shutil.copytree(sets / "npy-1", folder)
    for path in list(folder.glob("day_0_*")):
        shutil.copy(path, folder / path.name.replace("day_0", "day_9"))
    random = np.random.default_rng(1)
    before, after = (texture(readables(place), random).duplicates for place in (sets / "npy-1", folder))
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
    """Values of the law that a picture shows come from plans, never written; here the same set is read from disk."""
    from scimill.bench import datasets
    from scimill.bench.ledger import Manifest
    from scimill.bench.samples import Planned
    from scimill.config import parse_yaml

    folder = sets / f"{kind}-1"
    config = build(GenerateConfig, [parse_yaml(Manifest.read(folder).config, "manifest")])
    planned = sorted((Planned(f) for f in datasets.plan(config, config.size, World(None)).files), key=lambda f: f.name)
    a, b = (take(files, np.random.default_rng(3), "here") for files in (readables(folder), planned))
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
        (tmp_path / "none", "no such data set"), (tmp_path / "empty", "the data set is empty"),
        (tmp_path / "other", "no files of a known format"), (tmp_path / "text", "damaged dlrm text data"),
        (trace, "a trace and a data set cannot be compared"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            similarity(SimilarityConfig(), path, sets / "bin-1", None)
    with pytest.raises(InputError, match="no files of a known format"):
        plot(tmp_path / "other", tmp_path / "pictures", None)
    assert not (tmp_path / "pictures").exists()
