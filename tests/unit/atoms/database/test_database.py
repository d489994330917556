"""The database: structures are read back unchanged and in order, and wrong ones are refused."""

import os

import numpy as np
import pytest
from ase.collections import dcdft, g2, s22
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoms_data import contents, fill, metals, opened
from scimill.atoms.database.admission import Admission
from scimill.atoms.database.database import Database
from scimill.atoms.exchange.properties import Properties
from scimill.atoms.exchange.sources import from_atoms
from scimill.errors import ConfigError, InputError, StorageError


def add_atoms(database, structures):
    """Add ASE structures; return their ids."""
    properties = Properties({"magmom": "net_magmom:1:system:1"})
    for column in properties.user_columns:
        database.define(column.name, column.units, column.of, column.shape)
    found = []
    for atoms in structures:
        rows = from_atoms(atoms, properties)
        arguments = {"cell": rows.cell, "pbc": rows.pbc, "uid": rows.uid, "test": rows.test, "labels": rows.labels}
        found += database.add_checked(database.batch(rows.species, rows.coordinates, **arguments))
    return found


def test_a_structure_comes_out_as_it_went_in(tmp_path):
    with opened(tmp_path / "db") as database:
        uid = database.add(["O", "H", "O", "H"], np.arange(12).reshape(4, 3), energy=-3.5, charges=[1, 2, 3, 4])
        database.refresh()
        assert database.find(uid) == f"Uncompressed_data/{uid}"
        assert database.compress_dataset() == {"H2O2": 1}
        assert database.find(uid) == "Compressed_data/H2O2/0"
        row = {name: values[0] for name, values in database.read("H2O2").items()}
    assert row["energy"] == -3.5
    assert row["permutation"].tolist() == [1, 3, 0, 2]
    assert row["coordinates"][:, 0].tolist() == [3, 9, 0, 6]
    assert row["charges"].tolist() == [2, 4, 1, 3]
    assert not row["pbc"].any()
    assert row["uid"] == uid.encode()
    assert "forces" not in row


