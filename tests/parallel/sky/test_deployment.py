"""From a scene to a store: every command makes the same files on any number of ranks, even after a kill."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpi import dataset_hashes, done_blocks, scimill, succeed
from scimill.config import Layer, build
from scimill.parallel.world import World
from scimill.sky import align, pair
from scimill.sky.exchange.index import read_index
from scimill.sky.params import AlignConfig, PairConfig, PrepareConfig, SceneConfig
from scimill.sky.prepare import prepare
from scimill.sky.scene import make_scene
from scimill.store.output import Output
from scimill.store.verify import verify

ALONE = World(None)
SCENE = {
    "frames": 16, "rgb_height": 64, "thermal_height": 24, "field_size": 128, "interval": 1800.0,
    "start": "2023-05-10T14:00:00Z", "faults": True,
}  # fmt: skip
ALIGN = {"pairs": 2, "least_pairs": 1, "least_contrast": 0.0}
PREPARE = {"rgb_height": 24, "rgb_width": 32, "block_size": 3}


def flags(values: dict[str, Any]) -> Iterator[object]:
    for name, value in values.items():
        yield f"--{name.replace('_', '-')}" if value is True else f"--{name.replace('_', '-')}={value}"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with faults and the index of its pairs, made by this process."""
    folder = tmp_path_factory.mktemp("deployment") / "one"
    make_scene(build(SceneConfig, [Layer("test", SCENE)]), Output(folder), ALONE)
    return folder


@pytest.fixture(scope="module")
def index(deployment: Path) -> Path:
    path = deployment.with_name("index.csv")
    pair.write_all(pair.pair(build(PairConfig, []), deployment, deployment / "nodes.csv", None, ALONE), path, [])
    return path


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def shared(deployment: Path, index: Path) -> Path:
    """Make scene, pairs and boxes on three ranks; pairs and boxes from the files of one process."""
    folder, nodes = index.with_name("shared"), ("--nodes", deployment / "nodes.csv")
    folder.mkdir()
    commands = [
        ("sky", "scene", folder / "scene", *flags(SCENE)),
        ("sky", "pair", deployment, *nodes, "--output", index.with_name("shared.csv"), "--report", folder / "report"),
        ("sky", "align", index, *nodes, "--output", folder / "nodes", *flags(ALIGN)),
    ]
    (folder / "stdout").write_text("".join(succeed(*command, ranks=3).stdout for command in commands))
    return folder


def test_scene(deployment: Path, shared: Path) -> None:
    assert hashes(shared / "scene") == hashes(deployment)


def test_pair(deployment: Path, index: Path, shared: Path, tmp_path: Path) -> None:
    found = pair.pair(build(PairConfig, []), deployment, deployment / "nodes.csv", None, ALONE)
    pair.write_report(found, tmp_path / "report")
    assert pair.describe_pairing(found) in (shared / "stdout").read_text()
    assert index.with_name("shared.csv").read_bytes() == index.read_bytes()
    assert (shared / "report").read_bytes() == (tmp_path / "report").read_bytes()


def test_align(deployment: Path, index: Path, shared: Path, tmp_path: Path) -> None:
    found = align.align(build(AlignConfig, [Layer("test", ALIGN)]), index, deployment / "nodes.csv", ALONE)
    align.write_boxes(found, tmp_path / "nodes")
    assert len([aligned for aligned in found if aligned.information]) > 1
    assert align.describe_boxes(found) in (shared / "stdout").read_text()
    assert (shared / "nodes").read_bytes() == (tmp_path / "nodes").read_bytes()


def test_prepare(deployment: Path, index: Path, tmp_path: Path) -> None:
    """Start on two ranks, kill one within a block, and complete on three ranks."""
    nodes, path, blocks = deployment / "nodes-aligned.csv", tmp_path / "many.h5", -(-len(read_index(index)) // 3)
    assert prepare(build(PrepareConfig, [Layer("test", PREPARE)]), index, nodes, Output(tmp_path / "one.h5"), ALONE)
    arguments = ("sky", "prepare", index, path, "--nodes", nodes, *flags(PREPARE))
    killed = scimill(*arguments, ranks=2, instant="line data 80", dying_rank=1)
    assert killed.returncode not in (0, 1), killed
    assert not path.exists()
    assert len(done_blocks(tmp_path / "many.h5.part")) < blocks
    succeed(*arguments, "--resume", ranks=3)
    assert dataset_hashes(path) == dataset_hashes(tmp_path / "one.h5")
    assert not verify(path, ALONE).problems
