"""Tests of the two branches: shared fields of view, independent variations, held-out nodes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from scimill.config import Layer, build, read_preset
from scimill.errors import ConfigError
from scimill.sky.learning import network, train
from scimill.sky.learning.network import Augmentation, BranchesSpec, SkyTask
from scimill.sky.learning.vicreg import Weights
from scimill.sky.params import SkyTrainConfig
from scimill.training.engine import CollectiveTask, SequenceTask

SPEC = BranchesSpec("resnet10", "vit-micro", 4, 4, 8, 8, (16, 8), (24, 32), (16, 24), -10.0, 20.0)
NOTHING = Augmentation((1.0, 1.0), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
GEOMETRY = dataclasses.replace(NOTHING, crop=(0.3, 0.9), rotation=15.0, flip=0.5, vertical_flip=0.5)


def stream(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def make_task(augmentation: Augmentation = NOTHING, held_out: tuple[str, ...] = ()) -> SkyTask:
    return SkyTask(SPEC, 1, Weights(), augmentation, [4], [0], held_out)


def scene(n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth scene as grey colours of (96, 128), and as temperatures of (63, 84)."""
    smooth = functional.interpolate(torch.from_numpy(stream().random((n, 1, 6, 8))).float(), (480, 640), mode="bicubic")
    grey, thermal = (
        functional.interpolate(smooth, shape, mode="bilinear", antialias=True) for shape in ((96, 128), (63, 84))
    )
    return grey.clamp(0, 1).expand(-1, 3, -1, -1), thermal.clamp(0, 1)


def test_both_images_keep_one_field_of_view():
    rgb, thermal = scene()
    views = network.joint_views(rgb, thermal, ((60, 80), (60, 80)), GEOMETRY, stream())
    assert (views[0][:, :1] - views[1]).abs().mean() < 0.01
    whole = functional.interpolate(thermal, (60, 80), mode="bilinear", antialias=True)
    assert (views[1] - whole).abs().mean() > 0.1  # the views differ from the whole image


def test_without_variations_a_view_is_the_whole_image():
    rgb, thermal = scene()
    views = network.joint_views(rgb, thermal, ((96, 128), (63, 84)), NOTHING, stream())
    assert (views[0] - rgb).abs().max() < 1e-5
    assert (views[1] - thermal).abs().max() < 1e-5


def test_mirror_images_and_images_upside_down():
    rgb, thermal = scene()
    for name, axis in (("flip", 3), ("vertical_flip", 2)):
        how = dataclasses.replace(NOTHING, **{name: 1.0})
        views = network.joint_views(rgb, thermal, ((96, 128), (63, 84)), how, stream())
        assert (views[0] - rgb.flip(axis)).abs().max() < 1e-5
        assert (views[1] - thermal.flip(axis)).abs().max() < 1e-5


def test_views_stay_inside_and_keep_their_share_of_the_area():
    how = dataclasses.replace(NOTHING, crop=(0.2, 0.5), rotation=5.0)
    theta = network.random_views(500, 4 / 3, how, stream()).numpy()
    reach = np.abs(theta[:, :, :2]).sum(2) + np.abs(theta[:, :, 2])
    assert reach.max() <= 1 + 1e-12
    shares = np.abs(np.linalg.det(theta[:, :, :2]))
    assert shares.min() == pytest.approx(0.2, abs=0.01)
    assert shares.max() == pytest.approx(0.5, abs=0.01)
    # rotations act on the scene, not on the coordinates, which are scaled by the aspect ratio
    scaled = theta[:, :, :2] * np.array([[1, 4 / 3], [3 / 4, 1]])
    products = np.einsum("nij,nik->njk", scaled, scaled) / shares[:, None, None]
    assert products == pytest.approx(np.broadcast_to(np.eye(2), products.shape), abs=1e-9)


def test_colours_and_temperatures_are_varied_each_by_itself():
    rgb, thermal = scene()
    how = dataclasses.replace(NOTHING, brightness=0.3, contrast=0.3, saturation=0.3, noise=0.02)
    varied = network.vary_colours(rgb, how, stream())
    assert 0 <= varied.min() < varied.max() <= 1
    assert (varied - rgb).abs().mean() > 0.02
    how = dataclasses.replace(NOTHING, thermal_offset=2.0)
    shift = network.vary_temperatures(thermal, how, stream()) - thermal
    assert shift.std((1, 2, 3)).max() < 1e-5
    assert shift.abs().max() <= 2
    assert len(torch.unique(shift.mean((1, 2, 3)))) == 6
    assert torch.equal(network.vary_colours(rgb, NOTHING, stream()).contiguous(), rgb.contiguous()) or (
        (network.vary_colours(rgb, NOTHING, stream()) - rgb).abs().max() < 1e-5
    )


