"""Tests of preparing: the store holds the content of the files."""

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import simplejpeg
from matplotlib.figure import Figure
from PIL import Image

from scimill import pictures
from scimill.config import Layer, build
from scimill.droplets.generate import generate
from scimill.errors import ConfigError, InputError, StorageError
from scimill.parallel.world import world
from scimill.sky import fields, prepare
from scimill.sky.exchange import decode, stored
from scimill.sky.exchange.index import Pair, write_index
from scimill.sky.exchange.nodes import read_nodes, write_nodes
from scimill.sky.kernels import celsius
from scimill.sky.kernels.camera import PUBLISHED_BOX
from scimill.sky.pair import pair
from scimill.sky.params import PairConfig, PrepareConfig, SceneConfig
from scimill.sky.pictures import plots
from scimill.sky.scene import make_scene
from scimill.store.output import Output
from scimill.store.reader import Reader
from unit.sky.command import call

SIZES = ("--rgb-height", 24, "--rgb-width", 32, "--block-size", 3)


@dataclasses.dataclass(frozen=True)
class Deployment:
    folder: Path
    pairs: list[Pair]

    @property
    def index(self) -> Path:
        return self.folder / "index.csv"

    @property
    def nodes(self) -> Path:
        return self.folder / "nodes-aligned.csv"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    folder = tmp_path_factory.mktemp("deployment")
    small = {"frames": 10, "rgb_height": 128, "thermal_height": 24, "field_size": 128}
    make_scene(build(SceneConfig, [Layer("test", small)]), Output(folder), world())
    pairs = pair(build(PairConfig, []), folder, folder / "nodes.csv", None, world()).pairs
    write_index(pairs, folder / "index.csv")
    return Deployment(folder, pairs)


def configure(**values: Any) -> PrepareConfig:
    return build(PrepareConfig, [Layer("test", {"rgb_height": 24, "rgb_width": 32, "block_size": 3, **values})])


def make(deployment: Deployment, path: Path, **values: Any) -> Reader:
    output = Output(path)
    assert prepare.prepare(configure(**values), deployment.index, deployment.nodes, output, world())
    return Reader.open(path)


def whole(reader: Reader, name: str) -> np.ndarray:
    with reader:
        return np.concatenate([reader.rows(block, name) for block in range(reader.layout.blocks)])


def loose_celsius(path: Path) -> np.ndarray:
    return np.loadtxt(path.read_text().splitlines(), delimiter=";", skiprows=8)


# ---- what is stored ---------------------------------------------------------------------------------------------


def test_temperatures_are_stored_without_loss(deployment, output):
    counts = whole(make(deployment, output), "thermal")
    assert counts.dtype == np.uint16
    for stored_, found in zip(counts, deployment.pairs, strict=True):
        assert (
            np.abs(stored_ / 25 - 273.15 - loose_celsius(found.thermal)).max() < 1e-3
        )  # the text has six significant digits


def test_colours_are_those_of_the_box(deployment, output):
    images = whole(make(deployment, output), "rgb")
    table = read_nodes(deployment.nodes)
    for stored_, found in zip(images, deployment.pairs, strict=True):
        box = table.at(found.vsn, found.time).box
        left, top, right, bottom = (edge * size for edge, size in zip(box, (192, 128) * 2, strict=True))
        optical = Image.open(found.rgb).crop((0, 0, 192, 128))
        fine = optical.resize((32 * 20, 24 * 20), Image.Resampling.NEAREST, box=(left, top, right, bottom))
        expected = np.asarray(fine, dtype=float).reshape(24, 20, 32, 20, 3).mean((1, 3))
        assert np.abs(stored_ - expected).max() < 12
        assert np.abs(stored_ - expected).mean() < 1


def test_what_the_index_says_is_stored_too(deployment, output):
    with make(deployment, output) as reader:
        columns = {field.name: np.asarray(reader.file[field.name]) for field in reader.layout.fields}
    for row, found in enumerate(deployment.pairs):
        assert columns["time"][row] == found.time
        assert columns["node"][row].decode() == found.vsn
        assert (columns["position"][row], columns["pointing"][row].decode()) == (found.position, found.pointing)
        assert columns["sun_elevation"][row] == pytest.approx(found.sun_elevation, abs=1e-4)
        assert columns["latitude"][row] == pytest.approx(found.latitude)
        assert columns["rgb_file"][row].decode() == found.rgb.name
        assert columns["thermal_file"][row].decode() == found.thermal.name
    assert not columns["status"].any()


