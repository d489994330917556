"""Members train and validate on exactly the sets of their caches, or on strided windows without caches."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoms_data import metals, opened
from scimill.atoms.database.database import Database
from scimill.atoms.exchange import ingest
from scimill.atoms.exchange.properties import Properties
from scimill.atoms.exchange.serial_ase import ase
from scimill.atoms.learning.sets import NOTHING, TRAINS, VALIDATES, TrainingSets, arrange_in_blocks, choose_sets
from scimill.atoms.learning.train import DATA, train_ensemble
from scimill.atoms.params import AtomsTrainConfig
from scimill.config import Layer, build
from scimill.errors import ConfigError, InputError
from scimill.parallel.world import World
from scimill.store.reader import Reader
from scimill.training.directory import RunDirectory

ROLES = {"train": TRAINS, "valid": VALIDATES}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Metals; one in eight has no energy or forces."""
    folder = tmp_path_factory.mktemp("filled")
    structures = metals(40)
    for atoms in structures[::8]:
        atoms.calc = None
    ase.io.write(folder / "metals.xyz", structures, format="extxyz")
    with opened(folder / "db") as database:
        ingest.import_files(database, [folder / "metals.xyz"], Properties())
        database.compress_dataset()
        database.create_reduction("r", mask={group: np.ones(rows, bool) for group, rows in database.groups.items()})
        database.build_strided_train_cache(folder / "caches", "r", 0.5, 0.2, 3, format="index")
    return folder


@pytest.fixture
def database(filled):
    with Database(filled / "db") as opened_:
        yield opened_


def config(**values):
    small = {"reduction": "r", "members": 3, "epochs": 1, "radial": 4, "hidden": [4], "batch_size": 4}
    return build(AtomsTrainConfig, [Layer("test", {**small, **values})])


def labels(database, rows):
    """Energies of some rows that have labels, sorted."""
    every = [database.read(group, ["energy"])["energy"][mine] for group, mine in rows.items()]
    energies = np.concatenate(every)
    return sorted(energies[np.isfinite(energies)].tolist())


def test_members_train_on_the_sets_of_their_caches(database, filled, tmp_path):
    settings = config(caches=str(filled / "caches"), block_size=3, reduction=None)
    assert train_ensemble(settings, database, RunDirectory(tmp_path / "run"), World(None)) == 3
    with Reader.open(tmp_path / "run" / DATA) as reader:
        blocks = range(reader.layout.blocks)
        stored = {name: [reader.rows(b, name) for b in blocks] for name in ("energy", "species", "roles")}
    for member in range(3):
        split = json.loads((tmp_path / f"run/member-{member}/run.json").read_text())["split"]
        assert sorted(block for part in split.values() for block in part) == list(blocks)
        for part, block_numbers in (("train", split["train"]), ("valid", split["validation"])):
            with np.load(filled / f"caches/member-{member}/{part}.npz") as rows:
                expected = labels(database, rows)
            found = [stored["energy"][b][stored["species"][b].any(axis=1)] for b in block_numbers]
            assert sorted(np.concatenate(found).tolist()) == expected
            assert len(expected) > 3
            assert all((stored["roles"][b][0, member] == ROLES[part]).all() for b in block_numbers)
    recorded = (tmp_path / "run/member-0/config.yaml").read_text()
    assert "\nreduction: r " in recorded
    assert "\niteration: 0 " in recorded


def test_without_caches_members_have_strided_windows(database):
    _, sets = choose_sets(config(members=4, validation_share=0.25, test_share=0.25), database)
    assert len(sets.roles) == 35
    assert ((sets.roles == VALIDATES).sum(axis=1) == 1).all()  # disjoint, and everything
    assert set((sets.roles == TRAINS).sum(axis=0)) <= {17, 18}
    assert set((sets.roles == NOTHING).sum(axis=0)) <= {8, 9, 10}
    _, again = choose_sets(config(members=4, validation_share=0.25, test_share=0.25), database)
    assert np.array_equal(again.roles, sets.roles)


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 2), min_size=1, max_size=40), st.integers(1, 5))
def test_blocks_are_for_one_thing_each_and_hold_every_structure_once(roles, size):
    roles = np.array(roles, dtype=np.uint8)
    numbers = np.arange(1, len(roles) + 1)
    if not roles.any():
        roles[0] = TRAINS
    made = arrange_in_blocks(TrainingSets({"energy": numbers.astype(float), "species": numbers[:, None]}, roles), size)
    assert len(made["energy"]) % size == 0
    real = made["species"][:, 0] > 0
    assert sorted(made["species"][real, 0]) == numbers[roles.any(axis=1)].tolist()
    for first in range(0, len(real), size):
        block = slice(first, first + size)
        assert real[first]
        assert len(np.unique(made["roles"][block][real[block]], axis=0)) == 1
    assert np.array_equal(made["roles"][real], roles[made["species"][real, 0] - 1])


def test_what_members_cannot_be_trained_on_is_said(database, filled, tmp_path):
    caches = shutil.copytree(filled / "caches", tmp_path / "caches")
    with pytest.raises(ConfigError, match="made from reduction r, iteration 0"):
        choose_sets(config(caches=str(caches), reduction="other"), database)
    with pytest.raises(ConfigError, match="members = 4"):
        choose_sets(config(caches=str(caches), members=4), database)
    with pytest.raises(ConfigError, match="member 0 has no structures to validate on"):
        choose_sets(config(validation_share=0.01), database)
    with pytest.raises(InputError, match="no caches"):
        choose_sets(config(caches=str(tmp_path)), database)
    with opened(tmp_path / "db") as other:
        ingest.import_files(other, [filled / "metals.xyz"], Properties())
        other.compress_dataset()
        other.add(["Al"], [[0, 0, 0]], energy=1.0, forces=[[0, 0, 0]])
        other.compress_dataset()
        assert choose_sets(config(caches=str(caches)), other)[1].roles.any()  # the same structures: the ids say so
    with opened(tmp_path / "bare") as other:
        other.add(["Al"], [[0, 0, 0]], energy=1.0, forces=[[0, 0, 0]])
        other.compress_dataset()
        with pytest.raises(InputError, match="from another database"):
            choose_sets(config(caches=str(caches)), other)
    database.build_strided_train_cache(tmp_path / "npz", "r", 0.5, 0.2, 3, format="npz")
    with pytest.raises(InputError, match="the caches have format npz"):
        choose_sets(config(caches=str(tmp_path / "npz")), database)
    damaged = caches / "member-1/train.npz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged"):
        choose_sets(config(caches=str(caches)), database)