@pytest.mark.parametrize("collection", [g2, s22, dcdft], ids=["g2", "s22", "dcdft"])
def test_ase_collections_go_round(tmp_path, collection):
    structures = [collection[name] for name in collection.names[:: 1 + len(collection.names) // 40]]
    with opened(tmp_path / "db") as database:
        ids = add_atoms(database, structures)
        database.compress_dataset()
        assert set(database.groups) == {atoms.get_chemical_formula() for atoms in structures}
        rows = {uid: row for group in database.groups for uid, row in by_id(database, group)}
    for uid, atoms in zip(ids, structures, strict=True):
        row = rows[uid.encode()]
        restored = np.empty_like(row["coordinates"])
        restored[row["permutation"]] = row["coordinates"]
        assert np.array_equal(restored, atoms.positions)
        assert np.array_equal(row["cell"], atoms.cell.array)
        assert np.array_equal(row["pbc"], atoms.pbc)


def by_id(database, group):
    columns = database.read(group)
    for row, uid in enumerate(columns["uid"].tolist()):
        yield uid, {name: values[row] for name, values in columns.items()}


def test_a_missing_value_is_not_zero(tmp_path):
    with opened(tmp_path / "db") as database:
        database.define("gap", "eV")
        database.define("note", "1", text=True)
        database.add(["Al"], [[0, 0, 0]], energy=0.0)
        database.compress_dataset()
        database.add(["Al"], [[1, 0, 0]], charge=1.0, gap=2.0, note="band")
        database.add(["Al"], [[2, 0, 0]], energy=5.0, spin=2.0)
        database.compress_dataset()
        rows = database.read("Al", ["energy", "charge", "gap", "note", "spin"])
        assert rows["energy"].tolist()[::2] == [0.0, 5.0]
        assert np.isnan(rows["energy"][1])
        assert np.array_equal(rows["charge"], [np.nan, 1.0, np.nan], equal_nan=True)
        assert np.array_equal(rows["gap"], [np.nan, 2.0, np.nan], equal_nan=True)
        assert rows["note"].tolist() == [b"", b"band", b""]
    with Database(tmp_path / "db") as database:
        assert database.columns["gap"].units == "eV"
        assert database.columns["forces"].units == "eV/Å"


OPERATIONS = st.lists(st.one_of(st.integers(1, 9), st.just("compress"), st.just("reopen")), max_size=12)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS, seed=st.integers(0, 9))
def test_rows_keep_their_place_whatever_comes_later(tmp_path_factory, operations, seed):
    path = tmp_path_factory.mktemp("a") / "db"
    stream, expected = np.random.default_rng(seed), {"Al2": [], "AlCu": []}
    database = Database(path, write=True)
    for operation in operations:
        if operation == "compress":
            database.compress_dataset()
        elif operation == "reopen":
            database.close()
            database = Database(path, write=True)
        else:
            for _ in range(operation):
                group = ("Al2", "AlCu")[stream.integers(2)]
                expected[group].append(float(sum(map(len, expected.values()))))
                species = ["Al", "Al"] if group == "Al2" else ["Cu", "Al"]
                database.add(species, stream.uniform(0, 9, (2, 3)), energy=expected[group][-1])
    database.refresh()
    assert database.rows() == sum(map(len, expected.values()))
    database.compress_dataset()
    for group, energies in expected.items():
        if energies:
            assert database.read(group, ["energy"])["energy"].tolist() == energies
    database.close()


def test_a_batch_is_cut_into_records_and_read_in_blocks(tmp_path):
    coordinates = np.random.default_rng(1).uniform(0, 9, (4000, 60, 3))
    with opened(tmp_path / "db") as database:
        database.add_batch(np.full(60, 13), coordinates, energy=np.arange(4000.0))
        database.refresh()
        assert len(database.snapshot.journals[0].index.kinds) > 1
        database.compress_dataset()
        parts = [columns["energy"] for _, _, columns in database.blocks(["energy"], rows=999)]
        assert np.array_equal(np.concatenate(parts), np.arange(4000.0))
        assert np.array_equal(database.read("Al60", ["coordinates"], 10, 20)["coordinates"], coordinates[10:20])


def test_readers_go_on_while_a_writer_adds_and_compresses(tmp_path):
    with opened(tmp_path / "db") as writer:
        fill(writer, 5)
        with Database(tmp_path / "db") as reader:
            before = contents(reader)
            assert len(before) == 5
            writer.compress_dataset()
            fill(writer, 3, seed=2)
            assert contents(reader) == before
            reader.refresh()
            after = contents(reader)
            assert len(after) == 8
            assert {uid: after[uid] for uid in before} == before


def test_a_second_writer_is_refused_and_the_message_names_the_first(tmp_path):
    with opened(tmp_path / "db"), pytest.raises(StorageError, match=f"process {os.getpid()} on "):
        Database(tmp_path / "db", write=True)
    Database(tmp_path / "db", write=True).close()


def test_a_reader_does_not_write(tmp_path):
    with opened(tmp_path / "db") as database:
        fill(database, 1)
    with Database(tmp_path / "db") as database:
        for change in (lambda: fill(database, 1, seed=2), database.compress_dataset):
            with pytest.raises(StorageError, match="reading only"):
                change()


def test_test_rows_are_a_share_and_duplicates_fall_on_one_side(tmp_path):
    coordinates = np.random.default_rng(1).uniform(0, 9, (1000, 2, 3))
    with opened(tmp_path / "db", admission=Admission(test_fraction=0.3, seed=5)) as database:
        for _ in range(2):
            database.add_batch(["Al", "Al"], coordinates)
        database.compress_dataset()
        test = database.read("Al2", ["test"])["test"]
    assert np.array_equal(test[:1000], test[1000:])
    assert test.mean() == pytest.approx(0.3, abs=0.06)


def test_duplicates_are_kept_skipped_or_refused(tmp_path):
    def again(rule):
        with opened(tmp_path / "db", admission=Admission(duplicates=rule)) as database:
            added = database.add_batch(["Al"], [[[0, 0, 0]], [[1, 0, 0]], [[1, 0, 2e-5]]])
            database.refresh()
            return len(added), sorted(len(ids) for ids in database.duplicates())

    assert again("skip") == (2, [])
    assert again("skip") == (0, [])
    assert again("keep") == (3, [2, 3])
    with pytest.raises(InputError, match="already in the database: 3 geometries"):
        again("refuse")


STRUCTURE = {"species": ["Al", "O"], "coordinates": np.arange(6.0).reshape(2, 3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"species": ["Al", "Qq"]}, "unknown element 'Qq'"),
        ({"species": [13, 0]}, "unknown element 0"),
        ({"species": [13, 119]}, "unknown element 119"),
        ({"species": [], "coordinates": np.zeros((0, 3))}, "wrong shape of species"),
        ({"coordinates": np.zeros((3, 3))}, "shape"),
        ({"coordinates": [[0, 0, np.nan], [1, 1, 1]]}, "NaN or infinity in coordinates"),
        ({"coordinates": [["a", 0, 0], [1, 1, 1]]}, "expected numbers in coordinates"),
        ({"cell": np.zeros(3)}, "shape"),
        ({"energy": np.nan}, "NaN or infinity in energy"),
        ({"energy": "low"}, "expected a number for energy"),
        ({"forces": np.zeros((3, 3))}, "shape"),
        ({"gap": 1.0}, "unknown property 'gap'"),
        ({"uid": "x" * 33}, "1 id of up to 33 bytes"),
        ({"uid": "first"}, "'first' already exists"),
        ({"config_type": "x" * 65}, "longer than 64 bytes"),
    ],
)
def test_a_wrong_structure_is_refused_and_nothing_changes(tmp_path, change, message):
    with opened(tmp_path / "db") as database:
        database.add(**STRUCTURE, uid="first")
        with pytest.raises(InputError, match=message):
            database.add(**{**STRUCTURE, **change})
        database.refresh()
        assert database.rows() == 1


