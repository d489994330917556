"""Train an ensemble of potentials on the structures that a reduction selects."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scimill import config as configuration
from scimill.atoms import CAMPAIGN
from scimill.atoms.database.batch import Columns
from scimill.atoms.database.database import Database
from scimill.atoms.kernels.composition import element_counts
from scimill.atoms.kernels.neighbours import max_neighbours, neighbours
from scimill.atoms.learning.network import FIELDS, PotentialSpec, PotentialTask
from scimill.atoms.learning.sets import NOTHING, TRAINS, VALIDATES, arrange_in_blocks, choose_sets
from scimill.atoms.params import AtomsTrainConfig
from scimill.files import check_directory, storage_errors
from scimill.parallel.world import Stop, World
from scimill.store.layout import Field, Layout
from scimill.store.output import Output
from scimill.store.reader import Reader
from scimill.store.writer import BlockData
from scimill.training.data import Split
from scimill.training.directory import RunDirectory
from scimill.training.ranks import Ranks
from scimill.training.run import stopped, train_among

DATA = "structures.h5"
MEMBER_SEEDS = 1000  # member m of an ensemble with seed s has seed s · 1000 + m


def member_folder(run: Path, member: int) -> Path:
    """Return the run directory of a member, inside that of the ensemble."""
    return run / f"member-{member}"


def train_ensemble(config: AtomsTrainConfig, database: Database, directory: RunDirectory, world: World) -> int:
    """Train all members; collective. Return how many were trained by this call.

    The ranks form one team per member, or fewer teams if there are not enough ranks. A team trains its members one
    after the other. Members differ in their initial weights and in their strided windows of the structures.

    Raises
    ------
    ConfigError, InputError : see `sets.choose_sets`.
    Stopped : before the end; ``resume`` continues.

    """
    with world.together():
        config, sets = choose_sets(config, database)
    world.on_root(_make_folders, directory.path, config.members)
    store = directory.path / DATA
    write_structures(
        config, arrange_in_blocks(sets, config.block_size), Output(store, directory.resume, directory.overwrite), world
    )
    teams = min(config.members, world.size)
    with Ranks(world, world.teams(teams)) as ranks:
        return _train_members(
            config, store, directory, ranks, world, range(world.team_number(teams), config.members, teams)
        )


def _train_members(
    config: AtomsTrainConfig, store: Path, directory: RunDirectory, ranks: Ranks, world: World, mine: range
) -> int:
    """Train this team's members; return how many all teams have trained."""
    trained, is_left = 0, False
    stop = Stop(world, config.walltime, config.walltime_margin)
    try:
        for member in mine:
            folder = dataclasses.replace(directory, path=member_folder(directory.path, member))
            settings = configuration.with_values(config, seed=config.seed * MEMBER_SEEDS + member)
            done, reason = train_among(ranks, task_maker(settings, member), store, folder, settings, stop)
            trained += done and ranks.is_root
            if is_left := bool(reason):
                break
        reason = stop.finish()
    finally:
        stop.restore()
    if any(world.gather_all(is_left)):
        world.fail(stopped(reason))
    return sum(world.gather_all(trained))


def _make_folders(folder: Path, members: int) -> None:
    """Make the folders of all members, so that untrained members are visible."""
    if not folder.exists():
        check_directory(folder)
    with storage_errors(folder, "preparing the run directory"):
        for member in range(members):
            member_folder(folder, member).mkdir(parents=True, exist_ok=True)


def write_structures(config: AtomsTrainConfig, rows: Columns, output: Output, world: World) -> None:
    """Write the store to train on; collective."""
    atoms = rows["species"].shape[1]
    fields = (
        Field("species", "uint8", "1", "atomic numbers, 0 for padding", (atoms,), axes=("atom",)),
        Field("coordinates", "float64", "Å", "positions", (atoms, 3), axes=("atom", "component")),
        Field("cell", "float64", "Å", "cell vectors as rows", (3, 3), axes=("vector", "component")),
        Field("pbc", "uint8", "1", "whether each cell vector is periodic", (3,), axes=("vector",)),
        Field("energy", "float64", "eV", "potential energy"),
        Field("forces", "float64", "eV/Å", "forces", (atoms, 3), axes=("atom", "component")),
        Field(
            "roles",
            "uint8",
            "1",
            "what each member does: 0 nothing, 1 trains, 2 validates",
            (config.members,),
            axes=("member",),
        ),
    )
    layout = Layout(len(rows["energy"]), config.block_size, fields)

    def make(block: int) -> BlockData:
        span = layout.span(block)
        return BlockData({name: np.ascontiguousarray(values[span]) for name, values in rows.items()})

    CAMPAIGN.fill(config, layout, make, output, world, maker="structures")


class MemberTask(PotentialTask):
    """Training of one member on its own blocks.

    Parameters
    ----------
    split : blocks for training, validation and neither.
    spec, seed, counts : see `PotentialTask`.

    """

    def __init__(self, split: Split, spec: PotentialSpec, seed: int, counts: list[int]) -> None:
        super().__init__(spec, seed, counts)
        self.split = split


def task_maker(config: AtomsTrainConfig, member: int) -> Callable[[Reader], MemberTask]:
    """Return a function that makes a member's task from the store."""

    def make(reader: Reader) -> MemberTask:
        rows = read_structures(reader)
        roles = [reader.rows(block, "roles")[0, member] for block in range(reader.layout.blocks)]
        blocks = {
            role: tuple(np.flatnonzero(np.array(roles) == role).tolist()) for role in (TRAINS, VALIDATES, NOTHING)
        }
        real = np.split(rows["species"].any(axis=1), np.arange(1, len(roles)) * reader.layout.block_rows)
        counts = [int(block.sum()) for block in real]
        kept = {name: values[np.concatenate(real)] for name, values in rows.items()}
        return MemberTask(Split(*blocks.values()), make_spec(config, kept), config.seed, counts)

    return make


def read_structures(reader: Reader) -> Columns:
    """Read all rows of the store, including padding rows without atoms."""
    blocks = range(reader.layout.blocks)
    return {name: np.concatenate([reader.rows(block, name) for block in blocks]) for name in FIELDS}


def make_spec(config: AtomsTrainConfig, rows: Columns) -> PotentialSpec:
    """Make the specification of a potential from its training data."""
    elements = np.unique(rows["species"][rows["species"] > 0])
    counts = np.array([element_counts(species, elements) for species in rows["species"]])
    return PotentialSpec(
        tuple(elements.tolist()),
        tuple(atomic_energies(counts, rows["energy"]).tolist()),
        config.cutoff,
        config.radial,
        config.hidden,
        max(max_neighbours(neighbours(*_structure(rows, row), config.cutoff)) for row in range(len(counts))),
        config.energy_scale,
        config.force_scale,
    )


def _structure(rows: Columns, row: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]]:
    real = rows["species"][row] > 0
    return rows["coordinates"][row][real], rows["cell"][row], rows["pbc"][row]


def atomic_energies(counts: NDArray[np.float64], energies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit the energy of an atom of each element, eV: least squares, least norm if not determined."""
    return np.asarray(np.linalg.lstsq(counts, energies, rcond=None)[0], dtype=np.float64)
