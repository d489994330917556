"""Tests of pairing: every layout gives the same pairs, and every fault is reported by name."""

import csv
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import openpyxl
import pytest
import simplejpeg

from scimill.config import Layer, build
from scimill.errors import InputError, StorageError
from scimill.parallel.world import world
from scimill.sky.exchange import decode, discover, names
from scimill.sky.exchange.discover import FileFinding
from scimill.sky.exchange.index import read_index, write_index
from scimill.sky.exchange.nodes import ALWAYS, Node, Nodes, read_nodes
from scimill.sky.faults import FAULTS
from scimill.sky.kernels import solar
from scimill.sky.pair import Pairing, match, pair
from scimill.sky.params import PairConfig, SceneConfig
from scimill.sky.scene import Scene, make_scene
from scimill.store.output import Output
from unit.sky.command import call

FRAMES = 12
SUNRISE = -0.833  # degrees, with refraction and the radius of the sun
DETAILS = {
    # fault: kind of the finding about the faulty file, and words of its detail
    "no thermal file": (discover.ORPHAN, "this frame has no thermal file"),
    "no JPG": (discover.ORPHAN, "this frame has no JPG"),
    "truncated JPG": (discover.DAMAGED, "damaged JPG"),
    "short row": (discover.DAMAGED, "too few values, in row 3"),
    "not a number": (discover.DAMAGED, "not finite, in row 3"),
    "blank value": (discover.DAMAGED, "blank, in row 3"),
    "wrong size": (discover.DAMAGED, "15 rows, but its header says 24"),
    "duplicate": (discover.DUPLICATE, "same frame as"),
    "plot": (discover.IGNORED, "drawing"),
    "netCDF": (discover.IGNORED, "netCDF"),
    "unknown node": (discover.UNKNOWN, "00000000deadbeef"),
}


def make(folder: Path, **values: object) -> Scene:
    small = {"frames": FRAMES, "rgb_height": 64, "thermal_height": 24, "field_size": 128}
    config = build(SceneConfig, [Layer("test", {**small, **values})])
    make_scene(config, Output(folder), world())
    return Scene(config, folder)


def run(source: Path, folder: Path, nodes: Path | None = None, files: Path | None = None, **values: object) -> Pairing:
    config = build(PairConfig, [Layer("test", values)])
    return pair(config, source, nodes or folder / "nodes.csv", files, world())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make(tmp_path_factory.mktemp("faulty"), faults=True)


def keys(pairing: Pairing) -> list[tuple[int, str, int]]:
    return [(found.time, found.vsn, found.position) for found in pairing.pairs]


def shots(scene: Scene) -> list[tuple[int, str, int]]:
    found = (scene.deployment.shot(item) for item in range(scene.deployment.count))
    return sorted((shot.time, shot.vsn, shot.position) for shot in found)


def test_all_pairs_of_a_tree_are_found(tree):
    result = run(tree.folder, tree.folder)
    assert keys(result) == shots(tree)
    assert {finding.kind for finding in result.findings} == {discover.IGNORED}
    truth = {row["timestamp"]: row for row in csv.DictReader((tree.folder / "truth.csv").read_text().splitlines())}
    for found in result.pairs:
        assert found.sun_elevation == pytest.approx(float(truth[str(found.time)]["sun_elevation"]), abs=1e-3)
        assert (found.rgb_height, found.rgb_width, found.thermal_height, found.thermal_width) == (64, 96, 24, 32)
        assert found.is_counts
        assert found.pointing.endswith("S")


def test_the_elevation_is_that_of_the_place_at_the_time(tree):
    table = read_nodes(tree.folder / "nodes.csv")
    places = {found.latitude for found in run(tree.folder, tree.folder).pairs if found.vsn == "W056"}
    assert places == {row.latitude for row in table.rows if row.vsn == "W056"}
    assert len(places) == 2
    # After the move, day and night at the old place would be wrong by hours.
    old, new = (row for row in table.rows if row.vsn == "W056")
    day = old.valid[1] + np.arange(0, 86_400, 300, dtype=np.int64) * 10**9
    is_day = [solar.elevation(day, row.latitude, row.longitude) > SUNRISE for row in (old, new)]
    assert np.mean(is_day[0] != is_day[1]) > 0.1