def test_nan_is_missing_where_that_is_said(tmp_path):
    with opened(tmp_path / "db", admission=Admission(missing=True)) as database:
        database.add(**STRUCTURE, energy=np.nan)
        with pytest.raises(InputError, match="infinity"):
            database.add(**STRUCTURE, energy=np.inf)


def test_a_property_has_one_unit(tmp_path):
    with opened(tmp_path / "db") as database:
        database.define("gap", "eV")
        with pytest.raises(InputError, match="gap is already defined"):
            database.define("gap", "Hartree")
        with pytest.raises(InputError, match="coordinates is already defined"):
            database.define("coordinates", "Å")
        with pytest.raises(ConfigError, match="invalid property name"):
            database.define("band gap", "eV")


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"e": "energy:furlong"}, "unknown unit"),
        ({"e": "energy:Å"}, "different dimensions"),
        ({"e": "energy:eV", "f": "energy:Hartree"}, "two properties map to the column energy"),
        ({"e": "gap"}, "nor a complete declaration"),
    ],
)
def test_wrong_maps_of_properties_are_refused(properties, message):
    with pytest.raises(ConfigError, match=message):
        Properties(properties)


def test_what_is_no_database_is_said(tmp_path):
    with pytest.raises(InputError, match="no atoms database"):
        Database(tmp_path / "none")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(StorageError, match="not a database"):
        Database(tmp_path / "other", write=True)
    with pytest.raises(StorageError, match="does not exist"):
        Database(tmp_path / "a" / "b", write=True)
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "manifest.json").write_text("{")
    with pytest.raises(StorageError, match="manifest is damaged"):
        Database(tmp_path / "db")


def test_metals_have_the_labels_of_emt(tmp_path):
    structures = metals(6)
    with opened(tmp_path / "db") as database:
        ids = add_atoms(database, structures)
        database.compress_dataset()
        rows = {uid: row for group in database.groups for uid, row in by_id(database, group)}
    for uid, atoms in zip(ids, structures, strict=True):
        row = rows[uid.encode()]
        assert row["energy"] == atoms.get_potential_energy()
        assert np.array_equal(row["forces"], atoms.get_forces()[row["permutation"]])
        assert np.array_equal(row["stress"], atoms.get_stress())
