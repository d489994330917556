"""Formulas, units and fingerprints, compared with ASE and with their definitions."""

import ase.data
import ase.units
import numpy as np
import pytest
from ase.formula import Formula
from hypothesis import given
from hypothesis import strategies as st

from scimill.atoms.kernels import composition, geometry, units


def test_symbols_are_those_of_ase():
    assert list(composition.SYMBOLS) == ase.data.chemical_symbols


@given(st.lists(st.integers(1, 118), min_size=1, max_size=12))
def test_the_hill_formula_is_that_of_ase_and_gives_the_species_back(numbers):
    name = composition.formula(np.array(numbers, dtype=np.uint8))
    symbols = "".join(ase.data.chemical_symbols[number] for number in numbers)
    assert name == Formula(symbols).format("hill")
    assert composition.species_of(name).tolist() == sorted(numbers)


@pytest.mark.parametrize("name", ["", "al4", "Al-4", "Qq2", "4Al"])
def test_what_is_no_formula_is_refused(name):
    with pytest.raises(ValueError, match=r"formula|element"):
        composition.species_of(name)


@pytest.mark.parametrize(
    ("unit", "target", "value"),
    [
        ("Hartree", "eV", ase.units.Hartree),
        ("Hartree/Bohr", "eV/Å", ase.units.Hartree / ase.units.Bohr),
        ("kcal/mol", "eV", ase.units.kcal / ase.units.mol),
        ("kcal/mol/Angstrom", "eV/Å", ase.units.kcal / ase.units.mol),
        ("kJ/mol", "eV", ase.units.kJ / ase.units.mol),
        ("GPa", "eV/Å^3", ase.units.GPa),
        ("eV/Angstrom^3", "eV/Å^3", 1.0),
        ("Debye", "e Å", ase.units.Debye),
        ("nm", "Å", 10.0),
    ],
)
def test_factors_are_those_of_ase(unit, target, value):
    assert units.factor(unit, target) == pytest.approx(value, rel=1e-7)  # ASE has CODATA 2014


@pytest.mark.parametrize(("unit", "target"), [("Hartree", "eV/Å"), ("furlong", "Å"), ("eV", "Å"), ("", "eV")])
def test_units_of_another_kind_are_refused(unit, target):
    with pytest.raises(ValueError, match=r"unit|convert"):
        units.factor(unit, target)


def hashed(coordinates, cell=None, pbc=(0, 0, 0), species=(1, 8)):
    box = np.zeros((len(coordinates), 3, 3)) if cell is None else cell
    periodic = np.tile(np.array(pbc, dtype=np.uint8), (len(coordinates), 1))
    return geometry.geometry_hash(np.array(species, dtype=np.uint8), coordinates, box, periodic)


def test_the_hash_knows_equal_geometries_and_nothing_else():
    stream = np.random.default_rng(1)
    coordinates = stream.uniform(-5, 5, (20_000, 2, 3)).round(3)
    base = hashed(coordinates)
    assert len(np.unique(base)) == 20_000
    assert np.array_equal(base, hashed(coordinates + stream.uniform(-4e-5, 4e-5, coordinates.shape)))
    assert not np.isin(hashed(coordinates + 2e-4), base).any()
    assert not np.isin(hashed(coordinates, pbc=(1, 0, 0)), base).any()
    assert not np.isin(hashed(coordinates, species=(1, 9)), base).any()
    assert not np.isin(hashed(coordinates[:, ::-1]), base).any()


def test_a_seeded_draw_has_its_share_and_depends_on_the_seed():
    values = geometry.id_hash(np.array([f"id-{i}" for i in range(20_000)], dtype="S32"), 1)
    first, second = (geometry.draw_share(values, 0.2, seed) for seed in (1, 2))
    for draw in (first, second):
        assert draw.mean() == pytest.approx(0.2, abs=5 * (0.16 / 20_000) ** 0.5)
    assert (first & second).mean() == pytest.approx(0.04, abs=0.01)
    assert geometry.draw_share(values, 1.0, 1).all()
    assert not geometry.draw_share(values, 0.0, 1).any()
