"""Structures for a demonstration: random aluminium, copper and nickel crystals with EMT labels."""

from pathlib import Path
from typing import Any

import numpy as np

from scimill.atoms import CAMPAIGN
from scimill.atoms.exchange.serial_ase import emt_labels, fcc_crystal, write_frames
from scimill.files import check_directory, replacing
from scimill.parallel.streams import campaign_stream

LATTICES = {"Al": 4.05, "Cu": 3.61, "Ni": 3.52}  # Å, Kittel, Introduction to Solid State Physics, table 1.3
STRAIN = 0.02  # standard deviation of the logarithm of the lattice constant
RATTLE = (0.02, 0.12)  # Å, range of the standard deviation of the displacements


def write_demo(path: Path, count: int, seed: int) -> None:
    """Write ``count`` random alloys of four atoms to an extended XYZ file.

    Raises
    ------
    StorageError : the file cannot be written.

    """
    check_directory(path)
    stream = campaign_stream(seed, CAMPAIGN.number)
    frames = [emt_labels(_alloy(stream)) for _ in range(count)]
    with replacing(path, "structures") as part:
        new = part.with_suffix(".xyz")
        new.unlink(missing_ok=True)
        write_frames(new, frames)
        new.replace(part)


def _alloy(stream: np.random.Generator) -> Any:
    metals = stream.choice([*LATTICES], size=4)
    lattice = float(np.mean([LATTICES[metal] for metal in metals]))
    atoms = fcc_crystal(metals.tolist(), lattice * float(np.exp(stream.normal(0, STRAIN))))
    atoms.positions += stream.normal(0, stream.uniform(*RATTLE), (len(atoms), 3))
    return atoms
