"""Training of two branches, and their embeddings, do not depend on the number of ranks."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mpi import dataset_hashes, scimill, succeed
from parallel.sky import sky_gradients
from parallel.sky.sky_gradients import CASES, images, task
from scimill.cli import check
from scimill.config import Layer, build
from scimill.parallel.world import World
from scimill.sky.exchange.index import write_index
from scimill.sky.learning.embed import embed_store
from scimill.sky.learning.train import train_network
from scimill.sky.learning.vicreg import TERMS
from scimill.sky.pair import pair
from scimill.sky.params import EmbedConfig, PairConfig, PrepareConfig, SceneConfig
from scimill.sky.prepare import prepare
from scimill.sky.scene import make_scene
from scimill.store.output import Output
from scimill.training.directory import RunDirectory
from scimill.training.ranks import Ranks

DRIVER = (sys.executable, str(Path(__file__).with_name("sky_gradients.py")))
SAME = 1e-10
ENV = {"OMP_NUM_THREADS": "1"}
ALONE = World(None)


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("gradients")

    @functools.cache
    def of(ranks: int) -> dict[str, torch.Tensor]:
        if ranks == 1:
            with Ranks(ALONE) as alone:
                return sky_gradients.gradients(alone)
        result = scimill(folder / f"{ranks}.pt", ranks=ranks, program=DRIVER, env=ENV)
        assert result.returncode == 0, result
        loaded: dict[str, torch.Tensor] = torch.load(folder / f"{ranks}.pt")
        return loaded

    return of


@pytest.mark.parametrize("ranks", [2, 3])
def test_gradient_loss_and_statistics_are_those_of_one_rank(gradients, ranks):
    one, many = gradients(1), gradients(ranks)
    for name in CASES:
        scale = one[name].abs().max()
        assert (one[name] - many[name]).abs().max() < SAME * scale
        assert len(torch.unique(one[name])) > 1000  # not all zero


@pytest.mark.parametrize("name", CASES)
def test_one_rank_agrees_with_plain_autograd(gradients, name):
    trained, (rgb, thermal) = task(name), images()
    total = torch.zeros((), dtype=torch.float64)
    for part in (slice(0, 7), slice(7, 12)):
        z = [branch(x[part])[1] for branch, x in ((trained.model.rgb, rgb), (trained.model.thermal, thermal))]
        v = [torch.relu(1 - (each.var(0) + 1e-4).sqrt()).mean() for each in z]
        c = [torch.cov(each.T) for each in z]
        off = sum((matrix - matrix.diag().diag()).square().sum() / len(matrix) for matrix in c)
        loss = 25 * (z[0] - z[1]).square().mean() + 12.5 * sum(v) + 3 * off
        total = total + loss * (part.stop - part.start) / 12
    total.backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in trained.model.parameters()])
    found = gradients(1)[name][: len(expected)]
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()
    assert gradients(1)[name][len(expected) : len(expected) + len(TERMS)].sum().item() == pytest.approx(total.item())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of pairs, training runs on one rank and on two, and embeddings of the second run, made on two ranks."""
    data = tmp_path_factory.mktemp("data")
    folder, values = data / "c", {"frames": 24, "nodes": 1, "rgb_height": 32, "thermal_height": 12}
    scene = build(SceneConfig, [Layer("test", {**values, "field_size": 128, "interval": 3600})])
    make_scene(scene, Output(folder), ALONE)
    write_index(pair(build(PairConfig, []), folder, folder / "nodes.csv", None, ALONE).pairs, data / "i.csv")
    config = build(PrepareConfig, [Layer("test", {"rgb_height": 32, "rgb_width": 40, "block_size": 4})])
    assert prepare(config, data / "i.csv", folder / "nodes-aligned.csv", Output(data / "s.h5"), ALONE)
    arguments = (
        "sky", "train", data / "s.h5", "--preset", "small", "--rgb-width", 4, "--thermal-width", 4,
        "--projector", "16,16", "--batch-size", 9, "--epochs", 2, "--precision", "float64", "--time-block", "30min",
        "--threads", 1, "--accumulation", 1, "--output",
    )  # fmt: skip
    config = check([str(word) for word in (*arguments, data / "one")]).obj
    assert train_network(config, data / "s.h5", RunDirectory(data / "one"), ALONE)
    succeed(*arguments, data / "two", ranks=2)
    succeed("sky", "embed", data / "two", data / "s.h5", data / "embedded.h5", ranks=2)
    return data


def test_a_run_is_the_same_on_two_ranks(data):
    states = {name: torch.load(data / name / "checkpoint.pt", weights_only=True)["model"] for name in ("one", "two")}
    for name, value in states["one"].items():
        assert (value - states["two"][name]).abs().max() < 1e-8


def test_embeddings_are_the_same_on_two_ranks(data, tmp_path):
    assert embed_store(build(EmbedConfig, []), data / "two", data / "s.h5", Output(tmp_path / "one.h5"), ALONE)
    assert dataset_hashes(data / "embedded.h5") == dataset_hashes(tmp_path / "one.h5")
