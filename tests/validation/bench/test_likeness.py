"""The similarity of datasets of every format: high for equal distributions, low for different ones."""

import functools
from pathlib import Path

import pytest
from PIL import Image

from bench_sets import FORMATS, compared, make_all
from scimill.bench.generate import generate
from scimill.bench.kernels.similarity import SimilarityPart, overall_similarity
from scimill.bench.params import BenchGenerateConfig, ScaleConfig, SimilarityConfig
from scimill.bench.scale import scale
from scimill.bench.similarity import compare
from scimill.bench.similarity.contents import compare_data
from scimill.bench.similarity.reference import plot
from scimill.config import Layer, build
from scimill.parallel.world import World
from scimill.store.output import Output


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each format twice, from two seeds."""
    return make_all(tmp_path_factory.mktemp("sets"), (1, 2))


sample = functools.cache(lambda path: compare.sample_dataset(SimilarityConfig(), path))


def parts_of(a: Path, b: Path) -> dict[str, SimilarityPart]:
    return compare_data(sample(a), sample(b))


def similarity(a: Path, b: Path) -> float:
    return overall_similarity(list(parts_of(a, b).values()))


@pytest.mark.parametrize("kind", FORMATS)
def test_same_distribution_other_seed(sets: Path, kind: str) -> None:
    one, same = sets / f"{kind}-1", sets / f"{kind}-2"
    # Four cases show the distribution of their shapes only roughly.
    assert similarity(one, same) >= (0.9 if kind == "imseg" else 0.95), parts_of(one, same)
    assert similarity(one, one) == 1.0
    assert similarity(one, sets / ("bin-1" if kind != "bin" else "bert-1")) <= 0.7


@pytest.mark.parametrize("kind", ["bert", "text", "bin"])
def test_a_scaled_set_is_like_its_input(sets: Path, tmp_path: Path, kind: str) -> None:
    values = {"workload": FORMATS[kind][0], "size": "20MB"}
    scale(build(ScaleConfig, [Layer("test", values)]), sets / f"{kind}-1", Output(tmp_path / "out"), World(None))
    parts = parts_of(sets / f"{kind}-1", tmp_path / "out")
    assert overall_similarity(list(parts.values())) >= 0.95, parts
    assert parts["duplicates"].value > 0.99


def test_stores_are_compared(tmp_path: Path) -> None:
    for seed, workload, name in ((1, "dlrm", "dlrm.h5"), (2, "dlrm", "again.store"), (1, "bert", "bert.h5")):
        values = {"workload": workload, "format": "hdf5", "size": "3MB", "seed": seed}
        generate(build(BenchGenerateConfig, [Layer("test", values)]), Output(tmp_path / name), World(None))
    one, same, other = (tmp_path / name for name in ("dlrm.h5", "again.store", "bert.h5"))
    assert compared(one, one)["similarity"] == 1.0
    assert compared(one, same)["similarity"] >= 0.95
    assert compared(one, other)["similarity"] <= 0.7


def test_pictures(sets: Path, tmp_path: Path) -> None:
    """Pictures of two datasets, and of text, which has the most fields."""
    compared(sets / "bin-1", sets / "bin-2", tmp_path / "both.png")
    for path in (tmp_path / "both.png", *plot(sets / "text-1", tmp_path / "pictures", "original")):
        with Image.open(path) as picture:
            assert picture.size == (2400, 1350)
            assert len(picture.getcolors(1 << 22)) > 50
