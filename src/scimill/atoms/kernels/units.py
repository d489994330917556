"""Units of labels, and factors to convert them to the units of the database: eV, Å, e.

Constants: CODATA 2022 (physics.nist.gov/constants).
"""

import re

HARTREE = 27.211386245981  # eV
BOHR = 0.529177210544  # Å
CHARGE = 1.602176634e-19  # C, exact
MOLE = 6.02214076e23  # 1/mol, exact
CALORIE = 4.184  # J, thermochemical, exact
DEBYE = 0.20819433442462  # e Å: 1e-21/(299792458 · 1.602176634e-19) · 1e10

BASE = {
    # unit: (factor, dimension as powers of energy, length, charge)
    "eV": (1.0, (1, 0, 0)),
    "meV": (1e-3, (1, 0, 0)),
    "Hartree": (HARTREE, (1, 0, 0)),
    "Ha": (HARTREE, (1, 0, 0)),
    "Ry": (HARTREE / 2, (1, 0, 0)),
    "kcal/mol": (1e3 * CALORIE / (MOLE * CHARGE), (1, 0, 0)),
    "kJ/mol": (1e3 / (MOLE * CHARGE), (1, 0, 0)),
    "Å": (1.0, (0, 1, 0)),
    "Angstrom": (1.0, (0, 1, 0)),
    "Ang": (1.0, (0, 1, 0)),
    "Bohr": (BOHR, (0, 1, 0)),
    "bohr": (BOHR, (0, 1, 0)),
    "nm": (10.0, (0, 1, 0)),
    "GPa": (1e9 * 1e-30 / CHARGE, (1, -3, 0)),
    "kbar": (1e8 * 1e-30 / CHARGE, (1, -3, 0)),
    "e": (1.0, (0, 0, 1)),
    "Debye": (DEBYE, (0, 1, 1)),
    "1": (1.0, (0, 0, 0)),
}
NAMES = ", ".join(BASE)

_POWER = re.compile(r"(.*?)\^?(-?\d)")


def factor(unit: str, target: str) -> float:
    """Return the factor that converts one unit to another of the same dimension.

    Parameters
    ----------
    unit : such as Hartree/Bohr or kcal/mol/Angstrom.
    target : such as eV/Å.

    Raises
    ------
    ValueError : unknown unit, or different dimensions.

    """
    if unit == target:
        return 1.0
    (value, dimension), (divisor, wanted) = _parse(unit), _parse(target)
    if dimension != wanted:
        raise ValueError(f"cannot convert {unit} to {target}: different dimensions")
    return value / divisor


def _parse(unit: str) -> tuple[float, tuple[int, int, int]]:
    """Parse a product of base units: its factor and dimension."""
    value, dimension, sign = 1.0, (0, 0, 0), 1
    for part in re.split(r"([/ *])", unit.replace("/mol", "@mol")):
        if part in ("/", " ", "*"):
            sign = -1 if part == "/" else 1
            continue
        base, powers, power = _base(part.replace("@mol", "/mol"))
        value *= base ** (sign * power)
        energy, length, charge = (d + sign * power * p for d, p in zip(dimension, powers, strict=True))
        dimension = energy, length, charge
    return value, dimension


def _base(name: str) -> tuple[float, tuple[int, int, int], int]:
    """Parse a base unit with its power: factor, dimension, power."""
    power = 1
    if name not in BASE and (match := _POWER.fullmatch(name)):
        name, power = match[1], int(match[2])
    if name not in BASE:
        raise ValueError(f"unknown unit {name!r}")
    return *BASE[name], power
