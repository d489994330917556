"""The potential and its ensemble: same neighbours as in ASE, forces are gradients, members differ."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from atoms_data import metals, opened
from scimill.atoms import evaluate
from scimill.atoms.database.database import Database
from scimill.atoms.demo import write_demo
from scimill.atoms.exchange import ingest
from scimill.atoms.exchange.properties import Properties
from scimill.atoms.exchange.serial_ase import ase
from scimill.atoms.kernels.composition import species_of
from scimill.atoms.kernels.neighbours import max_neighbours, neighbours, padded
from scimill.atoms.learning.network import Potential, PotentialSpec, predict
from scimill.atoms.learning.potentials import Ensemble, EnsembleCalculator, evaluate_cache, load_ensemble, members_of
from scimill.atoms.learning.train import train_ensemble
from scimill.atoms.params import AtomsTrainConfig
from scimill.atoms.pictures import plots
from scimill.config import Layer, build
from scimill.errors import InputError
from scimill.parallel.world import World
from scimill.training.directory import RunDirectory, verify_run

SPEC = PotentialSpec((13, 29), (-1.0, 2.0), 4.0, 6, (8, 8), 99, 0.01, 0.1)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()), atoms=st.integers(1, 6))
def test_neighbours_are_those_of_ase(seed, pbc, atoms):
    stream = np.random.default_rng(seed)
    cell = np.diag(stream.uniform(2, 6, 3)) + stream.uniform(-1, 1, (3, 3))
    positions = stream.uniform(-2, 2, (atoms, 3)) @ cell  # some are outside of the cell
    structure = ase.Atoms("H" * atoms, positions, cell=cell, pbc=pbc)
    i, j, d = neighbor_list("ijd", structure, 3.5)
    first, second, offsets = neighbours(positions, cell, np.array(pbc), 3.5)
    distances = np.linalg.norm(positions[second] + offsets - positions[first], axis=1)
    assert sorted(zip(first, second, distances.round(6), strict=True)) == sorted(zip(i, j, d.round(6), strict=True))


def test_neighbours_side_by_side():
    positions = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1.2, 0], [9, 9, 9]])
    found = neighbours(positions, np.zeros((3, 3)), np.zeros(3), 1.3)
    assert max_neighbours(found) == 2
    indices, vectors = padded(found, 4, 3)
    assert [sorted(row) for row in indices.tolist()] == [[-1, 1, 2], [-1, -1, 0], [-1, -1, 0], [-1, -1, -1]]
    assert not vectors.any()


def structure(seed=1):
    """Two aluminium and two copper atoms in a skewed cell, and two padding atoms."""
    stream = np.random.default_rng(seed)
    cell = np.diag([4.0, 4.5, 5.0]) + stream.uniform(-0.3, 0.3, (3, 3))
    coordinates = np.zeros((1, 6, 3))
    coordinates[0, :4] = np.array([[0, 0, 0], [2, 2, 0], [0, 2, 2.5], [2, 0, 2.5]]) + stream.normal(0, 0.2, (4, 3))
    species = np.array([[13, 29, 13, 29, 0, 0]], dtype=np.uint8)
    return {"species": species, "coordinates": coordinates, "cell": cell[None], "pbc": np.ones((1, 3), np.uint8)}


def single(model, rows):
    """Predict energies and forces with one model."""
    energies, forces = predict([model], rows)
    return energies[0], forces[0]


@pytest.fixture
def model():
    torch.manual_seed(1)
    return Potential(SPEC).double()


def test_forces_are_the_gradient_of_the_energy(model):
    rows = structure()
    _, forces = single(model, rows)
    assert not forces[0, 4:].any()
    for atom, axis in ((0, 0), (1, 2), (3, 1)):
        energies = []
        for step in (1e-4, -1e-4):
            moved = {**rows, "coordinates": rows["coordinates"].copy()}
            moved["coordinates"][0, atom, axis] += step
            energies.append(single(model, moved)[0][0])
        assert forces[0, atom, axis] == pytest.approx((energies[1] - energies[0]) / 2e-4, abs=1e-6)


def test_the_energy_is_blind_to_what_it_should_be(model):
    rows = structure()
    energy, forces = single(model, rows)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    turned = {**rows, "coordinates": rows["coordinates"] @ turn, "cell": rows["cell"] @ turn}
    assert single(model, turned)[0] == pytest.approx(energy, abs=1e-9)
    assert np.allclose(single(model, turned)[1], forces @ turn, atol=1e-8)
    moved = {**rows, "coordinates": rows["coordinates"].copy()}
    moved["coordinates"][0, 2] += rows["cell"][0, 1]  # by a cell vector
    moved["coordinates"][0, :4] += 0.7
    assert single(model, moved)[0] == pytest.approx(energy, abs=1e-9)
    order = [1, 0, 3, 2, 4, 5]
    swapped = {**rows, "species": rows["species"][:, order], "coordinates": rows["coordinates"][:, order]}
    assert single(model, swapped)[0] == pytest.approx(energy, abs=1e-9)
    assert np.allclose(single(model, swapped)[1], forces[:, order], atol=1e-8)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled")
    structures = metals(32)
    for atoms in structures[::8]:
        atoms.info["test"] = True
    ase.io.write(folder / "metals.xyz", structures, format="extxyz")
    with opened(folder / "db") as database:
        ingest.import_files(database, [folder / "metals.xyz"], Properties())
        database.compress_dataset()
        database.create_reduction("r", number=24)
    return folder / "db"


def config(**values):
    small = {"reduction": "r", "members": 2, "epochs": 6, "radial": 8, "hidden": [8], "log_steps": 1}
    return build(AtomsTrainConfig, [Layer("test", {**small, **values})])


def fit(filled, folder, **more):
    resume = more.pop("resume", False)
    with Database(filled) as database:
        return train_ensemble(config(**more), database, RunDirectory(folder, resume), World(None))


@pytest.fixture(scope="module")
def run(filled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    assert fit(filled, folder) == 2
    return folder


def losses(folder, split):
    lines = (folder / "metrics.csv").read_text().splitlines()
    place = lines[0].split(",").index("loss")
    return [float(line.split(",")[place]) for line in lines[1:] if f",{split}," in line]


def test_training_learns_and_members_differ(run):
    for member in range(2):
        found = losses(run / f"member-{member}", "train")
        assert np.mean(found[-3:]) < 0.5 * np.mean(found[:3])
    first, second = (list(model.parameters()) for model in load_ensemble(run))
    assert not any(bool((a == b).all()) for a, b in zip(first, second, strict=True) if a.numel() > 8)


def test_the_same_seed_gives_the_same_ensemble_and_a_finished_one_is_kept(filled, run, tmp_path):
    once, again = tmp_path / "once", tmp_path / "again"
    for folder in (once, again):
        assert fit(filled, folder, epochs=2) == 2
    for here, there in zip(load_ensemble(once), load_ensemble(again), strict=True):
        assert all(bool((a == b).all()) for a, b in zip(here.parameters(), there.parameters(), strict=True))
    assert fit(filled, run, resume=True) == 0


def test_the_calculator_gives_mean_and_deviation(run, filled):
    atoms = metals(3)[1]
    atoms.calc = EnsembleCalculator(run)
    single = []
    for calculator in members_of(run):
        other = atoms.copy()
        other.calc = calculator
        single.append((other.get_potential_energy(), other.get_forces()))
    assert atoms.get_potential_energy() == pytest.approx(np.mean([energy for energy, _ in single]))
    assert np.allclose(atoms.get_forces(), np.mean([forces for _, forces in single], axis=0))
    spread = np.sqrt(np.var([forces for _, forces in single], axis=0).sum(axis=1)).max()
    assert atoms.calc.results["deviation"] == pytest.approx(spread)
    with Database(filled) as database:
        found = database.ase_evaluate_unused_data(members_of(run), "r")
    assert found.failed == 0
    assert all((values["deviation"] > 0).all() for values in found.predicted.values())


def require_same(found, expected):
    assert found.predicted.keys() == expected.predicted.keys()
    assert sum(len(values["rows"]) for values in found.predicted.values()) == 20
    for group, values in expected.predicted.items():
        mine = found.predicted[group]
        for name in ("energy", "forces", "deviation"):
            assert np.allclose(mine[name], values[name], rtol=1e-10, atol=1e-10), name
        for name in ("rows", "uid", "status"):
            assert np.array_equal(mine[name], values[name]), name
        assert (mine["path"], mine["iteration"]) == (values["path"], values["iteration"])
        for name, labels in expected.true[group].items():
            assert np.array_equal(found.true[group][name], labels)


def test_many_at_once_have_the_numbers_of_one_by_one(run, filled, tmp_path):
    with Database(shutil.copytree(filled, tmp_path / "db")) as database:
        database.create_reduction("few", number=8)
        expected = database.ase_evaluate_unused_data(members_of(run), "few")
        require_same(database.evaluate_unused_data(run, "few"), expected)
        for form in ("npy", "npz"):
            path = tmp_path / form
            database.build_strided_train_cache(path, "few", 1.0, 0.0, 1, select="unused", format=form)
            cached = evaluate_cache(run, path)
            require_same(cached, expected)
        done = database.update_data_reductions("few", cached.predicted, cached.true, 0.5, score="deviation")
        assert (done.iteration, done.added) == (1, 10)
        with pytest.raises(InputError, match="do not match the unused structures of iteration 1"):
            database.update_data_reductions("few", cached.predicted, cached.true, 0.5, score="deviation")


def test_of_many_at_once_only_those_fail_that_must(run):
    species = np.array([13] * 4, dtype=np.uint8)
    crystals = [atoms for atoms in metals(48) if set(atoms.numbers) == {13} and len(atoms) == 4]
    geometry = {
        "coordinates": np.stack([atoms.positions for atoms in crystals]),
        "cell": np.stack([atoms.cell[:] for atoms in crystals]),
        "pbc": np.ones((len(crystals), 3), np.uint8),
    }
    geometry["cell"][1] = 0  # repeats without volume
    geometry["coordinates"][2, 1] = np.nan
    for numbers in (species, species + 1):  # the potential does not know silicon
        found = evaluate.predict(numbers, geometry, [Ensemble(run)])
        expected = evaluate.predict(numbers, geometry, [EnsembleCalculator(run)])
        assert found["message"].tolist() == expected["message"].tolist()
        assert found["status"].tolist() == expected["status"].tolist()
        assert np.allclose(found["forces"].mean(axis=1), expected["forces"][:, 0], equal_nan=True)
    assert (expected["status"] == evaluate.FAILED).all()
    assert "not trained on elements [14]" in expected["message"][0]


def test_what_is_no_cache_of_all_structures_is_refused(run, filled, tmp_path):
    with pytest.raises(InputError, match="no cache"):
        evaluate_cache(run, tmp_path)
    with Database(filled) as database:
        database.build_strided_train_cache(tmp_path / "cut", "r", 0.5, 0.5, 1, select="unused", format="npz")
        database.build_strided_train_cache(tmp_path / "all", "r", 1, 0, 1, select="unused", format="npz")
    with pytest.raises(InputError, match="does not hold all selected structures"):
        evaluate_cache(run, tmp_path / "cut")
    file = tmp_path / "all/member-0/train.npz"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match="the cache is damaged"):
        evaluate_cache(run, tmp_path / "all")


def test_one_calculator_is_no_committee(filled, tmp_path):
    with Database(shutil.copytree(filled, tmp_path / "db")) as database:
        found = database.ase_evaluate_unused_data("emt", "r")
        with pytest.raises(InputError, match="a committee needs two calculators"):
            database.update_data_reductions("r", found.predicted, found.true, 0.5, score="deviation")


def test_predictions_of_other_weights_are_not_taken_for_new_ones(run, filled, tmp_path):
    path = shutil.copytree(run, tmp_path / "run")
    with Database(filled) as database:
        calculator = "scimill.atoms.learning.potentials:EnsembleCalculator"
        before = database.ase_evaluate_unused_data(calculator, "r", arguments={"run": str(path)})
        shutil.copy(path / "member-0/model.pt", path / "member-1/model.pt")
        after = database.ase_evaluate_unused_data(calculator, "r", arguments={"run": str(path)})
    for group, values in before.predicted.items():
        assert not np.array_equal(values["energy"], after.predicted[group]["energy"])


def test_an_ensemble_is_verified_member_by_member(run, tmp_path):
    assert verify_run(run).count("sound") == 2
    path = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(path / "member-1")
    (path / "member-1").mkdir()
    with pytest.raises(InputError, match="not a training run"):
        verify_run(path)


def test_a_learning_curve_is_drawn_of_the_errors_on_test_data(run, filled, tmp_path):
    with Database(filled) as database:
        (point,) = plots.learning_curve(database, [run])
        squares, count = 0.0, 0
        for group, columns in database.select(None, select="test").blocks():
            for row in range(len(columns["uid"])):
                atoms = ase.Atoms(group, columns["coordinates"][row], cell=columns["cell"][row], pbc=True)
                atoms.numbers = species_of(group)
                atoms.calc = EnsembleCalculator(run)
                wrong = atoms.get_forces() - columns["forces"][row]
                squares, count = squares + (wrong**2).sum(), count + wrong.size
        assert count == 3 * 4 * 4
    assert point.forces == pytest.approx(1e3 * (squares / count) ** 0.5, rel=1e-6)
    assert (point.kind, point.iteration, point.trained) == ("r", 0, 24)
    points = [point, dataclasses.replace(point, forces=3 * point.forces)]
    assert plots.average_by_iteration(points, "forces")[1:] == (
        [pytest.approx(2 * point.forces)],
        [pytest.approx(point.forces)],
    )
    assert plots.describe_points(points).splitlines()[1].split()[:3] == ["r", "0", "24"]
    path = plots.plot_learning(points, tmp_path / "pictures")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_demo_has_its_labels_and_repeats(tmp_path):
    for name in ("a", "b"):
        write_demo(tmp_path / f"{name}.xyz", 5, seed=3)
    assert (tmp_path / "a.xyz").read_bytes() == (tmp_path / "b.xyz").read_bytes()
    for atoms in ase.io.iread(tmp_path / "a.xyz", ":"):
        forces = atoms.get_forces()
        atoms.calc = EMT()
        assert np.allclose(atoms.get_forces(), forces, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.xyz", "b.xyz"]


def test_what_an_ensemble_cannot_do_is_said(run, tmp_path, filled):
    with pytest.raises(ValueError, match="not trained on elements"):
        EnsembleCalculator(run).calculate(ase.Atoms("He", [[0, 0, 0]]))
    with pytest.raises(InputError, match="no trained potentials"):
        load_ensemble(tmp_path)
    with opened(tmp_path / "bare") as database:
        database.add(["Al"], [[0, 0, 0]])
        database.compress_dataset()
        with pytest.raises(InputError, match="no structures with energy and forces"):
            train_ensemble(config(reduction=None), database, RunDirectory(tmp_path / "run"), World(None))
