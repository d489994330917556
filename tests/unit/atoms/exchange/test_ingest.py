"""Importing files of other programs: all contents arrive, and errors are reported."""

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from atoms_data import contents, metals, opened
from scimill.atoms.database.admission import Admission
from scimill.atoms.database.database import Database
from scimill.atoms.exchange import ingest
from scimill.atoms.exchange.properties import Properties
from scimill.atoms.exchange.serial_ase import connect
from scimill.errors import InputError

HARTREE = 27.211386245981  # eV, CODATA 2022


def bring(path, *files, properties=None, **more):
    with opened(path, **more) as database:
        return ingest.import_files(database, files, Properties(properties), piece_rows=3)


def energies(path):
    """Energies of all structures by their ids."""
    with opened(path) as database:
        database.compress_dataset()
        blocks = [columns for _, _, columns in database.blocks(["uid", "energy"])]
    return {uid.decode(): value for c in blocks for uid, value in zip(c["uid"], c["energy"], strict=True)}


def as_xyz(path, structures):
    ase.io.write(path, structures, format="extxyz")


def as_db(path, structures):
    with connect(path) as database:
        for atoms in structures:
            database.write(atoms)


@pytest.mark.parametrize(("name", "write"), [("a.xyz", as_xyz), ("a.db", as_db), ("a.json", as_db)])
def test_what_ase_has_written_arrives(tmp_path, name, write):
    structures = metals(8)
    write(tmp_path / name, structures)
    assert bring(tmp_path / "db", tmp_path / name).added == 8
    found = sorted(energies(tmp_path / "db").values())
    assert found == pytest.approx(sorted(atoms.get_potential_energy() for atoms in structures), abs=1e-8)
    with Database(tmp_path / "db") as database:
        assert set(database.groups) == {atoms.get_chemical_formula() for atoms in structures}
        for group in database.groups:
            assert np.isfinite(database.read(group, ["forces"])["forces"]).all()


def test_alf_files_arrive_in_the_given_units(tmp_path):
    stream = np.random.default_rng(1)
    with h5py.File(tmp_path / "data-0000.h5", "w") as file:
        for name, symbols in (("H02_O01", ["H", "H", "O"]), ("Al28", ["Al"] * 28)):
            group = file.create_group(name)
            group["species"] = np.array(symbols, dtype="S2")
            group["_id"] = np.array([f"mol-{name}-{n:010d}" for n in range(5)], dtype="S")
            group["coordinates"] = stream.uniform(0, 5, (5, len(symbols), 3))
            group["energy"] = np.arange(5.0)
            group["forces"] = np.ones((5, len(symbols), 3))
            group["hirshfeld"] = np.full((5, len(symbols)), 0.5)
            group["other"] = np.zeros(5)
    properties = {
        "energy": "energy:Hartree", "forces": "forces:Hartree/Bohr", "coordinates": "coordinates:Bohr",
        "hirshfeld": "hirshfeld:e:atomic",
    }  # fmt: skip
    done = bring(tmp_path / "db", tmp_path / "data-0000.h5", properties=properties)
    assert (done.added, done.ignored) == (10, ("other",))
    assert energies(tmp_path / "db")["mol-Al28-0000000003"] == pytest.approx(3 * HARTREE)
    with Database(tmp_path / "db") as database, h5py.File(tmp_path / "data-0000.h5") as file:
        rows = database.read("H2O")
        assert np.allclose(rows["coordinates"], file["H02_O01/coordinates"][()] * 0.529177210544, rtol=1e-12)
        assert np.allclose(rows["forces"], HARTREE / 0.529177210544, rtol=1e-12)
        assert (rows["hirshfeld"] == 0.5).all()


def padded():
    """hippynn's arrays: water and hydrogen, padded with species 0."""
    species = np.array([[8, 1, 1], [1, 1, 0], [8, 1, 1], [1, 1, 0]])
    coordinates = np.random.default_rng(1).uniform(0, 5, (4, 3, 3)) * (species[..., None] > 0)
    return {
        "species": species, "coordinates": coordinates, "energy": np.arange(4.0),
        "forces": coordinates * 2, "uid": np.array(["a", "b", "c", "d"]),
    }  # fmt: skip


@pytest.mark.parametrize("form", ["stored", "packed", "folder"])
def test_padded_arrays_of_numpy_arrive(tmp_path, form):
    arrays, path = padded(), tmp_path / "set.npz"
    if form == "folder":
        path = tmp_path / "set"
        path.mkdir()
        for name, values in arrays.items():
            np.save(path / f"data-{name}.npy", values)
    else:
        (np.savez if form == "stored" else np.savez_compressed)(path, **arrays)
    assert bring(tmp_path / "db", path).added == 4
    assert energies(tmp_path / "db") == {"a": 0, "b": 1, "c": 2, "d": 3}
    with Database(tmp_path / "db") as database:
        assert database.groups == {"H2O": 2, "H2": 2}
        rows = database.read("H2O")
        assert np.array_equal(rows["forces"], 2 * rows["coordinates"])
        assert np.array_equal(rows["coordinates"], arrays["coordinates"][[0, 2]][:, [1, 2, 0]])


