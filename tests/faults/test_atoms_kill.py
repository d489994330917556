"""kill -9 while structures are added, imported and compressed: every state that is left is the old or the new one."""

import shutil

import ase.io
import numpy as np
import pytest

from atoms_data import contents, fill, metals, opened
from faults.dying import killed, lines
from scimill.atoms import Database
from scimill.atoms.ingest import import_files
from scimill.atoms.properties import Properties

KILLS = 8  # per action; scripts/atoms_faults.py does more


def add(path):
    with opened(path) as database:
        fill(database, 4, seed=9)


def compress(path):
    with opened(path) as database:
        database.compress_dataset()


def ingest(path):
    with opened(path) as database:
        import_files(database, [path.with_name("more.xyz")], Properties(), piece_rows=2)


ACTIONS = {"add": add, "import": ingest, "compress": compress}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A database with compressed and uncompressed structures, and a file to import."""
    folder = tmp_path_factory.mktemp("original")
    ase.io.write(folder / "more.xyz", metals(5), format="extxyz")
    with opened(folder / "db") as database:
        fill(database, 5)
        database.compress_dataset()
        fill(database, 3, seed=2)
        fill(database, 3, atoms=2, seed=3)
    return folder


def state(path):
    with Database(path) as database:
        return contents(database)


@pytest.mark.parametrize("name", ACTIONS)
def test_nothing_is_lost_and_nothing_doubled(original, tmp_path, name):
    action, path = ACTIONS[name], tmp_path / "db"

    def restore():
        shutil.rmtree(tmp_path)
        shutil.copytree(original, tmp_path)

    restore()
    before = state(path)
    lines(lambda: action(path))
    after = state(path)
    restore()
    total = lines(lambda: action(path))  # once more: reading has filled caches, which shortens it
    assert total > 100
    for line in np.random.default_rng(1).choice(total, KILLS, replace=False) + 1:
        restore()
        assert killed(lambda: action(path), int(line))
        check(name, before, state(path), after)
        with opened(path) as database:  # the next writer removes what belongs to no state
            check(name, before, contents(database), after)
            database.compress_dataset()
            assert contents(database).keys() == state(path).keys()
            left = {p.name for p in (path / "Compressed_data").iterdir()}
            assert left == {segment for segment, _ in database.snapshot.manifest.segments}


def check(name, before, found, after):
    """Each structure of before is there, unchanged; of an action that goes on one by one, some of the new ones are."""
    if name == "add":
        assert before.items() <= found.items() <= after.items()
    else:
        assert found in (before, after)
