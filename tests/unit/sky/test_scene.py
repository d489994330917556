"""Tests of synthetic deployments: sun, cameras, temperatures as text, layout, and reproducible files."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from scimill.config import Layer, build
from scimill.errors import ConfigError, InputError, StorageError
from scimill.parallel.world import world
from scimill.sky.exchange import names, nodes
from scimill.sky.faults import FAULTS
from scimill.sky.kernels import camera, celsius, clouds, resample, solar
from scimill.sky.params import SceneConfig
from scimill.sky.scene import Scene, make_scene
from scimill.store.output import Output
from unit.sky.command import call

SMALL = {"frames": 4, "rgb_height": 64, "thermal_height": 24, "field_size": 128}
EQUINOXES_AND_SOLSTICES = (
    # U.S. Naval Observatory, Earth's Seasons; the declination is 0 or the obliquity at that date
    ("2020-03-20T03:50", 0.0), ("2020-06-20T21:44", 23.437), ("2020-09-22T13:31", 0.0), ("2020-12-21T10:02", -23.437),
    ("2022-03-20T15:33", 0.0), ("2022-06-21T09:14", 23.436), ("2022-09-23T01:04", 0.0), ("2022-12-21T21:48", -23.436),
    ("2023-03-20T21:24", 0.0), ("2023-06-21T14:58", 23.436), ("2023-09-23T06:50", 0.0), ("2023-12-22T03:27", -23.436),
    ("2024-03-20T03:06", 0.0), ("2024-06-20T20:51", 23.436), ("2024-09-22T12:44", 0.0), ("2024-12-21T09:20", -23.436),
)  # fmt: skip


def configure(**values: object) -> SceneConfig:
    return build(SceneConfig, [Layer("test", {**SMALL, **values})])


def make(folder: Path, **values: object) -> Scene:
    config = configure(**values)
    make_scene(config, Output(folder), world())
    return Scene(config, folder)


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ---- the sun ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("date", "declination"), EQUINOXES_AND_SOLSTICES)
def test_at_the_pole_the_sun_stands_as_high_as_the_published_declination(date, declination):
    assert solar.elevation(nodes.read_time(date), 90.0, 0.0) == pytest.approx(declination, abs=0.02)


def test_elevation_of_the_published_example():
    # Reda and Andreas 2004 (NREL/TP-560-34302), appendix A.5: e0, without refraction, 39.872046 degrees
    assert solar.elevation(nodes.read_time("2003-10-17T19:30:30"), 39.742476, -105.1786) == pytest.approx(
        39.872, abs=0.02
    )


def test_elevation_takes_arrays_and_keeps_nanoseconds():
    time = nodes.read_time("2023-05-20T12:00:00")
    both = solar.elevation(np.array([time, time + 86_400 * 10**9]), [41.7, 32.9], [-88.0, -117.2])
    assert both[0] == solar.elevation(time, 41.7, -88.0)
    assert both.shape == (2,)


# ---- cameras and names ------------------------------------------------------------------------------------------


def test_codes_of_the_presets():
    assert [camera.code(preset) for preset in (1, 2, 3, 4, 5, 17, 29)] == ["SS", "SH", "SB", "SG", "SWS", "NS", "SES"]
    assert [preset for preset in range(1, 33) if camera.is_sky(preset)] == [1, 5, 9, 13, 17, 21, 25, 29]
    assert camera.true_preset(5, south=5) == 1
    assert camera.true_preset(1, south=5) == 29
    assert camera.true_preset(names.NO_PRESET, south=5) == names.NO_PRESET


def test_a_thermal_image_looks_to_where_the_box_does():
    x, y = camera.tangents((240, 360), camera.PUBLISHED_BOX)
    inside = (x > -camera.HALF_WIDTH) & (x < camera.HALF_WIDTH)
    left, _, right, bottom = camera.PUBLISHED_BOX
    assert inside.sum() == pytest.approx((right - left) * 360, abs=1)
    assert y[round(bottom * 240)] == pytest.approx(-camera.HALF_HEIGHT, abs=0.01)
    directions = camera.axes(225.0, 45.0)
    assert directions @ directions.T == pytest.approx(np.eye(3))
    assert directions[0] == pytest.approx([-0.5, -0.5, np.sqrt(0.5)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1683676800385719968-6144x2048_position5.jpg", (names.RGB, 1683676800385719968, 5)),
        ("1683676800385719968-6144x2048.jpg", (names.RGB, 1683676800385719968, 0)),
        ("1683676800385719968-6144x2048_SWS.jpg", (names.RGB, 1683676800385719968, 5)),
        (
            "1683676800385719968-right_336x252_14bit.thermal.celsius_position29.csv",
            (names.THERMAL, 1683676800385719968, 29),
        ),
        ("1683676800385719968_right_336x252_14bit.thermal.celsius.csv", (names.THERMAL, 1683676800385719968, 0)),
        ("sage_mobotix_cam_20230510-000000_6144x2048_position1.jpg", (names.RGB, 1683676800 * 10**9, 1)),
    ],
)
def test_names_are_read(name, expected):
    assert names.read(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "1683676800385719968-6144x2048_position5_plot.jpg", "1683676800385719968-scan.nc",
        "1683676800385719968-right_336x252_14bit.thermal.uint.csv", "1683676800385719968-x.thermal.raw",
        "1683676800385719968-sample.jpg", "1683676800385719968_6144x2048.rgb", "uploads.csv", "picture.jpg",
    ],
)  # fmt: skip
def test_names_that_are_no_pairs_are_given_a_reason(name):
    assert isinstance(names.read(name), str)


def test_names_that_are_made_are_read_back():
    frame = (1683676800385719968, (256, 768), 13)
    assert names.read(names.rgb(*frame)) == (names.RGB, frame[0], 13)
    assert names.read(names.thermal(*frame)) == (names.THERMAL, frame[0], 13)


def test_dates_keep_their_nanoseconds():
    assert nodes.write_time(nodes.read_time("2023-05-10T00:00:00.385719968Z")) == "2023-05-10T00:00:00.385719968Z"
    for bad in ("yesterday", "2023-05-10T00:00:00+02:00", "2023-05-10T00:00:00.1x"):
        with pytest.raises(ValueError, match=r"2023|yesterday"):
            nodes.read_time(bad)


# ---- the table of nodes -----------------------------------------------------------------------------------------


def test_a_node_is_found_by_its_name_its_id_and_the_time(tmp_path):
    scene = make(tmp_path, frames=16, nodes=1, positions=2)
    table = nodes.read_nodes(tmp_path / "nodes-aligned.csv")
    first, moved = table.rows
    assert first.valid[1] == moved.valid[0]
    assert table.vsn("W056") == table.vsn(first.node_id) == table.vsn("w056") == "W056"
    assert table.at("W056", first.valid[1] - 1) == first
    assert table.at("W056", first.valid[1]) == moved
    assert table.at("W02D", 0) is None
    assert first.box == pytest.approx(scene.deployment.box(0), abs=1e-6)
    low, high = (
        [s for s in map(scene.deployment.shot, range(16)) if table.at("W056", s.time) == n] for n in table.rows
    )
    assert len(low) == len(high) == 8
    assert high[0].sun_elevation - low[-1].sun_elevation > 10  # further west the sun is higher in the evening


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("vsn,latitude\nW056,1\n", "longitude"),
        ("vsn,latitude,longitude\nW056,x,1\n", "latitude: expected a number"),
        ("vsn,latitude,longitude\nW056,95,1\n", "degrees"),
        ("vsn,latitude,longitude\nW056,1,1\nW056,2,2\n", "two rows"),
        ("vsn,latitude,longitude,box_left,box_top,box_right,box_bottom\nW056,1,1,0.5,0,0.2,1\n", "box"),
        ("vsn,latitude,longitude\n", "empty"),
    ],
)
def test_a_wrong_table_of_nodes_is_refused(tmp_path, text, what):
    (tmp_path / "nodes.csv").write_text(text)
    with pytest.raises(InputError, match=what):
        nodes.read_nodes(tmp_path / "nodes.csv")


# ---- kernels ----------------------------------------------------------------------------------------------------


def read_text(text: str, rows: int = 2, columns: int = 3) -> tuple[int, int, np.ndarray]:
    values = np.full((rows, columns), np.nan)
    problem, row = celsius.parse(np.frombuffer(text.encode(), np.uint8), values)
    return problem, row, values


@pytest.mark.parametrize("end", ["\n", "\r\n", ";\n", ""])
def test_temperatures_are_read_as_python_reads_them(end):
    words = ["-43.95", "6.29", "1e-05", "+0.5", "-1.25E2", "123456"]
    rows = [";".join(words[:3]), ";".join(words[3:])]
    problem, _, values = read_text((end or "\n").join(rows) + end)
    assert problem == celsius.VALID
    assert values.ravel().tolist() == [float(word) for word in words]


@pytest.mark.parametrize(
    ("text", "problem", "row"),
    [
        ("1;2;3\n4;5\n", celsius.TOO_SHORT, 1), ("1;2;3\n", celsius.TOO_SHORT, 1), ("", celsius.TOO_SHORT, 0),
        ("1;2;3;4\n5;6;7\n", celsius.TOO_LONG, 0), ("1;2;3\n4;5;6\n7;8;9\n", celsius.TOO_LONG, 2),
        ("1;;3\n4;5;6\n", celsius.BLANK, 0), ("1;2;3\n4;nan;6\n", celsius.NOT_FINITE, 1),
        ("1;-inf;3\n4;5;6\n", celsius.NOT_FINITE, 0), ("1;2;3\n4;x;6\n", celsius.NOT_A_NUMBER, 1),
        ("1;2;3\n4;5,5;6\n", celsius.NOT_A_NUMBER, 1), ("1;2;3\n4;5;", celsius.TOO_SHORT, 1),
    ],
)  # fmt: skip
def test_what_is_wrong_with_temperatures_is_named(text, problem, row):
    assert read_text(text)[:2] == (problem, row)


def test_every_count_is_read_back_from_its_text():
    every = np.arange(2**14, dtype=np.uint16)
    text = "\n".join(f"{value:.6g}" for value in celsius.to_celsius(every).tolist())
    problem, _, values = read_text(text, len(every), 1)
    assert problem == celsius.VALID
    assert np.array_equal(celsius.counts(values).ravel(), every)
    assert celsius.counts(values + 0.01) is None
    assert celsius.counts(np.array([-300.0])) is None
    # the four values printed in a public notebook
    assert celsius.counts(np.array([6.29, 6.21, -43.95, -44.07])).tolist() == [6986, 6984, 5730, 5727]


def covered(first: float, last: float, count: int, size: int) -> np.ndarray:
    """Share of each source pixel in each new one, by definition."""
    edges = np.linspace(first, last, count + 1)
    low, high = np.arange(size), np.arange(1, size + 1)
    overlap = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    return np.clip(overlap, 0, None) / (edges[1] - edges[0])


@pytest.mark.parametrize("box", [(0.0, 0.0, 30.0, 20.0), (3.25, 1.5, 27.75, 18.1), (10.1, 4.2, 14.9, 6.4)])
def test_areas_are_averaged_by_the_definition(box):
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    left, top, right, bottom = box
    rows, columns = covered(top, bottom, 6, 20), covered(left, right, 8, 30)
    expected = np.einsum("iy,jx,yxc->ijc", rows, columns, image.astype(float))
    whole, exact = np.empty((6, 8, 3), np.uint8), np.empty((6, 8, 3), np.float32)
    resample.shrink(image, *box, whole)
    resample.shrink(image.astype(np.float32), *box, exact)
    assert exact == pytest.approx(expected, rel=1e-4)
    assert np.abs(whole - expected).max() <= 0.501


def test_the_field_of_clouds_has_its_spectrum_and_its_cover():
    field = clouds.cloud_field(np.random.default_rng(1), 512)
    power = np.abs(np.fft.rfft2(field))[1:200, 1:200] ** 2
    k = np.hypot(*np.mgrid[1:200, 1:200])
    slope = np.polyfit(np.log(k).ravel(), np.log(power).ravel(), 1)[0]
    assert slope == pytest.approx(-3.0, abs=0.1)
    level, zero = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]), np.zeros(2)
    x = np.linspace(-8, 8, 400, endpoint=False)  # 24 km at a height of 1.5 km: the whole field
    sine, depth = clouds.depths(field, level, x, x, 1500.0, zero, float(np.quantile(field, 0.7)))
    assert (depth > 0).mean() == pytest.approx(0.3, abs=0.01)
    assert sine.max() == pytest.approx(1.0, abs=1e-3)


def test_clouds_are_warm_and_the_clear_zenith_is_cold():
    sky = clouds.Sky(0.5, 0.0, 1000.0, 15.0, (180.0, 40.0), (0.0, 0.0))
    sine = np.array([[1.0, 1.0, 0.05, -0.2]], np.float32)
    depth = np.array([[0.0, 20.0, 0.0, 0.0]], np.float32)
    seen = clouds.temperature(sine, depth, sky)[0]
    assert seen[0] == pytest.approx(15 - 8 - 95 * np.exp(-0.45), abs=0.01)
    assert seen[1] == pytest.approx(15 - 8, abs=0.01)
    assert seen[0] < seen[2] < seen[3]
    picture = clouds.colour(sine, depth, np.zeros_like(sine), sky)[0]
    assert picture[0, 2] > 2 * picture[0, 0]  # blue
    assert np.ptp(picture[1]) < 0.05  # grey
    night = clouds.colour(sine, depth, np.zeros_like(sine), sky._replace(sun=(0.0, -40.0)))
    assert night.max() < 0.05


# ---- the deployment -----------------------------------------------------------------------------------------------


def test_a_tree_has_the_real_layout(tmp_path):
    scene = make(tmp_path)
    for item in range(8):
        shot = scene.deployment.shot(item)
        rgb, thermal = scene.paths(shot)
        assert names.read(rgb.name) == (names.RGB, shot.time, shot.position)
        assert rgb.parent.name == shot.node_id
        assert simplejpeg.decode_jpeg((tmp_path / rgb).read_bytes()).shape == (64, 192, 3)
        lines = (tmp_path / thermal).read_text().splitlines()
        assert lines[2:4] == ["width;32", "height;24"]
        assert lines[7] == ""
        assert np.loadtxt((tmp_path / thermal).read_text().splitlines(), delimiter=";", skiprows=8).shape == (24, 32)
    rows = list(csv.DictReader((tmp_path / "sage_meta/uploads.csv").read_text().splitlines()))
    assert len(rows) == 16
    assert {Path(row["value"]).name.partition("-")[2] for row in rows} == {row["meta.filename"] for row in rows}


def test_both_cameras_see_the_same_clouds(tmp_path):
    scene = make(tmp_path, frames=8, nodes=1, rgb_height=96, start="2023-05-10T18:00:00Z")
    found = []
    for item in range(8):
        rgb, thermal = scene.paths(scene.deployment.shot(item))
        left, top, right, bottom = (
            edge * size for edge, size in zip(scene.deployment.box(0), (144, 96) * 2, strict=True)
        )
        picture = Image.open(tmp_path / rgb).crop((left, top, right, bottom)).resize((32, 24), Image.Resampling.BOX)
        values = np.asarray(picture, dtype=float)
        grey = values[..., 0] / values[..., 2]  # clouds are grey, the clear sky is blue
        celsius_ = np.loadtxt((tmp_path / thermal).read_text().splitlines(), delimiter=";", skiprows=8)
        if 0.2 < scene.deployment.shot(item).sky.cover < 0.8:
            found.append(np.corrcoef(grey.ravel(), celsius_.ravel())[0, 1])
    assert np.median(found) > 0.8


@pytest.mark.parametrize("pair_paths", ["rgb", "processed", "absolute"])
def test_the_training_layout(tmp_path, pair_paths):
    make(tmp_path, layout="train", pair_paths=pair_paths)
    base = tmp_path / "train/rgb" / ("processed" if pair_paths == "processed" else "")
    files = sorted((tmp_path / "train/pairs").rglob("*.txt"))
    assert len(files) == 8
    for file in files:
        rgb, thermal = file.read_text().splitlines()
        assert (base / rgb).is_file()
        assert (tmp_path / "train/thermal" / thermal).is_file()
        assert Path(rgb).is_absolute() == (pair_paths == "absolute")


def test_the_faults_are_made_and_listed(tmp_path):
    make(tmp_path, frames=12, faults=True)
    rows = list(csv.DictReader((tmp_path / "faults.csv").read_text().splitlines()))
    assert [row["fault"] for row in rows] == [name for name, _ in FAULTS]
    assert all((tmp_path / row["file"]).is_file() for row in rows)
    with pytest.raises(ConfigError, match="faults"):
        call("scene", tmp_path / "b", "--frames", 1, "--faults")


def test_the_files_do_not_depend_on_an_interruption(tmp_path):
    folder, sizes = tmp_path / "a", {**SMALL, "frames": 6}
    arguments = [word for name, value in sizes.items() for word in (f"--{name.replace('_', '-')}", value)]
    call("scene", folder, *arguments, "--faults")
    expected = hashes(folder)
    for path in sorted(folder.rglob("*.csv"))[::2]:
        path.unlink()
    with pytest.raises(StorageError):
        call("scene", folder, *arguments, "--faults")
    call("scene", folder, *arguments, "--faults", "--resume")
    assert hashes(folder) == expected


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--start", "yesterday"), ConfigError), (("--rgb-height", "65"), ConfigError),
        (("--thermal-height", "25"), ConfigError), ((), StorageError),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(tmp_path, arguments, error):
    folder = tmp_path / "there" if arguments else tmp_path / "missing" / "there"
    with pytest.raises(error):
        call("scene", folder, "--frames", "2", *arguments)
    assert not folder.exists()