def rows(n: int = 4) -> Mapping[str, Any]:
    return {
        "rgb": stream().integers(0, 256, (n, 48, 64, 3), dtype=np.uint8),
        "thermal": stream().integers(5700, 7100, (n, 32, 48), dtype=np.uint16),
        "status": np.array([0, 1, 0, 2], dtype=np.uint8)[:n],
        "node": np.array([b"W056", b"W056", b"W02D", b"W02D"])[:n],
    }


def test_damaged_pairs_and_nodes_held_out_are_no_samples():
    everything = rows()
    rgb, thermal = make_task().prepare(everything)
    assert (rgb.shape, rgb.dtype, thermal.shape) == ((2, 3, 48, 64), torch.uint8, (2, 1, 32, 48))
    assert torch.equal(rgb[1].permute(1, 2, 0), torch.from_numpy(everything["rgb"][2]))
    assert thermal[1, 0].numpy() == pytest.approx(everything["thermal"][2] / 25 - 273.15, abs=1e-3)
    held_out = make_task(held_out=("W02D",))
    assert held_out.fields == ("rgb", "thermal", "status", "node")
    assert len(held_out.prepare(everything)[0]) == 1


def test_a_task_is_what_the_engine_takes_it_for():
    made = make_task(GEOMETRY)
    assert isinstance(made, CollectiveTask)
    assert isinstance(made, SequenceTask)
    tensors = made.prepare(rows())
    one, again, other = (made.augment(tensors, stream(seed)) for seed in (1, 1, 2))
    assert [part.shape for part in one] == [(2, 3, 24, 32), (2, 1, 16, 24)]
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])
    none = made.prepare({name: values[:0] for name, values in rows().items()})
    assert made.losses(made.augment(none, stream())).tolist() == [0, 0, 0]


def test_the_loss_of_a_validation_is_that_of_the_part_alone():
    made = make_task()
    made.model.eval()
    with torch.no_grad():
        terms = made.losses(made.prepare({**rows(), "status": np.zeros(4, np.uint8)}))
    assert terms.shape == (3,)
    assert terms.isfinite().all()
    # the same seed gives the same weights
    assert all(torch.equal(a, b) for a, b in zip(made.model.parameters(), make_task().model.parameters(), strict=True))


def test_networks_are_made_again_from_a_models_file():
    made = make_task()
    again = network.load_network(made.network, made.model.state_dict())
    assert again.spec == SPEC
    everything = rows()
    found = network.embed(again, everything["rgb"], everything["thermal"])
    assert {name: values.shape for name, values in found.items()} == {
        "rgb_features": (4, 32), "rgb_embedding": (4, 8), "thermal_features": (4, 96), "thermal_embedding": (4, 8),
    }  # fmt: skip
    one = network.embed(again, everything["rgb"][:1], everything["thermal"][:1])
    assert one["rgb_embedding"] == pytest.approx(found["rgb_embedding"][:1], abs=1e-4)


@pytest.mark.parametrize("preset", ["small", "published"])
def test_presets_are_configurations(preset):
    config = build(SkyTrainConfig, [read_preset("scimill.sky/presets/train", preset)])
    assert config.projector[0] in (256, 8192)


def test_images_that_are_no_whole_patches_are_refused():
    assert train._shape(None, (48, 64, 3), "vit-tiny", 16) == (48, 64)
    assert train._shape((32, 32), (50, 64, 3), "vit-tiny", 16) == (32, 32)
    assert train._shape(None, (50, 64, 3), "resnet18", 16) == (50, 64)
    with pytest.raises(ConfigError, match="do not divide into patches"):
        train._shape(None, (50, 64, 3), "vit-tiny", 16)
    assert train.split_names(" w056, V017 ,") == ["W056", "V017"]


@pytest.mark.parametrize("values", [{"crop": (0.5, 1.5)}, {"time_block": "0s"}, {"rgb_shape": (32,)}])
def test_wrong_parameters_are_refused(values):
    with pytest.raises(ConfigError):
        build(SkyTrainConfig, [Layer("test", values)])