def test_the_fast_decoder_is_almost_exact(deployment, tmp_path):
    exact = whole(make(deployment, tmp_path / "exact.h5"), "rgb").astype(int)
    fast = whole(make(deployment, tmp_path / "fast.h5", decode="fast"), "rgb").astype(int)
    assert not np.array_equal(exact, fast)
    assert np.abs(exact - fast).mean() < 1
    images = [decode.read_rgb(deployment.pairs[0].rgb.read_bytes(), PUBLISHED_BOX, (200, 300), fast=f) for f in (0, 1)]
    assert np.array_equal(*images)  # no smaller size is large enough


def test_degrees_are_averaged_to_another_size(deployment, output):
    degrees = whole(make(deployment, output, thermal_height=12, thermal_width=16), "thermal")
    assert degrees.dtype == np.float32
    for stored_, found in zip(degrees, deployment.pairs, strict=True):
        expected = loose_celsius(found.thermal).reshape(12, 2, 16, 2).mean((1, 3))
        assert stored_ == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("thermal", ["auto", "float32"])
def test_moments_are_those_of_all_pixels(deployment, output, thermal):
    with make(deployment, output, thermal=thermal) as reader:
        moments = fields.thermal_moments(reader)
    degrees = np.stack([loose_celsius(found.thermal) for found in deployment.pairs])
    assert moments == pytest.approx((degrees.mean(), degrees.std()), rel=1e-4)


# ---- damage and refusals ----------------------------------------------------------------------------------------


def spoil(deployment: Deployment, folder: Path) -> Deployment:
    """The same pairs, with the second JPG and the third thermal file damaged after pairing."""
    pairs = list(deployment.pairs)
    (folder / "short.jpg").write_bytes(pairs[1].rgb.read_bytes()[:500])
    (folder / "other.csv").write_text(pairs[2].thermal.read_text().replace("height;24", "height;25"))
    pairs[1] = dataclasses.replace(pairs[1], rgb=folder / "short.jpg")
    pairs[2] = dataclasses.replace(pairs[2], thermal=folder / "other.csv")
    write_index(pairs, folder / "index.csv")
    write_nodes(read_nodes(deployment.nodes), folder / "nodes-aligned.csv")
    return Deployment(folder, pairs)


def test_what_was_damaged_since_is_zero_and_flagged(deployment, tmp_path):
    spoilt = spoil(deployment, tmp_path)
    with make(spoilt, tmp_path / "a.h5") as reader:
        assert reader.rows(0, "status").tolist() == [0, 1, 2]
        assert not reader.rows(0, "rgb")[1].any()
        assert not reader.rows(0, "thermal")[2].any()
        assert reader.rows(0, "thermal")[1].any()
        assert reader.column("damaged")[0] == 2
        moments = fields.thermal_moments(reader)
        assert stored.pick_rows(reader, 50).tolist() == [0, *range(3, 20)]
    degrees = np.stack([loose_celsius(p.thermal) for row, p in enumerate(deployment.pairs) if row != 2])
    assert moments == pytest.approx((degrees.mean(), degrees.std()), rel=1e-4)
    assert "2 damaged since pairing" in prepare.describe_pairs(tmp_path / "a.h5")
    with pytest.raises(InputError, match="damaged since"):
        make(spoilt, tmp_path / "b.h5", strict=True)


def test_a_silent_centre_crop_is_refused(deployment, output):
    for nodes in (None, deployment.folder / "nodes.csv"):
        with pytest.raises(ConfigError, match="field of view"):
            prepare.make_plan(configure(), deployment.index, nodes)
    plan = prepare.make_plan(configure(crop="centre"), deployment.index, None)
    # The original code: height / 1.1, width 4/3 of that; of 2048 x 3072 it is 1861 x 2481, from 295 to 2777, 93 to 1955
    left, top, right, bottom = prepare.centre_box(2048, 3072)
    assert (left * 3072, top * 2048, right * 3072, bottom * 2048) == pytest.approx((295, 93, 2777, 1955), abs=1)
    box = PUBLISHED_BOX
    assert left <= box[0] < box[2] <= right
    assert top <= box[1] < box[3] <= bottom
    assert (box[2] - box[0]) * (box[3] - box[1]) / ((right - left) * (bottom - top)) == pytest.approx(0.67, abs=0.005)
    assert len(set(plan.boxes)) == 1
    assert set(prepare.make_plan(configure(crop="whole"), deployment.index, None).boxes) == {(0.0, 0.0, 1.0, 1.0)}