def test_day_and_night_are_told_apart_by_the_sun(tree):
    everything = run(tree.folder, tree.folder).pairs
    limit = float(np.median([found.sun_elevation for found in everything]))
    day = run(tree.folder, tree.folder, sun_elevation=(limit, 90.0))
    expected = [found for found in everything if found.sun_elevation >= limit]
    assert 0 < len(expected) < len(everything)
    assert day.pairs == expected
    left_out = [finding for finding in day.findings if "the sun's elevation is" in finding.detail]
    assert len(left_out) == 2 * (len(everything) - len(expected))
    assert {finding.kind for finding in left_out} == {discover.IGNORED}


@pytest.mark.parametrize("pair_paths", ["rgb", "processed", "absolute"])
def test_the_training_layout_gives_the_same_pairs(tree, tmp_path, pair_paths):
    scene = make(tmp_path, layout="train", pair_paths=pair_paths)
    for source in (tmp_path, tmp_path / "train"):
        result = run(source, tmp_path)
        assert keys(result) == shots(tree)
        assert not result.findings
    shot = scene.deployment.shot(3)
    (tmp_path / "train/pairs" / shot.vsn / f"{shot.time}.txt").unlink()
    (tmp_path / "train/pairs" / shot.vsn / "broken.txt").write_text("only one line\n")
    scene.folder.joinpath(*scene.paths(scene.deployment.shot(5))[1].parts).unlink()
    result = run(tmp_path, tmp_path)
    assert len(result.pairs) == 2 * FRAMES - 2
    found = sorted((finding.kind, finding.detail) for finding in result.findings)
    assert [kind for kind, _ in found] == ["damaged", "missing", "orphan", "orphan", "orphan"]
    assert {detail for _, detail in found} >= {"no file in pairs/ names it", "expected two lines: a JPG and a CSV"}


def test_files_of_different_times_are_no_pair(tmp_path):
    scene = make(tmp_path, layout="train")
    texts = sorted((tmp_path / "train/pairs/W056").glob("*.txt"))
    first, second = (text.read_text().split("\n") for text in texts[:2])
    texts[0].write_text(f"{first[0]}\n{second[1]}\n")
    result = run(tmp_path, tmp_path)
    assert scene.deployment.shot(0).time not in [found.time for found in result.pairs]
    assert sum("different times" in finding.detail for finding in result.findings) == 2


@pytest.mark.parametrize("kind", ["ndjson", "ndjson.gz", "csv"])
def test_saved_metadata_gives_the_same_pairs(tree, tmp_path, kind):
    source = tmp_path / f"uploads.{kind}"
    stored = tree.folder / "sage_meta" / f"uploads.{kind.removesuffix('.gz')}"
    source.write_bytes(gzip.compress(stored.read_bytes()) if kind.endswith(".gz") else stored.read_bytes())
    result = run(source, tree.folder, files=tree.folder)
    assert keys(result) == shots(tree)
    assert not result.findings


def test_what_the_metadata_name_and_is_not_there_is_missing(tree, tmp_path):
    lines = (tree.folder / "sage_meta/uploads.ndjson").read_text().splitlines()
    lost = json.loads(lines[0])
    lost["timestamp"] = "2023-06-01T00:00:00.000000001Z"
    lost["value"] = lost["value"].rpartition("/")[0] + "/1685577600000000001-6144x2048.jpg"
    (tmp_path / "uploads.ndjson").write_text("\n".join([*lines, json.dumps(lost)]))
    result = run(tmp_path / "uploads.ndjson", tree.folder, files=tree.folder)
    assert keys(result) == shots(tree)
    assert [(finding.kind, finding.file.name) for finding in result.findings] == [
        (discover.MISSING, "1685577600000000001-6144x2048.jpg")
    ]


@pytest.mark.parametrize(
    "text", ["{}", '{"timestamp": "x"}', "[1]", '{"timestamp":"now","name":"upload","value":"u","meta":{"vsn":"W1"}}']
)
def test_wrong_metadata_is_refused(tree, tmp_path, text):
    (tmp_path / "a.ndjson").write_text(text + "\n")
    with pytest.raises(InputError, match="not metadata"):
        run(tmp_path / "a.ndjson", tree.folder)


