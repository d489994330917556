"""Reductions and caches: what they select and write, and that every format can be read back unchanged."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoms_data import fill, metals, opened
from scimill.atoms.database import caches
from scimill.atoms.database.database import Database
from scimill.atoms.exchange import ingest
from scimill.atoms.exchange.properties import Properties
from scimill.atoms.exchange.serial_ase import ase
from scimill.errors import ConfigError, InputError, StorageError


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A database of 30 crystals of six compositions, 4 of them test data, and 3 uncompressed ones."""
    folder = tmp_path_factory.mktemp("filled")
    structures = metals(33)
    for number in (0, 7, 8, 20):
        structures[number].info["test"] = True
    ase.io.write(folder / "metals.xyz", structures[:30], format="extxyz")
    ase.io.write(folder / "more.xyz", structures[30:], format="extxyz")
    with opened(folder / "db") as database:
        ingest.import_files(database, [folder / "metals.xyz"], Properties())
        database.compress_dataset()
        ingest.import_files(database, [folder / "more.xyz"], Properties())
        database.create_reduction("half", fraction=0.5, seed=3)
    return folder / "db"


@pytest.fixture
def database(filled):
    with Database(filled) as opened_:
        yield opened_


def test_a_reduction_draws_its_share_and_never_test_data(database):
    reduction = database.reduction("half")
    trained = sum(int((values == 1).sum()) for values in reduction.index.values())
    assert trained == reduction.attributes["n_added"] == 13
    for group, values in reduction.index.items():
        test = database.read(group, ["test"])["test"]
        assert not values[test != 0].any()
    assert database.reductions.names() == ["half"]
    assert not database.reductions.is_complete("half")


def test_a_draw_depends_on_the_seed(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "db")
    with Database(tmp_path / "db") as database:
        same = database.create_reduction("same", number=13, seed=3).index
        other = database.create_reduction("other", number=13, seed=4).index
        known = database.reduction("half").index
    assert all(np.array_equal(same[group], known[group]) for group in known)
    assert any(not np.array_equal(other[group], known[group]) for group in known)


def test_wrong_reductions_are_refused(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "db")
    with Database(tmp_path / "db") as database:
        group = next(iter(database.groups))
        for arguments, error, message in (
            ({"name": "half", "fraction": 0.1}, InputError, "already exists"),
            ({"name": "a/b", "fraction": 0.1}, ConfigError, "invalid reduction name"),
            ({"name": "a"}, ConfigError, "fraction, a number or a mask"),
            ({"name": "a", "number": 27}, ConfigError, "cannot draw"),
            ({"name": "a", "fraction": 1.5}, ConfigError, "cannot draw"),
            ({"name": "a", "mask": {group: [1] * 99}}, InputError, "the mask has shape"),
            ({"name": "a", "mask": {group: [-2]}}, InputError, "the mask has shape"),
            ({"name": "a", "mask": {"Qq": [1]}}, InputError, "the mask has shape"),
        ):
            with pytest.raises(error, match=message):
                database.create_reduction(**arguments)
        with pytest.raises(InputError, match="no reduction 'none'"):
            database.reduction("none")
        with pytest.raises(InputError, match="no iteration 5"):
            database.reduction("half", 5)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=4), data=st.data())
def test_every_index_is_recovered_after_later_compressions(tmp_path_factory, counts, data):
    path = tmp_path_factory.mktemp("a") / "db"
    expected, total = {}, 0
    for number, count in enumerate(counts):
        with opened(path) as database:
            ids = fill(database, count, atoms=1 + number % 2, seed=number)
            assert len(ids) == count
            database.compress_dataset()
            total += count
            values = {
                group: np.array(data.draw(st.lists(st.integers(-1, 3), max_size=rows)), dtype=np.int8)
                for group, rows in database.groups.items()
            }
            database.create_reduction(f"r{number}", mask=values)
            chosen = database.select(f"r{number}").ids.tolist()
            expected[f"r{number}"] = values, chosen
    with Database(path) as database:
        assert sum(database.groups.values()) == total
        for name, (values, chosen) in expected.items():
            reduction = database.reduction(name)
            for group, rows in database.groups.items():
                index = reduction.index_for(group, rows)
                known = values.get(group, np.zeros(0))
                assert np.array_equal(index[: len(known)], known)
                assert not index[len(known) :].any()
            assert database.select(name).ids.tolist() == chosen


def test_selections(database):
    count = {name: len(database.select("half", select=name).ids) for name in ("train", "unused", "test", "all")}
    assert count == {"train": 13, "unused": 13, "test": 4, "all": 30}
    assert len(database.select("half", select="unused", use_uncompressed_data=True).ids) == 16
    assert len(database.select("half", use_uncompressed_data=True).ids) == 13
    assert len(database.select(None).ids) == 26
    assert len(database.select(None, use_uncompressed_data=True).ids) == 29


CUT = (0.6, 0.2, 4)


