"""Datasets of imseg: readable by numpy, of exact size, and equal to an independent SplitMix64."""

import json
from pathlib import Path

import numpy as np
import pytest

from scimill.bench import CAMPAIGN, generate
from scimill.bench.dataset.plan import MARGIN
from scimill.bench.formats import catalogue
from scimill.bench.formats.imseg_npy.cases import IMAGES, case_shape
from scimill.bench.kernels import counter, volumes
from scimill.bench.params import BenchGenerateConfig
from scimill.config import Layer, build
from scimill.errors import ConfigError
from scimill.parallel.world import World
from scimill.store.output import Output
from splitmix import halves, splitmix64

SMALL = {"workload": "imseg", "depth_range": "128:130", "width_range": "128:132"}


def configure(**values: object) -> BenchGenerateConfig:
    return build(BenchGenerateConfig, [Layer("test", {**SMALL, **values})])


def test_voxels_are_the_words_of_splitmix64() -> None:
    key = counter.stream_key(3, CAMPAIGN.number, IMAGES)
    voxels = np.empty(64, dtype=np.float32)
    volumes.intensities(voxels, key, np.uint64(0))
    low, step = np.float32(-2.340702), np.float32(4.980494 / 2**24)
    np.testing.assert_array_equal(
        voxels, low + np.array([half >> 8 for half in halves(int(key), 0, 32)], dtype=np.float32) * step
    )


def test_splitmix64_gives_the_published_words() -> None:
    # From the reference implementation (Vigna, prng.di.unimi.it/splitmix64.c) for the seed 1234567.
    assert splitmix64(1234567, 0, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("labels", ["random", "blobs"])
def test_numpy_reads_what_is_generated(tmp_path: Path, labels: str) -> None:
    config = configure(size="35MB", labels=labels)
    assert generate.generate(config, Output(tmp_path / "set"), World(None))
    images = sorted((tmp_path / "set").glob("*_x.npy"))
    assert [path.name for path in images] == ["case_00000_x.npy", "case_00001_x.npy"]
    for path in images:
        image, label = np.load(path), np.load(path.with_name(path.name.replace("_x", "_y")))
        assert (image.dtype, label.dtype, image.shape) == (np.float32, np.uint8, label.shape)
        assert image.ndim == 4 and image.shape[0] == 1 and min(image.shape[1:]) >= 128
        assert -2.340702 <= image.min() < -2.34 and 2.6397 < image.max() < 2.639793
        assert abs(image.mean() - 0.149545) < 0.01
        assert set(np.unique(label)) == ({0, 1, 2} if labels == "blobs" else {0, 1})


@pytest.mark.parametrize("fit", ["at-least", "at-most", "nearest"])
@pytest.mark.parametrize("size", [10_486_016, 33_333_333, 1_234_567_891])
def test_the_size_is_that_of_the_request(fit: str, size: int) -> None:
    total = catalogue.make_plan(configure(size=size, fit=fit), size, World(None)).size
    assert abs(total - size) < 5000
    assert {"at-least": total >= size, "at-most": total <= size, "nearest": True}[fit]


def test_the_original_sizes_are_drawn_from_its_ranges() -> None:
    config = build(BenchGenerateConfig, [Layer("test", {"workload": "imseg", "size": "60GB"})])
    shapes = np.array([case_shape(config, number) for number in range(400)])
    assert (shapes.min(axis=0) >= [128, 186, 186]).all() and (shapes.max(axis=0) <= [471, 444, 444]).all()
    assert (shapes[:, 1] == shapes[:, 2]).all()
    # mean 156,960,462 bytes and deviation 91 MB of the original's distribution, over 400 cases
    assert abs((5 * shapes.prod(axis=1)).mean() - 156_960_206) < 4 * 91.07e6 / 20


def test_the_normal_sizes_have_the_moments_of_kits19() -> None:
    config = build(BenchGenerateConfig, [Layer("test", {"workload": "imseg", "size": "1GB", "case_sizes": "normal"})])
    sizes = [5 * int(np.prod(case_shape(config, number))) for number in range(2000)]
    assert abs(np.mean(sizes) - 146.6e6) < 6e6
    assert abs(np.std(sizes) - 68.3e6) < 8e6


def test_a_request_below_a_case_is_refused() -> None:
    with pytest.raises(ConfigError, match="less than the smallest dataset"):
        catalogue.make_plan(configure(size="10MB"), 10**7, World(None))


def test_any_range_of_a_file_is_made_by_itself() -> None:
    file = catalogue.make_plan(configure(size="11MB", labels="blobs"), 11 * 10**6, World(None)).files[1]
    whole = np.zeros(file.size + 2 * MARGIN, dtype=np.uint8)
    file.fill(0, file.size, whole, MARGIN)
    random = np.random.default_rng(1)
    for start in [0, 100, 128, *random.integers(0, file.size, 20).tolist()]:
        stop = min(file.size, start + 50_000)
        work = np.full(50_000 + 2 * MARGIN, 255, dtype=np.uint8)
        file.fill(start, stop, work, MARGIN)
        np.testing.assert_array_equal(
            work[MARGIN : MARGIN + stop - start], whole[MARGIN + start : MARGIN + stop], str(start)
        )


def test_the_manifest_says_what_was_made(tmp_path: Path) -> None:
    config = configure(size="11MB", seed=5)
    generate.generate(config, Output(tmp_path / "set"), World(None))
    manifest = json.loads((tmp_path / "set/manifest.json").read_text())
    assert (manifest["workload"], manifest["format"], manifest["seed"]) == ("imseg", "npy", 5)
    assert manifest["size"] == sum((tmp_path / "set" / file["name"]).stat().st_size for file in manifest["files"])
    assert not (tmp_path / "set.part").exists()
