"""Tests of alignment: mutual information agrees with its definition, and a known box is found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scimill.config import Layer, build
from scimill.errors import InputError
from scimill.parallel.world import world
from scimill.sky import align
from scimill.sky.exchange.index import write_index
from scimill.sky.exchange.nodes import read_nodes
from scimill.sky.kernels.information import BINS, find_box, information, mean_information, rank_values
from scimill.sky.pair import pair
from scimill.sky.params import AlignConfig, PairConfig, SceneConfig
from scimill.sky.scene import make_scene
from scimill.store.output import Output


def deployment(folder: Path, **values: Any) -> Path:
    small = {
        "frames": 8, "nodes": 1, "rgb_height": 64, "thermal_height": 63, "field_size": 512, "interval": 3000.0,
        "start": "2023-05-10T14:00:00Z",
    }  # fmt: skip
    make_scene(build(SceneConfig, [Layer("test", {**small, **values})]), Output(folder), world())
    pairs = pair(build(PairConfig, []), folder, folder / "nodes.csv", None, world()).pairs
    write_index(pairs, folder / "index.csv")
    return folder


def test_ranks_do_not_depend_on_the_scale():
    values = np.random.default_rng(1).normal(size=(20, 30))
    assert np.array_equal(rank_values(values), rank_values(np.exp(values)))
    assert 0 <= rank_values(values).min() < rank_values(values).max() < BINS
    assert np.ptp(rank_values(np.ones((4, 4)))) == 0


def test_an_image_tells_of_itself_all_that_it_holds():
    image = rank_values(np.arange(64.0 * 64).reshape(64, 64))
    assert information(image, image, 0.0, 0.0, 1.0, 1.0) == pytest.approx(np.log(BINS), rel=0.01)
    assert information(image, rank_values(-np.asarray(image)), 0.0, 0.0, 1.0, 1.0) == pytest.approx(
        np.log(BINS), rel=0.01
    )


def test_independent_images_tell_nothing_of_each_other():
    one, other = (rank_values(np.random.default_rng(seed).normal(size=(200, 200))) for seed in (1, 2))
    chance = (BINS - 1) ** 2 / (2 * one.size)  # bias of the estimate, Miller 1955
    assert information(one, other, 0.0, 0.0, 1.0, 1.0) == pytest.approx(chance, rel=0.3)


def test_a_box_that_is_not_inside_tells_nothing():
    image = rank_values(np.random.default_rng(1).normal(size=(20, 30)))
    for edges in ((-0.1, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.1), (0.5, 0.0, 0.4, 1.0)):
        assert mean_information([(image, image)], edges) == 0.0


def test_a_known_box_is_found_among_images_that_look_unlike():
    smooth = np.cumsum(np.cumsum(np.random.default_rng(3).normal(size=(3, 120, 160)), axis=1), axis=2)
    pairs = [(rank_values(image), rank_values(-(image[24:102:2, 40:136:2] ** 3))) for image in smooth]
    edges, best = find_box(pairs)
    assert edges == pytest.approx((40 / 160, 24 / 120, 136 / 160, 102 / 120), abs=0.01)
    assert best > 1.0


def test_a_night_has_no_box(tmp_path):
    folder = deployment(tmp_path, start="2023-05-10T06:00:00Z", interval=300.0)
    config = build(AlignConfig, [])
    with pytest.raises(InputError, match="no node has 4 daytime pairs"):
        align.align(config, folder / "index.csv", folder / "nodes.csv", world())


def test_what_was_not_found_stays_as_it_was(tmp_path):
    folder = deployment(tmp_path, positions=1)
    config = build(AlignConfig, [Layer("test", {"least_pairs": 1, "pairs": 1, "least_contrast": 0.0})])
    found = align.align(config, folder / "index.csv", folder / "nodes-aligned.csv", world())
    assert [aligned.information > 0 for aligned in found] == [True, True]
    none = [
        aligned._replace(information=0.0, node=row)
        for aligned, row in zip(found, read_nodes(folder / "nodes.csv").rows, strict=True)
    ]
    align.write_boxes(none, tmp_path / "out.csv")
    assert [row.box for row in read_nodes(tmp_path / "out.csv").rows] == [None, None]
    assert "too few pairs" in align.describe_boxes(none)