@pytest.mark.parametrize("form", ["h5", "npz", "npy", "extxyz", "ase-db"])
def test_every_format_comes_back(database, tmp_path, form):
    name = {"h5": "set.h5", "npz": "set.npz", "npy": "set", "extxyz": "set.xyz", "ase-db": "set.db"}[form]
    chosen = database.select(None, select="all", use_uncompressed_data=True)
    assert caches.export(chosen, tmp_path / name, form, overwrite=False) == 33
    with pytest.raises(StorageError, match="the output already exists"):
        caches.export(chosen, tmp_path / name, form, overwrite=False)
    assert caches.export(chosen, tmp_path / name, form, overwrite=True) == 33
    with opened(tmp_path / "again") as again:
        ingest.import_files(again, [tmp_path / name], Properties())
        again.compress_dataset()
        compare(database, again, 1e-8 if form == "extxyz" else 0)  # ASE writes 8 digits of coordinates and forces
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith((".part", ".new", ".parts"))] == []


def compare(here: Database, there: Database, tolerance: float) -> None:
    """Compare structures by id: the labels are equal, and missing ones stay missing."""
    first, second = rows_by_id(here), rows_by_id(there)
    assert first.keys() == second.keys()
    for uid, (group, row) in first.items():
        other_group, other = second[uid]
        assert other_group == group
        for name in ("coordinates", "cell", "pbc", "energy", "forces", "stress"):
            assert np.allclose(row[name], other[name], rtol=0, atol=tolerance, equal_nan=True), name


def rows_by_id(database):
    found = {}
    blocks = [(group, columns) for group, _, columns in database.blocks()]
    blocks += [(batch.group, batch.columns) for batch in database.uncompressed()]
    for group, columns in blocks:
        for row, uid in enumerate(columns["uid"].tolist()):
            found[uid] = group, {name: values[row] for name, values in columns.items()}
    return found


def test_caches_in_memory_and_on_disk_are_the_same(database, tmp_path):
    direct = database.build_strided_train_cache(None, "half", *CUT, seed=9, return_direct=True)
    sizes = database.build_strided_train_cache(tmp_path / "out", "half", *CUT, seed=9, format="json")
    assert sizes == [{kind: sum(len(g["uid"]) for g in m[kind].values()) for kind in m} for m in direct]
    everything = database.select("half").ids.tolist()
    seen = []
    for number, member in enumerate(direct):
        for kind, groups in member.items():
            stored = json.loads((tmp_path / "out" / f"member-{number}" / f"{kind}.json").read_text())
            assert stored.keys() == groups.keys()
            for group, columns in groups.items():
                assert np.array_equal(stored[group]["coordinates"], columns["coordinates"])
                assert stored[group]["path"] == [path.decode() for path in columns["path"]]
                for uid, path in zip(columns["uid"].tolist(), columns["path"].tolist(), strict=True):
                    assert database.find(uid.decode()) == path.decode()
        ids = {kind: {u for g in groups.values() for u in g["uid"].tolist()} for kind, groups in member.items()}
        assert not ids["train"] & ids["valid"]
        assert ids["train"] | ids["valid"] <= set(everything)
        seen += ids["valid"]
    assert len(seen) == len(set(seen))


def test_the_manifest_says_what_the_caches_are(database, tmp_path):
    database.build_strided_train_cache(tmp_path / "out", "half", *CUT, seed=9, format="index")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["reduction"], manifest["iteration"], manifest["seed"], manifest["format"]) == (
        "half",
        0,
        9,
        "index",
    )
    assert manifest["units"]["energy"] == "eV"
    assert {part["rows"] for part in manifest["members"] if part["part"] == "train"} <= {7, 8}  # 0.6 of 13
    assert {part["rows"] for part in manifest["members"] if part["part"] == "valid"} <= {2, 3}
    with np.load(tmp_path / "out" / "member-0" / "train.npz") as rows:
        index = database.reduction("half").index
        assert sum(len(rows[group]) for group in rows) == manifest["members"][0]["rows"]
        assert all((index[group][rows[group]] == 1).all() for group in rows)


def test_an_output_is_replaced_only_where_that_is_said(database, tmp_path):
    arguments = (tmp_path / "out", "half", *CUT)
    database.build_strided_train_cache(*arguments)
    with pytest.raises(StorageError, match="the output already exists"):
        database.build_strided_train_cache(*arguments)
    database.build_strided_train_cache(*arguments, format="npy", overwrite=True)
    assert {path.name for path in (tmp_path / "out" / "member-0").iterdir()} == {"train", "valid"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("half", 0.8, 0.3), ConfigError, "add up to at most 1"),
        (("half", -0.1, 0.3), ConfigError, "fractions of at least 0"),
        (("half", 0.5, 0.3, 0), ConfigError, "n_caches = 0"),
        (("half", 0.5, 0.3, 2, False, "zarr"), ConfigError, "unknown format"),
        (("none", 0.5, 0.3), InputError, "no reduction"),
    ],
)
def test_wrong_caches_are_refused(database, tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        database.build_strided_train_cache(tmp_path / "out", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_nothing_selected_is_said(database, tmp_path):
    with pytest.raises(InputError, match="selects no structures"):
        database.build_strided_train_cache(tmp_path / "out", "half", 0.5, 0.5, select="anomalous")
    with pytest.raises(ConfigError, match="need a directory"):
        database.build_strided_train_cache(None, "half", 0.5, 0.5)
