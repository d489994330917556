"""Alignment finds the boxes of a synthetic deployment with the published accuracy."""

import pytest

from scimill.cli import scimill
from scimill.config import Layer, build
from scimill.errors import StorageError
from scimill.parallel.world import world
from scimill.sky.exchange.index import write_index
from scimill.sky.exchange.nodes import read_nodes
from scimill.sky.pair import pair
from scimill.sky.params import PairConfig, SceneConfig
from scimill.sky.scene import make_scene
from scimill.store.output import Output

PUBLISHED_ACCURACY = 9 / 3072
"""Accuracy of the same method in a trial on synthetic pairs, as a share of the image width."""


def call(*words):
    """Run the command line in this process."""
    scimill.main([str(word) for word in words], prog_name="scimill", standalone_mode=False)


def test_the_true_boxes_of_a_deployment_are_found(tmp_path, capsys):
    scene = {
        "frames": 48, "nodes": 2, "rgb_height": 256, "thermal_height": 63, "field_size": 512, "interval": 3000.0,
        "start": "2023-05-10T14:00:00Z",
    }  # fmt: skip
    folder = tmp_path / "deployment"
    make_scene(build(SceneConfig, [Layer("test", scene)]), Output(folder), world())
    write_index(pair(build(PairConfig, []), folder, folder / "nodes.csv", None, world()).pairs, folder / "index.csv")
    arguments = ("sky", "align", "--least-pairs", 3, folder / "index.csv", "--nodes", folder / "nodes.csv", "--output")
    call(*arguments, tmp_path / "found.csv")
    assert "W056" in capsys.readouterr().out
    found, true = read_nodes(tmp_path / "found.csv").rows, read_nodes(folder / "nodes-aligned.csv").rows
    assert [(row.vsn, row.valid) for row in found] == [(row.vsn, row.valid) for row in true]
    for one, other in zip(found, true, strict=True):
        assert one.box == pytest.approx(other.box, abs=PUBLISHED_ACCURACY)
    with pytest.raises(StorageError):
        call(*arguments, tmp_path / "found.csv")