def test_truncated_or_damaged_compressed_metadata_are_refused(tree, tmp_path):
    whole, source = gzip.compress((tree.folder / "sage_meta/uploads.ndjson").read_bytes()), tmp_path / "a.ndjson.gz"
    for content in (whole[:-20], whole[:30] + bytes(20) + whole[50:]):
        source.write_bytes(content)
        with pytest.raises(InputError, match="the compressed file is truncated or damaged"):
            run(source, tree.folder)


def test_every_fault_is_reported_by_name_and_nothing_else_is_lost(faulty):
    result = run(faulty.folder, faulty.folder)
    findings = {str(finding.file.relative_to(faulty.folder)): finding for finding in result.findings}
    rows = csv.DictReader((faulty.folder / "faults.csv").read_text().splitlines())
    listed = {row["fault"]: row["file"] for row in rows}
    assert set(listed) == {name for name, _ in FAULTS} == set(DETAILS)
    for fault, (kind, words) in DETAILS.items():
        assert findings[listed[fault]].kind == kind
        assert words in findings[listed[fault]].detail
    lost = [fault for fault, (kind, _) in DETAILS.items() if kind in (discover.DAMAGED, discover.ORPHAN)]
    assert len(result.pairs) == faulty.deployment.count - len(lost)
    partners = [finding for finding in result.findings if finding.detail.endswith("is damaged")]
    others = {path for path, finding in findings.items() if finding.kind != discover.IGNORED}
    assert len(others) == len(partners) + sum(kind != discover.IGNORED for kind, _ in DETAILS.values())


def test_strict_refuses_what_is_damaged(faulty):
    with pytest.raises(InputError, match="damaged"):
        run(faulty.folder, faulty.folder, strict=True)


def test_images_of_another_size_are_pairs(tree, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tree.folder, folder)
    path = folder.joinpath(*tree.paths(tree.deployment.shot(2))[0].parts)
    path.write_bytes(simplejpeg.encode_jpeg(np.zeros((48, 72, 3), np.uint8)))
    result = run(folder, folder)
    assert keys(result) == shots(tree)
    assert sorted((p.rgb_height, p.rgb_width) for p in result.pairs)[0] == (48, 72)


def image(name: str, vsn: str = "W056", folder: str = "") -> discover.ImageFile:
    frame = names.read(name)
    assert isinstance(frame, names.Frame)
    return discover.ImageFile(Path(folder, name), vsn, frame)


def test_a_nanosecond_another_node_or_position_is_another_frame():
    thermal = image("1683676800385719968-x.thermal.celsius_position1.csv")
    for jpg in (
        image("1683676800385719969-6144x2048_position1.jpg"),
        image("1683676800385719968-6144x2048_position1.jpg", vsn="W02D"),
        image("1683676800385719968-6144x2048_position5.jpg"),
    ):
        matches, findings = match([jpg, thermal])
        assert not matches
        assert [finding.kind for finding in findings] == [discover.ORPHAN] * 2
    assert len(match([image("1683676800385719968-6144x2048_position1.jpg"), thermal])[0]) == 1


def test_a_tolerance_matches_the_nearest_of_what_is_left():
    second = 10**9
    thermals = [image(f"{time}-x.thermal.celsius.csv") for time in (10**18, 10**18 + 5 * second)]
    jpgs = [image(f"{time}-6144x2048.jpg") for time in (10**18 + second, 10**18 + 4 * second, 10**18 + 30 * second)]
    matches, findings = match([*thermals, *jpgs], 10 * second)
    assert [(m.rgb, m.thermal) for m in matches] == [(jpgs[0], thermals[0]), (jpgs[1], thermals[1])]
    assert [finding.file for finding in findings] == [jpgs[2].path]
    assert not match([*thermals, *jpgs])[0]


