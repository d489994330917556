"""Structures and databases shared by the tests of atoms."""

import contextlib
from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from scimill.atoms.database.database import Database
from scimill.atoms.exchange import serial_ase  # noqa: F401  (so that ASE does not use the ranks of mpi4py)


def metals(count: int, seed: int = 1) -> list[Atoms]:
    """Make rattled Al, Cu, Ni crystals of 4 or 8 atoms with EMT labels; some are alloys, with atoms in mixed order."""
    stream, made = np.random.default_rng(seed), []
    for number in range(count):
        atoms = bulk(("Al", "Cu", "Ni")[number % 3], cubic=True) * (1, 1, 1 + number % 2)
        if number % 4 == 0:
            atoms.symbols[1] = "Au"
        atoms.positions += stream.normal(0, 0.1, atoms.positions.shape)
        atoms.calc = EMT()
        forces, stress, energy = atoms.get_forces(), atoms.get_stress(), atoms.get_potential_energy()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
        made.append(atoms)
    return made


def fill(database: Database, count: int, atoms: int = 4, seed: int = 1, **labels: object) -> list[str]:
    """Add random aluminium clusters one by one; energies are 0, 1, 2, …"""
    stream = np.random.default_rng(seed)
    positions = stream.uniform(0, 5, (count, atoms, 3))
    return [
        database.add(["Al"] * atoms, positions[n], energy=float(n), forces=positions[n] - 2.5, **labels)
        for n in range(count)
    ]


def contents(database: Database) -> dict[str, tuple[str, bytes]]:
    """Return every structure by its id: its group and the bytes of its columns; ids must be unique."""
    found: dict[str, tuple[str, bytes]] = {}
    for group, columns in everything(database):
        for row, uid in enumerate(columns["uid"].tolist()):
            assert uid not in found, f"{uid} occurs twice"
            names = ("coordinates", "cell", "pbc", "test", "permutation", "energy", "forces")
            found[uid] = group, b"".join(columns[name][row].tobytes() for name in names if name in columns)
    return found


def everything(database: Database) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield compressed blocks, then uncompressed batches."""
    yield from ((group, columns) for group, _, columns in database.blocks(rows=7))
    yield from ((batch.group, batch.columns) for batch in database.uncompressed())


@contextlib.contextmanager
def opened(path, **more) -> Iterator[Database]:
    with Database(path, write=True, **more) as database:
        yield database
