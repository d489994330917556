"""Elements, Hill formulas and the order of atoms."""

import re

import numpy as np
from numpy.typing import NDArray

_TABLE = """
    X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb
    Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg
    Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts
    Og"""
SYMBOLS = tuple(_TABLE.split())
"""Symbols by atomic number; X, number 0, is not an element."""
NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS) if number}
MOST_ATOMS = 32767  # the order of atoms is stored as int16

_PART = re.compile(r"([A-Z][a-z]?)(\d*)")


def formula(species: NDArray[np.integer]) -> str:
    """Write the formula of atomic numbers, shape (atoms,): C, H, then alphabetical.

    This is the order of ``Atoms.get_chemical_formula``. It differs from Hill's system (E. A. Hill, J. Am. Chem. Soc. 22
    (1900) 478) for hydrogen without carbon: HCl, not ClH.
    """
    counts = np.bincount(species)
    symbols = sorted((SYMBOLS[n] for n in np.flatnonzero(counts)), key=lambda s: (s != "C", s != "H", s))
    return "".join(f"{s}{n}" if (n := counts[NUMBERS[s]]) > 1 else s for s in symbols)


def species_of(name: str) -> NDArray[np.uint8]:
    """Return the atomic numbers of a formula in ascending order, uint8, shape (atoms,).

    Raises
    ------
    ValueError : not a formula.

    """
    parts = _PART.findall(name)
    if not parts or "".join(symbol + count for symbol, count in parts) != name:
        raise ValueError(f"{name!r} is not a chemical formula")
    unknown = [symbol for symbol, _ in parts if symbol not in NUMBERS]
    if unknown:
        raise ValueError(f"unknown element {unknown[0]!r}")
    numbers = [NUMBERS[symbol] for symbol, count in parts for _ in range(int(count or 1))]
    return np.sort(np.array(numbers, dtype=np.uint8))


def atomic_numbers(symbols: list[str]) -> NDArray[np.uint8]:
    """Return the atomic numbers of element symbols.

    Raises
    ------
    ValueError : unknown element.

    """
    unknown = [symbol for symbol in symbols if symbol not in NUMBERS]
    if unknown:
        raise ValueError(f"unknown element {unknown[0]!r}")
    return np.array([NUMBERS[symbol] for symbol in symbols], dtype=np.uint8)


def element_counts(species: NDArray[np.integer], elements: NDArray[np.integer]) -> NDArray[np.float64]:
    """Count the atoms of each element in a structure, shape (elements,)."""
    counts: NDArray[np.float64] = (np.asarray(species)[:, None] == elements).sum(axis=0).astype(float)
    return counts