def test_several_sizes_need_one_that_is_given(deployment, tmp_path):
    pairs = [dataclasses.replace(deployment.pairs[0], thermal_width=40), *deployment.pairs[1:]]
    write_index(pairs, tmp_path / "index.csv")
    with pytest.raises(ConfigError, match="different sizes: 19 of 24 x 32, 1 of 24 x 40"):
        prepare.make_plan(configure(), tmp_path / "index.csv", deployment.nodes)
    values = {"thermal_height": 24, "thermal_width": 32}
    assert prepare.make_plan(configure(**values), tmp_path / "index.csv", deployment.nodes)


def test_counts_that_are_none_are_refused_or_stored_as_degrees(deployment, tmp_path):
    pairs = [dataclasses.replace(deployment.pairs[0], is_counts=False), *deployment.pairs[1:]]
    write_index(pairs, tmp_path / "index.csv")
    plan = prepare.make_plan(configure(), tmp_path / "index.csv", deployment.nodes)
    assert fields.field(plan.layout, "thermal").dtype == "float32"
    with pytest.raises(ConfigError, match="not whole counts"):
        prepare.make_plan(configure(thermal="counts"), tmp_path / "index.csv", deployment.nodes)


def test_other_pairs_are_not_resumed(deployment, output, capsys):
    make(deployment, output).file.close()
    table = read_nodes(deployment.nodes)
    moved = [dataclasses.replace(node, box=(0.1, 0.1, 0.9, 0.9)) for node in table.rows]
    write_nodes(type(table)(moved), deployment.folder / "moved.csv")
    arguments = ("prepare", deployment.index, output, *SIZES, "--nodes")
    with pytest.raises(ConfigError, match="pairs_crc32c"):
        call(*arguments, deployment.folder / "moved.csv", "--resume")
    call(*arguments, deployment.nodes, "--resume")
    assert "already complete" in capsys.readouterr().err
    with pytest.raises(StorageError):
        call(*arguments, deployment.nodes)


# ---- out again --------------------------------------------------------------------------------------------------


def test_exported_pairs_are_pairs_again(deployment, tmp_path):
    reader = make(deployment, tmp_path / "a.h5")
    counts, images = whole(reader, "thermal"), None
    assert stored.export_pairs(tmp_path / "a.h5", tmp_path / "loose", world(), overwrite=False) == 20
    result = pair(build(PairConfig, []), tmp_path / "loose", deployment.nodes, None, world())
    assert not result.findings
    assert [p.time for p in result.pairs] == [p.time for p in deployment.pairs]
    with h5py.File(tmp_path / "a.h5") as file:
        images = file["rgb"][:]
    for row, found in enumerate(result.pairs):
        assert np.array_equal(decode.read_thermal(found.thermal.read_bytes()).counts, counts[row])
        assert np.abs(simplejpeg.decode_jpeg(found.rgb.read_bytes()).astype(int) - images[row]).mean() < 6
    with pytest.raises(StorageError, match="exists"):
        stored.export_pairs(tmp_path / "a.h5", tmp_path / "loose", world(), overwrite=False)


def test_the_sheet_shows_pairs_from_all_over_the_store(deployment, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "DPI", 60)
    make(deployment, tmp_path / "a.h5").file.close()
    with stored.open_pairs(tmp_path / "a.h5") as reader:
        rows = stored.read_rows(reader, stored.pick_rows(reader, 6))
    figure = plots.draw_sheet(rows, "a title")
    assert isinstance(figure, Figure)
    shown = [axes for axes in figure.axes if len(axes.images) == 2]
    assert len(shown) == 6
    assert np.array_equal(shown[2].images[0].get_array(), rows["rgb"][2])
    assert np.asarray(shown[2].images[1].get_array()) == pytest.approx(celsius.stored_to_celsius(rows["thermal"])[2])
    assert len({axes.images[1].get_clim() for axes in shown}) == 1
    assert plots.plot_store(tmp_path / "a.h5", tmp_path / "pictures").stat().st_size > 10_000


def test_another_store_is_no_store_of_pairs(configure, tmp_path):
    generate(configure(count=16), Output(tmp_path / "a.h5"), world())
    with pytest.raises(InputError, match="droplets"):
        call("plot", tmp_path / "a.h5", "--output", tmp_path)
