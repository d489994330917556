"""The similarity of datasets, and their pictures."""

import shutil

import numpy as np
import pytest
from PIL import Image

import bench_data as data
from bench_sets import FORMATS, compared, make, make_all
from scimill.bench.generate import generate
from scimill.bench.kernels.similarity import largest_difference
from scimill.bench.params import BenchGenerateConfig, SimilarityConfig
from scimill.bench.similarity import reference
from scimill.bench.similarity.compare import describe_similarity
from scimill.bench.similarity.contents import measure_redundancy
from scimill.bench.similarity.reference import plot
from scimill.bench.similarity.samples import list_files, take_sample
from scimill.bench.similarity.store_samples import sample_plan, sample_store
from scimill.config import Layer, build
from scimill.errors import ConfigError, InputError
from scimill.parallel.world import Stop, World
from scimill.store.blocks import run_blocks
from scimill.store.layout import Field, Layout
from scimill.store.output import Output
from scimill.store.provenance import Provenance
from scimill.store.writer import BlockData, open_writer

SMALL_DPI, SMALL_PICTURE = 30, (400, 225)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Each format once; npy twice, from two seeds."""
    folder = make_all(tmp_path_factory.mktemp("sets"), (1,))
    make(folder / "npy-2", "npy", 2)
    return folder


@pytest.fixture
def small_pictures(monkeypatch):
    """Draw fewer pixels, and plan less data for the reference."""
    monkeypatch.setattr("scimill.pictures.DPI", SMALL_DPI)
    monkeypatch.setattr(reference, "SIZES", {"imseg hdf5": 5 * 10**9})
    monkeypatch.setattr(reference, "USUAL_SIZE", 10**8)


def assert_drawn(pictures):
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.size == SMALL_PICTURE
            assert len(picture.getcolors(1 << 22)) > 50


def test_same_distribution_other_seed(sets):
    """Of one format; tests/validation/bench/test_likeness.py has them all."""
    parts = compared(sets / "npy-1", sets / "npy-2")
    assert parts["similarity"] >= 0.95, parts
    assert compared(sets / "npy-1", sets / "npy-1")["similarity"] == 1.0
    assert compared(sets / "npy-1", sets / "bin-1")["similarity"] <= 0.7


def test_a_picture_never_overwrites_another_file(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("0,1,READ\n")
    with pytest.raises(ConfigError, match=r"the picture's name must end in \.png"):
        compared(trace, trace, trace)
    assert trace.read_text() == "0,1,READ\n"


def make_store(path, workload):
    values = {"workload": workload, "format": "hdf5", "size": "40MB" if workload == "imseg" else "3MB"}
    values |= {"depth_range": "128:150", "width_range": "128:150", "ids": "skewed"}
    config = build(BenchGenerateConfig, [Layer("test", values)])
    generate(config, Output(path), World(None))
    return config


@pytest.mark.parametrize("workload", ["imseg", "bert", "dlrm"])
def test_a_planned_store_is_sampled_as_the_written_one(tmp_path, workload):
    """A picture's reference values come from plans that are not written."""
    config = make_store(tmp_path / "a.store", workload)
    seen = sample_store(tmp_path / "a.store", np.random.default_rng(1))
    distribution = sample_plan(config, 10**9, np.random.default_rng(2))
    for name in distribution[1]:
        is_edge = name in ("depth", "width")  # of two cases
        assert largest_difference(seen[1][name], distribution[1][name]) < (1 if is_edge else 0.02), name


@pytest.mark.parametrize(("workload", "preset"), [("imseg", None), ("bert", "realistic")])
def test_pictures_of_stores(tmp_path, small_pictures, workload, preset):
    """Beside the distribution that the store was generated from, or beside another."""
    make_store(tmp_path / "a.store", workload)
    assert_drawn(plot(tmp_path / "a.store", tmp_path / "pictures", preset))


def test_a_store_of_no_workload_is_not_drawn(tmp_path):
    alone, layout = World(None), Layout(8, 4, (Field("radius", "float32", "m", "radius of a droplet"),))
    writer = open_writer(
        alone, Output(tmp_path / "a.h5"), layout, Provenance("test", 1, "{}", 1), lambda _: "", Stop(alone)
    )
    run_blocks(
        alone, writer, lambda _: BlockData({"radius": np.ones(4, np.float32)}), Stop(alone), what="make", unit="rows"
    )
    with pytest.raises(InputError, match="the store does not hold the data of a workload"):
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
    before, after = (measure_redundancy(list_files(place), random).duplicates for place in (sets / "npy-1", folder))
    assert before < 0.05
    assert 0.15 < after < 0.3


def test_largest_difference_agrees_with_scipy():
    from scipy.stats import ks_2samp

    random = np.random.default_rng(1)
    a, b = random.integers(0, 9, 500), random.integers(2, 14, 700)
    assert largest_difference(a, b) == pytest.approx(ks_2samp(a, b).statistic, abs=1e-12)
    assert largest_difference(np.array([np.nan, 1.0]), np.array([1.0, 1.0])) == 0.5


@pytest.mark.parametrize("kind", FORMATS)
def test_a_planned_dataset_is_sampled_as_the_written_one(sets, kind):
    """A picture's reference values come from plans that are not written; here the same set is read from disk."""
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


def test_pictures(sets, tmp_path, small_pictures):
    """Of text, which has the most fields, in tests/validation/bench/test_likeness.py."""
    assert_drawn(plot(sets / "bert-1", tmp_path / "pictures", None))


def test_a_path_that_is_not_a_dataset_is_refused(sets, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("hello")
    data.make_text(tmp_path / "text", 2000)
    text = (tmp_path / "text" / "train.txt").read_text()
    (tmp_path / "text" / "train.txt").write_text(text.replace("\t", " "))
    trace = tmp_path / "trace.csv"
    trace.write_text("start,end,type\n1,2,READ\n")
    for path, message in (
        (tmp_path / "none", "no such file"), (tmp_path / "empty", "the dataset is empty"),
        (tmp_path / "other", "no files of a known format"), (tmp_path / "text", "damaged dlrm text data"),
        (trace, "a trace and a dataset cannot be compared"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            describe_similarity(SimilarityConfig(), path, sets / "bin-1", None)
    with pytest.raises(InputError, match="no such file") as missing:
        describe_similarity(SimilarityConfig(), trace, tmp_path / "none", None)
    assert missing.value.where == str(tmp_path / "none")
    with pytest.raises(InputError, match="no files of a known format"):
        plot(tmp_path / "other", tmp_path / "pictures", None)
    assert not (tmp_path / "pictures").exists()
