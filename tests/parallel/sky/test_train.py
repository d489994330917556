"""Two branches do not depend on the number of ranks that they are trained on."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mpi import scimill, succeed
from parallel.sky.sky_gradients import CASES, images, task
from scimill.config import Layer, build
from scimill.parallel.world import world
from scimill.sky.exchange.index import write_index
from scimill.sky.learning.vicreg import TERMS
from scimill.sky.pair import pair
from scimill.sky.params import PairConfig, PrepareConfig, SceneConfig
from scimill.sky.prepare import prepare
from scimill.sky.scene import make_scene
from scimill.store.output import Output

DRIVER = (sys.executable, str(Path(__file__).with_name("sky_gradients.py")))
SAME = 1e-10
ENV = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("gradients")

    def of(ranks: int) -> dict[str, torch.Tensor]:
        path = folder / f"{ranks}.pt"
        if not path.exists():
            result = scimill(path, ranks=ranks, program=DRIVER, env=ENV)
            assert result.returncode == 0, result
        loaded: dict[str, torch.Tensor] = torch.load(path)
        return loaded

    return of


@pytest.mark.parametrize("ranks", [2, 4])
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


def test_a_run_is_the_same_on_two_ranks(tmp_path):
    folder, values = tmp_path / "c", {"frames": 24, "nodes": 1, "rgb_height": 32, "thermal_height": 12}
    scene = build(SceneConfig, [Layer("test", {**values, "field_size": 128, "interval": 3600})])
    make_scene(scene, Output(folder), world())
    write_index(pair(build(PairConfig, []), folder, folder / "nodes.csv", None, world()).pairs, tmp_path / "i.csv")
    config = build(PrepareConfig, [Layer("test", {"rgb_height": 32, "rgb_width": 40, "block_size": 4})])
    assert prepare(config, tmp_path / "i.csv", folder / "nodes-aligned.csv", Output(tmp_path / "s.h5"), world())
    arguments = (
        "sky", "train", tmp_path / "s.h5", "--preset", "small", "--rgb-width", 4, "--thermal-width", 4,
        "--projector", "16,16", "--batch-size", 9, "--epochs", 2, "--precision", "float64", "--time-block", "30min",
        "--threads", 1, "--accumulation", 1, "--output",
    )  # fmt: skip
    states = {}
    for name, ranks in (("one", 1), ("two", 2)):
        succeed(*arguments, tmp_path / name, ranks=ranks, env=ENV)
        states[name] = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"]
    for name, value in states["one"].items():
        assert (value - states["two"][name]).abs().max() < 1e-8
