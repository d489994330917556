"""Evaluating and updating: each structure is evaluated and added once, runs restart, stale predictions are refused."""

import shutil

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from atoms_data import metals, opened
from scimill.atoms.database.database import Database
from scimill.atoms.evaluate import FAILED
from scimill.atoms.exchange import ingest
from scimill.atoms.exchange.properties import Properties
from scimill.atoms.exchange.serial_ase import ase
from scimill.errors import ConfigError, InputError


class Shifted(Calculator):
    """EMT shifted by a constant energy per atom, with an error in one atom's force; fails on gold."""

    implemented_properties = ("energy", "forces")
    calls = 0

    def __init__(self, wrong=0.0, fails="Au"):
        super().__init__()
        self._wrong, self._fails = wrong, fails

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        type(self).calls += 1
        if self._fails in atoms.get_chemical_symbols():
            raise ZeroDivisionError("no gold")
        assert atoms.info == {}
        bare = atoms.copy()
        bare.calc = EMT()
        forces = bare.get_forces()
        forces[0, 0] += self._wrong * len(atoms)
        self.results = {"energy": bare.get_potential_energy() + 2.5 * len(atoms), "forces": forces}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled")
    structures = metals(40)
    structures[5].info["test"] = True
    ase.io.write(folder / "metals.xyz", structures, format="extxyz")
    with opened(folder / "db") as database:
        ingest.import_files(database, [folder / "metals.xyz"], Properties())
        database.compress_dataset()
        database.create_reduction("r", number=9)
    return folder / "db"


@pytest.fixture
def path(filled, tmp_path):
    return shutil.copytree(filled, tmp_path / "db")


@pytest.fixture
def database(path):
    with Database(path) as opened_:
        yield opened_


def test_emt_agrees_with_itself(database):
    found = database.ase_evaluate_unused_data("emt", "r")
    assert sum(len(values["rows"]) for values in found.predicted.values()) == 40 - 9 - 1
    assert (found.failed, found.messages) == (0, ())
    for group, values in found.predicted.items():
        assert np.allclose(values["energy"], found.true[group]["energy"], atol=1e-6)
        assert np.allclose(values["forces"], found.true[group]["forces"], atol=1e-6)
        assert not values["deviation"].any()
        for uid, where in zip(values["uid"].tolist(), values["path"], strict=True):
            assert database.find(uid.decode()) == where


def test_failures_are_recorded_and_the_rest_goes_on(database):
    found = database.ase_evaluate_unused_data(Shifted, "r")
    assert found.failed == len(found.messages) > 0
    assert set(found.messages) == {"ZeroDivisionError: no gold"}
    for group, values in found.predicted.items():
        failed = values["status"] == FAILED
        assert failed.all() if "Au" in group else not failed.any()
        assert np.array_equal(np.isnan(values["energy"]), failed)


def test_what_is_evaluated_is_not_evaluated_again(database, path):
    database.ase_evaluate_unused_data(Shifted, "r")
    files = sorted((path / "Data_reductions/r/predictions").glob("*.npy"))
    assert len(files) >= 8
    files[3].unlink()
    before = Shifted.calls
    database.ase_evaluate_unused_data(Shifted, "r")
    assert Shifted.calls - before <= 8
    times = [file.stat().st_mtime_ns for file in files]
    database.ase_evaluate_unused_data("emt", "r")  # another calculator: evaluate everything again
    assert [file.stat().st_mtime_ns for file in files] != times
    assert database.predictions("r").failed == 0


def test_an_unfinished_evaluation_is_no_basis_for_an_update(database, path):
    with pytest.raises(InputError, match="has not been evaluated"):
        database.predictions("r")
    database.ase_evaluate_unused_data("emt", "r")
    next((path / "Data_reductions/r/predictions").glob("*.npy")).unlink()
    with pytest.raises(InputError, match=r"1 of .* blocks"):
        database.predictions("r")


def test_a_committee_deviates(database):
    members = [lambda: Shifted(fails="-"), lambda: Shifted(0.1, fails="-")]
    found = database.ase_evaluate_unused_data(members, "r")
    for group, values in found.predicted.items():
        atoms = ase.Atoms(group)
        assert values["deviation"] == pytest.approx(0.05 * len(atoms))


def test_an_update_excludes_first_and_then_adds_the_worst(database):
    found = database.ase_evaluate_unused_data(lambda: Shifted(0.1, fails="-"), "r")
    done = database.update_data_reductions(
        "r", found.predicted, found.true, 0.25, exclude_high_error=0.6, procedure="highest", score="force"
    )
    # The error is 0.1 per atom: 0.4 for four atoms, 0.8 for eight, which are excluded.
    small = sum(len(v["rows"]) for group, v in found.predicted.items() if len(ase.Atoms(group)) == 4)
    large = sum(len(v["rows"]) for group, v in found.predicted.items() if len(ase.Atoms(group)) == 8)
    assert (done.iteration, done.added, done.excluded, done.complete) == (1, round(small / 4), large, False)
    first, second = database.reduction("r", 0), database.reduction("r")
    for group, rows in database.groups.items():
        before, after = first.index_for(group, rows), second.index_for(group, rows)
        assert (after[before == 1] == 1).all()
        if len(ase.Atoms(group)) == 8:
            test = database.read(group, ["test"])["test"]
            assert (after[(before == 0) & (test == 0)] == -1).all()
            assert (after[test == 1] == 0).all()
        else:
            assert not (after == -1).any()
    assert len(database.select("r").ids) == 9 + done.added


