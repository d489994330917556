"""ASE, used by each rank independently.

If mpi4py is loaded, ASE uses all ranks together: its readers broadcast what rank 0 read, and its databases write only
on rank 0. Here every rank reads, writes and evaluates its own part, so we give ASE a world of one rank.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.parallel
import numpy as np
from numpy.typing import NDArray

from scimill.atoms.database.columns import Column

ase.parallel.world.comm = ase.parallel.DummyMPI()

import ase.db  # noqa: E402
import ase.io  # noqa: E402
from ase.calculators.calculator import Calculator, all_changes, get_calculator_class  # noqa: E402
from ase.calculators.emt import EMT  # noqa: E402
from ase.calculators.singlepoint import SinglePointCalculator  # noqa: E402

__all__ = ["Calculator", "all_changes", "ase"]  # parts of ASE for other modules to import from here

GEOMETRY = ("coordinates", "cell", "pbc", "permutation")
RESULTS = ("energy", "forces", "stress", "charges", "magmoms", "dipole")
"""Labels that ASE stores as results of a calculator."""


def connect(path: Path) -> Any:
    """Open an ASE database."""
    return ase.db.connect(path)  # type: ignore[no-untyped-call]


def read_frames(file: Any) -> Any:
    """Read the frames of an open extended XYZ file one by one."""
    return ase.io.iread(file, ":", format="extxyz")


def to_atoms(species: NDArray[np.uint8], row: Mapping[str, Any], columns: Mapping[str, Column]) -> ase.Atoms:
    """Convert a row to ``Atoms`` in the user's order, labels to results, ``info`` and ``arrays``."""
    order = row["permutation"]

    def restored(values: NDArray[Any]) -> NDArray[Any]:
        out = np.empty_like(values)
        out[order] = values
        return out

    atoms = ase.Atoms(restored(species), restored(row["coordinates"]), cell=row["cell"], pbc=row["pbc"])
    results = {}
    for name, value in row.items():
        column = columns[name]
        if name in GEOMETRY or _is_missing(value):
            continue
        label = restored(value) if column.of == "atomic" else value
        if name in RESULTS:
            results[name] = label
        elif column.of == "atomic":
            atoms.arrays[name] = label
        else:
            atoms.info[name] = label.decode() if isinstance(label, bytes) else label
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)  # type: ignore[no-untyped-call]
    return atoms


def _is_missing(value: Any) -> bool:
    return value == b"" if isinstance(value, bytes) else bool(np.isnan(value).any())


def write_frames(path: Path, frames: Sequence[ase.Atoms]) -> None:
    """Append frames to an extended XYZ file or an ASE database."""
    if path.suffix in (".xyz", ".extxyz"):
        ase.io.write(path, frames, format="extxyz", append=True)
        return
    with connect(path) as database:
        for atoms in frames:
            pairs = {name: value for name, value in atoms.info.items() if np.ndim(value) == 0}
            data = {name: value for name, value in atoms.info.items() if np.ndim(value)}
            data |= {name: v for name, v in atoms.arrays.items() if name not in ("numbers", "positions")}
            database.write(atoms, key_value_pairs=pairs, data=data)


def builtin_calculator(name: str) -> Any:
    """Return the class of an ASE calculator, or None."""
    try:
        return get_calculator_class(name)  # type: ignore[no-untyped-call]
    except (ImportError, AttributeError):
        return None


def compute_labels(
    species: NDArray[np.uint8], positions: NDArray[Any], cell: NDArray[Any], pbc: NDArray[Any], calculator: Any
) -> tuple[float, NDArray[np.float64]]:
    """Compute the energy (eV) and the forces (eV/Å, shape (atoms, 3)) of a structure with a calculator.

    The atoms are new objects: the calculator sees no stored labels, and nothing that it attached to other atoms.
    """
    atoms: Any = ase.Atoms(species, positions, cell=cell, pbc=pbc, calculator=calculator)
    return atoms.get_potential_energy(), atoms.get_forces()


def fcc_crystal(symbols: list[str], lattice: float) -> ase.Atoms:
    """Make the cubic cell of a face-centred crystal, four atoms; lattice constant in Å."""
    sites = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) * lattice / 2
    return ase.Atoms(symbols, sites, cell=[lattice] * 3, pbc=True)


def emt_labels(atoms: ase.Atoms) -> ase.Atoms:
    """Label a structure with energy and forces of effective medium theory (ASE's EMT)."""
    given: Any = atoms
    given.calc = EMT()  # type: ignore[no-untyped-call]
    energy, forces = given.get_potential_energy(), given.get_forces()
    given.calc = SinglePointCalculator(given, energy=energy, forces=forces)  # type: ignore[no-untyped-call]
    return atoms