def test_ids_kinds_and_the_test_mark_arrive_from_extended_xyz(tmp_path):
    atoms = Atoms("OH2", positions=np.eye(3), info={"uid": "mine", "test": True, "config_type": "gas", "charge": 1})
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, dipole=np.array([0.0, 0.5, 0.0]))
    as_xyz(tmp_path / "a.xyz", [atoms])
    bring(tmp_path / "db", tmp_path / "a.xyz")
    with Database(tmp_path / "db") as database:
        (batch,) = database.uncompressed()
    row = {name: values[0].tolist() for name, values in batch.columns.items()}
    assert (row["uid"], row["test"], row["config_type"], row["charge"]) == (b"mine", 1, b"gas", 1.0)
    assert row["dipole"] == [0, 0.5, 0]
    assert "forces" not in row


GOOD = '2\nProperties=species:S:1:pos:R:3 energy={} pbc="F F F"\nH 0 0 0\nH 0 0 1\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no structures"),
        ("hello\n", "frame 0 begins with 'hello'"),
        (GOOD.format(1) + "2\nProperties=species:S:1:pos:R:3\nH 0 0 0\n", "frame 1 is incomplete"),
        (GOOD.format(1) + GOOD.format(2).replace("H 0 0 1", "H 0 0"), "frame 1: "),
        (GOOD.format(1) + GOOD.format(2).replace("H 0 0 1", "Qq 0 0 1"), "frame 1: "),
        (GOOD.format(1) + GOOD.format("nan"), "NaN or infinity in energy"),
        (GOOD.format('1 uid="x"') + GOOD.format('2 uid="x"'), "id 'x' already exists"),
        (GOOD.format(1).replace("H 0 0 1", "H 0 0 nan"), "NaN or infinity in coordinates"),
        ("0\nProperties=species:S:1:pos:R:3\n", "wrong shape of species"),
    ],
)
def test_a_broken_file_is_refused_and_nothing_is_imported(tmp_path, text, message):
    as_xyz(tmp_path / "good.xyz", metals(4))
    bring(tmp_path / "db", tmp_path / "good.xyz")
    before = state(tmp_path / "db")
    (tmp_path / "bad.xyz").write_text(text)
    files = [tmp_path / "bad.xyz"] if not text else [tmp_path / "good.xyz", tmp_path / "bad.xyz"]
    with pytest.raises(InputError) as failure:
        bring(tmp_path / "db", *files)
    assert message in str(failure.value)
    assert state(tmp_path / "db") == before


def state(path):
    with Database(path) as database:
        return contents(database)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.create_dataset("cell", data=np.zeros((2, 3, 3))), "cell has shape (2, 3, 3) for 3 structures"),
        (lambda g: g.pop("coordinates"), "has shape (3,) for 0 structures"),
        (lambda g: (g.pop("coordinates"), g.pop("energy")), "the group is empty"),
        (lambda g: g.pop("species"), "cannot read the file"),
    ],
)
def test_a_broken_alf_file_is_refused(tmp_path, change, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("H02")
        group["species"] = np.array(["H", "H"], dtype="S2")
        group["coordinates"] = np.zeros((3, 2, 3))
        group["energy"] = np.zeros(3)
        change(group)
    with pytest.raises(InputError) as failure:
        bring(tmp_path / "db", tmp_path / "a.h5")
    assert message in str(failure.value)


@pytest.mark.parametrize("name", ["a.h5", "a.db", "a.npz", "a.json"])
def test_noise_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(np.random.default_rng(1).bytes(5000))
    with pytest.raises(InputError):
        bring(tmp_path / "db", tmp_path / name)


def test_unknown_and_missing_files_are_refused(tmp_path):
    (tmp_path / "a.doc").touch()
    for name, message in (("a.doc", "unknown file format"), ("none.xyz", "no such file")):
        with pytest.raises(InputError, match=message):
            bring(tmp_path / "db", tmp_path / name)


def test_a_failed_import_leaves_no_new_database_behind(tmp_path):
    """But it leaves what it has not made: an empty folder, and files of others."""
    (tmp_path / "bad.xyz").write_text(GOOD.format(1) + GOOD.format(2).replace("H 0 0 1", "H 0 0"))
    (tmp_path / "folder").mkdir()
    for name in ("db", "folder"):
        with pytest.raises(InputError, match="frame 1"):
            bring(tmp_path / name, tmp_path / "bad.xyz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.xyz", "folder"]


def test_duplicates_are_skipped_across_pieces(tmp_path):
    as_xyz(tmp_path / "a.xyz", metals(8) + metals(10))
    done = bring(tmp_path / "db", tmp_path / "a.xyz", admission=Admission(duplicates="skip"))
    assert (done.added, done.skipped) == (10, 8)
    assert len(energies(tmp_path / "db")) == 10
    done = bring(tmp_path / "db", tmp_path / "a.xyz", admission=Admission(duplicates="skip"))
    assert (done.added, done.skipped) == (0, 18)
    with pytest.raises(InputError, match="18 geometries"):
        bring(tmp_path / "db", tmp_path / "a.xyz", admission=Admission(duplicates="refuse"))


def test_files_are_added_one_by_one_up_to_the_one_that_is_refused(tmp_path):
    as_xyz(tmp_path / "a.xyz", metals(4))
    (tmp_path / "bad.xyz").write_text(GOOD.format("nan"))
    with opened(tmp_path / "db") as database, pytest.raises(InputError, match="NaN"):
        list(ingest.add_files(database, [tmp_path / "a.xyz", tmp_path / "bad.xyz"], Properties()))
    assert len(state(tmp_path / "db")) == 4