@pytest.mark.parametrize("procedure", ["highest", "random", "farthest", "stratified"])
def test_every_procedure_adds_its_share_once(database, path, procedure):
    found = database.ase_evaluate_unused_data(Shifted, "r")
    good = sum(int((values["status"] == 0).sum()) for values in found.predicted.values())
    arguments = ("r", found.predicted, found.true, 0.2)
    done = database.update_data_reductions(*arguments, procedure=procedure, threshold=0.0, score="energy")
    assert done.added == round(good / 5)
    assert not (path / "Data_reductions/r/predictions").exists()
    assert database.reductions.iterations("r") == [0, 1]
    with pytest.raises(InputError, match="do not match the unused structures"):
        database.update_data_reductions(*arguments, procedure=procedure)
    assert database.reductions.iterations("r") == [0, 1]
    failed = database.ase_evaluate_unused_data(Shifted, "r")
    done = database.update_data_reductions("r", failed.predicted, failed.true, 0.2, exclude_failed=True)
    assert done.excluded == failed.failed > 0


def test_the_loop_ends_when_nothing_is_left(database):
    seen = 9
    for iteration in range(1, 4):
        found = database.ase_evaluate_unused_data("emt", "r")
        done = database.update_data_reductions("r", found.predicted, found.true, 0.6)
        seen += done.added
        assert done.iteration == iteration
        assert len(database.select("r").ids) == seen
    found = database.ase_evaluate_unused_data("emt", "r")
    database.update_data_reductions("r", found.predicted, found.true, 1.0)
    found = database.ase_evaluate_unused_data("emt", "r")
    done = database.update_data_reductions("r", found.predicted, found.true, 1.0)
    assert (done.complete, done.added) == (True, 0)
    assert database.reductions.is_complete("r")
    assert len(database.select("r").ids) == 39
    with pytest.raises(InputError, match="is complete"):
        database.update_data_reductions("r", found.predicted, found.true, 1.0)


def test_structures_may_be_added_while_others_are_evaluated(database, path):
    database.ase_evaluate_unused_data("emt", "r")
    with opened(path) as writer:
        writer.add(["Al"] * 4, np.eye(4)[:, :3] * 3, energy=0.0)
        writer.compress_dataset()
    assert len(database.ase_evaluate_unused_data("emt", "r").predicted) > 0
    database.refresh()
    with pytest.raises(InputError, match="1 of"):
        database.predictions("r")
    found = database.ase_evaluate_unused_data("emt", "r")
    assert sum(len(values["rows"]) for values in found.predicted.values()) == 31


def test_test_data_are_evaluated_but_never_added(database):
    found = database.ase_evaluate_unused_data("emt", "r", select="test")
    assert sum(len(values["rows"]) for values in found.predicted.values()) == 1
    with pytest.raises(InputError, match="contain test data"):
        database.update_data_reductions("r", found.predicted, found.true, 1.0)


@pytest.mark.parametrize(
    ("calculator", "message"),
    [
        ("none", "ASE has no calculator 'none'"),
        ("nowhere:Nothing", "no calculator 'nowhere:Nothing'"),
        ("ase.calculators.emt:Nothing", "no calculator"),
        (3, "3 is not a calculator"),
        ([], "no calculator given"),
    ],
)
def test_wrong_calculators_are_refused(database, calculator, message):
    with pytest.raises(ConfigError, match=message):
        database.ase_evaluate_unused_data(calculator, "r")


def test_wrong_arguments_of_a_calculator_are_reported(database):
    with pytest.raises(ConfigError, match="cannot create the calculator builtins:int: TypeError"):
        database.ase_evaluate_unused_data("builtins:int", "r", arguments={"colour": "red"})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"fraction": 0.0}, "fraction = 0"),
        ({"fraction": 1.1}, "fraction = 1.1"),
        ({"fraction": 0.1, "procedure": "best"}, "unknown procedure"),
        ({"fraction": 0.1, "score": "luck"}, "unknown score"),
        ({"fraction": 0.1, "exclude_high_error": "percentile:101"}, "exclude_high_error"),
        ({"fraction": 0.1, "exclude_high_error": "sigma:3"}, "exclude_high_error"),
        ({"fraction": 0.1, "exclude_high_error": "mad:"}, "exclude_high_error"),
    ],
)
def test_wrong_rules_are_refused(database, rules, message):
    with pytest.raises(ConfigError, match=message):
        database.update_data_reductions("r", {}, {}, **rules)