def test_only_sky_pointings_are_kept_unless_all_are_asked_for(tmp_path):
    text = b"a;1\n\n" + b"\n".join(b";".join([b"6.29"] * 8) for _ in range(8))
    for position in (1, 2, 5):
        folder = tmp_path / "W056"
        folder.mkdir(exist_ok=True)
        stem = f"168367680038571996{position}"
        (folder / f"{stem}-6144x2048_position{position}.jpg").write_bytes(
            simplejpeg.encode_jpeg(np.zeros((16, 24, 3), np.uint8))
        )
        (folder / f"{stem}-x.thermal.celsius_position{position}.csv").write_bytes(text)
    table = tmp_path / "nodes.csv"
    table.write_text("vsn,latitude,longitude,south_preset\nW056,41,-88,1\n")
    assert [found.position for found in run(tmp_path / "W056", tmp_path).pairs] == [1, 5]
    assert [found.pointing for found in run(tmp_path / "W056", tmp_path, pointings="all").pairs] == ["SS", "SH", "SWS"]
    table.write_text("vsn,latitude,longitude,south_preset\nW056,41,-88,5\n")  # the first column looks to the south-east
    assert [found.pointing for found in run(tmp_path / "W056", tmp_path).pairs] == ["SES", "SS"]


def test_the_place_of_a_node_is_known_only_while_its_row_is_valid():
    table = Nodes([Node("W056", "", 1.0, 2.0, valid=(0, 10))])
    assert table.at("W056", 9) is not None
    assert table.at("W056", 10) is None
    assert ALWAYS[0] < 0 < ALWAYS[1]


def test_an_index_is_read_back(tree, tmp_path):
    pairs = run(tree.folder, tree.folder).pairs
    (tmp_path / "there").mkdir()
    write_index(pairs, tmp_path / "there/index.csv")
    again = read_index(tmp_path / "there/index.csv")
    assert [(p.time, p.vsn, p.position, p.is_counts) for p in again] == [
        (p.time, p.vsn, p.position, p.is_counts) for p in pairs
    ]
    assert all(one.rgb.samefile(other.rgb) for one, other in zip(again, pairs, strict=True))
    assert str(tree.folder) not in (tmp_path / "there/index.csv").read_text()
    for text in ("", "time,vsn\n", (tmp_path / "there/index.csv").read_text().replace("W056", "W056,x")):
        (tmp_path / "wrong.csv").write_text(text)
        with pytest.raises(InputError):
            read_index(tmp_path / "wrong.csv")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"width;9\nheight;8\n\n1;2;3\n", "too few values"), (b"sensor;right\n" * 20, "no temperatures"),
        (b"1;2\n3;4\n", "not a thermal image"), (b"width;x\n\n", "not a thermal image"),
        (b"\xff\xd8\xff", "not a thermal"),
    ],
)  # fmt: skip
def test_a_file_without_temperatures_is_refused_with_a_reason(content, what):
    with pytest.raises(decode.UnreadableFile, match=what):
        decode.read_thermal(content)


def test_temperatures_without_a_header_are_read():
    numbers = np.arange(6400, 6400 + 8 * 10, dtype=np.uint16).reshape(8, 10)
    text = "\n".join(";".join(f"{n / 25 - 273.15:.6g}" for n in row) for row in numbers.tolist())
    assert np.array_equal(decode.read_thermal(text.encode()).counts, numbers)


def test_the_command_writes_index_report_and_workbook(faulty, tmp_path):
    arguments = ("pair", faulty.folder, "--nodes", faulty.folder / "nodes.csv", "--output", tmp_path / "1.csv")
    call(*arguments, "--report", tmp_path / "report.csv", "--workbook", tmp_path / "report.xlsx")
    rows = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    book = openpyxl.load_workbook(tmp_path / "report.xlsx", read_only=True)
    assert tuple(rows[0]) == FileFinding._fields
    assert book.sheetnames == ["summary", "files in no pair", "pairs"]
    assert len(list(book["files in no pair"].rows)) == len(rows) + 1
    assert len(list(book["pairs"].rows)) == len(read_index(tmp_path / "1.csv")) + 1
    assert dict(row for row in book["summary"].values)["pairs"] == len(read_index(tmp_path / "1.csv"))
    book.close()
    with pytest.raises(StorageError):
        call(*arguments)


@pytest.mark.parametrize(
    ("source", "nodes"), [("nowhere", "nodes.csv"), (".", "nowhere.csv"), ("sage_meta", "nodes.csv")]
)
def test_a_wrong_campaign_is_refused(tree, tmp_path, source, nodes):
    with pytest.raises(InputError):
        call("pair", tree.folder / source, "--nodes", tree.folder / nodes, "--output", tmp_path / "index.csv")
