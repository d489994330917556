"""Kill adding, importing, compressing, evaluating and updating at random lines, and check the database afterwards.

    PYTHONPATH=tests python tests/faults/atoms_campaign.py [--kills N] [--seed N]

prints for each action the number of kills, and how many left a database that was unreadable, had lost or duplicated a
structure, or did not reach the state of an undisturbed run when the action was repeated.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from atoms_data import contents, fill, metals, opened
from faults.dying import killed, lines
from scimill.atoms.database.database import Database
from scimill.atoms.exchange.ingest import import_files
from scimill.atoms.exchange.properties import Properties
from scimill.atoms.exchange.serial_ase import ase

State = tuple[dict[str, tuple[str, bytes]], dict[int, dict[str, bytes]]]


def add(path: Path) -> None:
    with opened(path) as database:
        fill(database, 4, seed=9)


def ingest(path: Path) -> None:
    with opened(path) as database:
        import_files(database, [path.with_name("more.xyz")], Properties(), piece_rows=2)


def compress(path: Path) -> None:
    with opened(path) as database:
        database.compress_dataset()


def evaluate(path: Path) -> None:
    with Database(path) as database:
        database.ase_evaluate_unused_data("lj", "r")


def update(path: Path) -> None:
    with Database(path) as database:
        found = database.predictions("r")
        database.update_data_reductions("r", found.predicted, found.true, 0.5)


ACTIONS: dict[str, Callable[[Path], None]] = {
    "add": add, "import": ingest, "compress": compress, "evaluate": evaluate, "update": update,
}  # fmt: skip


def state(path: Path) -> State:
    """Return every structure, and every index of every iteration."""
    with Database(path) as database:
        indices = {
            number: {group: values.tobytes() for group, values in database.reduction("r", number).index.items()}
            for number in database.reductions.iterations("r")
        }
        return contents(database), indices


class Campaign:
    """An action that is killed on copies of a database.

    Parameters
    ----------
    folder : for the copies.
    name : of the action.

    """

    def __init__(self, folder: Path, name: str) -> None:
        self._name, self._action = name, ACTIONS[name]
        self._original, self._work = folder / "original", folder / "work"
        self._original.mkdir()
        self.path = self._work / "db"
        make(self._original / "db", evaluated=name == "update")
        self.before = state(self._original / "db")
        self._restore()
        lines(lambda: self._action(self.path))
        self.after, self.predictions = state(self.path), self._predicted()
        self._restore()
        self.lines = lines(lambda: self._action(self.path))  # again: caches filled by reading shorten the second run

    def _restore(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.copytree(self._original, self._work)

    def _predicted(self) -> dict[str, bytes]:
        if self._name != "evaluate":
            return {}
        with Database(self.path) as database:
            return {group: v["energy"].tobytes() for group, v in database.predictions("r").predicted.items()}

    def kill(self, line: int) -> list[str]:
        """Kill the action at a line; return what is wrong with the database afterwards."""
        self._restore()
        killed(lambda: self._action(self.path), line)
        try:
            return self._judge()
        except Exception as error:  # any error while reading counts
            return [f"unreadable: {error!r}"]

    def _judge(self) -> list[str]:
        (old, old_indices), (new, new_indices), (found, indices) = self.before, self.after, state(self.path)
        wrong = []
        if not old.items() <= found.items():
            wrong.append("lost")
        if not found.items() <= new.items() or (self._name != "add" and found not in (old, new)):
            wrong.append("neither old nor new")
        if indices not in (old_indices, new_indices):
            wrong.append("index")
        if found == old and indices == old_indices:
            self._action(self.path)
            if state(self.path) != self.after or self._predicted() != self.predictions:
                wrong.append("a different end")
        with opened(self.path) as database:  # the next writer removes unused files
            kept = contents(database)
            left = {path.name for path in (self.path / "Compressed_data").iterdir()}
            if left != {name for name, _ in database.snapshot.manifest.segments} or kept != state(self.path)[0]:
                wrong.append("untidy")
        return wrong


def make(path: Path, *, evaluated: bool) -> None:
    """Make a database with compressed and uncompressed structures and a reduction, and a file to import."""
    ase.io.write(path.with_name("more.xyz"), metals(5), format="extxyz")
    with opened(path) as database:
        fill(database, 6)
        fill(database, 4, atoms=3, seed=5)
        database.compress_dataset()
        database.create_reduction("r", number=2)
        if evaluated:
            database.ase_evaluate_unused_data("lj", "r")
        fill(database, 3, seed=2)
        fill(database, 3, atoms=2, seed=3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=12, help="per action")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print("| action | lines | kills | unreadable, lost, duplicated or a different end |\n|---|--:|--:|--:|")
    total = 0
    for name in ACTIONS:
        with tempfile.TemporaryDirectory() as folder:
            campaign = Campaign(Path(folder), name)
            chosen = np.random.default_rng(arguments.seed).integers(1, campaign.lines + 1, arguments.kills)
            wrong = [(line, found) for line in chosen.tolist() if (found := campaign.kill(line))]
        total += len(wrong)
        print(f"| {name} | {campaign.lines:,} | {arguments.kills} | {len(wrong)} |", *wrong, flush=True)
    return int(total > 0)


if __name__ == "__main__":
    raise SystemExit(main())
