"""Compare the database of atoms with plain h5py and with ASE's database, and evaluating with a bare loop.

Every time is in CPU seconds, the minimum of several repeats, because wall-clock time says little on a shared machine.
The baselines are common practice: one HDF5 group per structure with one dataset per property; rows picked from a
chunked dataset by a list of numbers; one row of ASE's database per structure. They are slow, so they are timed on fewer
structures and compared by rate. Load balance and the memory of compressing are measured in separate processes.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from h5py import Dataset, File

from scimill.atoms import evaluate
from scimill.atoms.database.database import Database
from scimill.atoms.exchange.serial_ase import connect
from scimill.atoms.learning.potentials import evaluate_cache, members_of
from scimill.atoms.learning.train import train_ensemble
from scimill.atoms.params import AtomsTrainConfig
from scimill.config import Layer, build
from scimill.parallel.partition import share
from scimill.parallel.world import world
from scimill.training.directory import RunDirectory

NAIVE_ROWS = 1500  # structures for the baselines
MEMBERS = 8
MEMBERS_TRAINED = 4
EVALUATED = 150  # Al28 structures, for the overhead
MIXED = ((28, 240), (128, 80))  # (atoms, structures), for the load balance
LATTICE = 4.05  # Å, aluminium

Arrays = dict[str, np.ndarray]


def structures(rows: int, atoms: int, seed: int = 1) -> Arrays:
    """Make rattled aluminium: coordinates, cells, energies, forces."""
    stream = np.random.default_rng(seed)
    edge = round((atoms / 4) ** (1 / 3) + 0.499)
    sites = [
        (i, j, k) for i in range(2 * edge) for j in range(2 * edge) for k in range(2 * edge) if (i + j + k) % 2 == 0
    ]
    base = np.array(sites[:atoms], dtype=float) * LATTICE / 2
    coordinates = base + stream.normal(0, 0.1, (rows, atoms, 3))
    cell = np.broadcast_to(np.eye(3) * edge * LATTICE, (rows, 3, 3)).copy()
    forces = stream.normal(0, 1, (rows, atoms, 3))
    return {"coordinates": coordinates, "cell": cell, "energy": stream.normal(0, 1, rows), "forces": forces}


def part(arrays: Arrays, rows: int) -> Arrays:
    return {name: values[:rows] for name, values in arrays.items()}


def rate(repeats: int, count: int, prepare: Callable[[int], Any], work: Callable[[Any], Any]) -> float:
    """Measure structures per CPU second, the best of several repeats."""
    best = np.inf
    for repeat in range(repeats):
        argument = prepare(repeat)
        started = time.process_time()
        work(argument)
        best = min(best, time.process_time() - started)
    return count / best


# ---- baselines --------------------------------------------------------------------------------------------------


def groups_write(path: Path, arrays: Arrays) -> None:
    """Write one group per structure, with one dataset per property."""
    with File(path, "w") as file:
        for row in range(len(arrays["energy"])):
            group = file.create_group(f"Uncompressed_data/{row:08d}")
            group["species"] = np.full(arrays["coordinates"].shape[1], 13, np.uint8)
            group["pbc"], group["test"], group["uid"] = np.ones(3, bool), np.uint8(0), np.bytes_(f"{row:032d}")
            for name, values in arrays.items():
                group[name] = values[row]


def groups_compress(path: Path) -> None:
    """Read every group and append it to resizable datasets."""
    with File(path, "a") as file:
        out: dict[str, Dataset] = {}
        for number, group in enumerate(file["Uncompressed_data"].values()):
            for name in ("coordinates", "cell", "energy", "forces"):
                value = group[name][()]
                if name not in out:
                    shape = np.shape(value)
                    out[name] = file.create_dataset(f"Al28/{name}", (0, *shape), "f8", maxshape=(None, *shape))
                out[name].resize(number + 1, axis=0)
                out[name][number] = value


def chunked(path: Path, arrays: Arrays) -> Path:
    with File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, chunks=(min(64, len(values)), *values.shape[1:]))
    return path


def fancy_caches(path: Path) -> None:
    """For each member, read its rows by a sorted list of numbers."""
    with File(path) as file:
        rows = len(file["energy"])
        for member in range(MEMBERS):
            order = np.random.default_rng(member).permutation(rows)
            with File(path.with_name(f"naive-{member}.h5"), "w") as out:
                for kind, chosen in (
                    ("train", order[: int(0.8 * rows)]),
                    ("valid", order[int(0.8 * rows) : int(0.9 * rows)]),
                ):
                    for name in file:
                        out[f"{kind}/{name}"] = file[name][np.sort(chosen)]


def ase_write(path: Path, arrays: Arrays) -> Path:
    with connect(path) as database:
        for row in range(len(arrays["energy"])):
            atoms = Atoms(
                f"Al{arrays['coordinates'].shape[1]}", arrays["coordinates"][row], cell=arrays["cell"][row], pbc=True
            )
            atoms.calc = SinglePointCalculator(atoms, energy=arrays["energy"][row], forces=arrays["forces"][row])
            database.write(atoms)
    return path


def ase_read(path: Path) -> None:
    with connect(path) as database:
        for row in database.select():
            row.energy, row.forces  # noqa: B018


# ---- scimill ----------------------------------------------------------------------------------------------------


def add_singly(database: Database, arrays: Arrays) -> None:
    species = np.full(arrays["coordinates"].shape[1], 13)
    for row in range(len(arrays["energy"])):
        database.add(species, **{name: values[row] for name, values in arrays.items()})


def add_batch(database: Database, arrays: Arrays) -> None:
    database.add_batch(np.full(arrays["coordinates"].shape[1], 13), **arrays)


def read_labels(database: Database) -> None:
    for _ in database.blocks(["energy", "forces"]):
        pass


def compress_here(path: Path) -> None:
    """Compress, and print the time and the memory it needed; run in a separate process."""
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak, which is inherited from the parent process
    before = memory("VmRSS")
    with Database(path, write=True) as database:
        started = time.process_time()
        database.compress_dataset()
        seconds = time.process_time() - started
    print(json.dumps([seconds, memory("VmHWM") - before]))


def memory(kind: str) -> float:
    """Return the resident memory now (VmRSS) or at its peak (VmHWM), MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def balance_here(path: Path) -> None:
    """Evaluate this rank's blocks, and print the load balance: mean over maximum of the ranks' CPU seconds."""
    ranks = world()
    with Database(path, world=ranks) as database, tempfile.TemporaryDirectory() as folder:
        blocks = evaluate.make_blocks(database.snapshot, "r", None, "unused")
        started = time.process_time()
        for number in share(np.arange(len(blocks)), ranks.rank, ranks.size).tolist():
            evaluate.evaluate_block(database.snapshot, Path(folder), blocks[number], [EMT()])
        busy = ranks.gather_all(time.process_time() - started)
    if ranks.is_root:
        print(json.dumps(float(np.mean(busy) / np.max(busy))))


def measure_here(what: str, path: str) -> None:
    """Run one measurement in this process, for the parent process."""
    {"balance": balance_here, "compress": compress_here}[what](Path(path))


# ---- the comparisons --------------------------------------------------------------------------------------------


def ingest_and_compress(folder: Path, arrays: Arrays, repeats: int) -> dict[str, float]:
    """Measure structures per CPU second for every way to add structures, and for compressing groups."""
    few, rows = part(arrays, NAIVE_ROWS), len(arrays["energy"])
    found = {
        "groups write": rate(repeats, NAIVE_ROWS, lambda n: folder / f"groups-{n}.h5", lambda p: groups_write(p, few)),
        "groups compress": rate(repeats, NAIVE_ROWS, lambda n: folder / f"groups-{n}.h5", groups_compress),
    }
    singly = part(arrays, min(rows, 20_000))

    def fresh(number: int, kind: str) -> Database:
        return Database(folder / f"{kind}-{number}", write=True)

    found["add"] = rate(repeats, len(singly["energy"]), lambda n: fresh(n, "singly"), lambda d: add_singly(d, singly))
    found["add_batch"] = rate(repeats, rows, lambda n: fresh(n, "batch"), lambda d: add_batch(d, arrays))
    return found


def caches(database: Database, folder: Path, arrays: Arrays, repeats: int) -> dict[str, float]:
    """Measure MB per CPU second for writing eight caches."""
    rows = len(arrays["energy"])
    few = part(arrays, min(rows, 10_000))
    bytes_per_row = sum(values[0].nbytes for values in arrays.values()) * MEMBERS * 0.9 / 1e6
    ours = rate(
        repeats, rows, lambda n: folder / f"caches-{n}",
        lambda p: database.build_strided_train_cache(p, None, 0.8, 0.1, MEMBERS),
    )  # fmt: skip
    naive = rate(repeats, len(few["energy"]), lambda n: chunked(folder / f"chunked-{n}.h5", few), fancy_caches)
    index = rate(
        repeats, rows, lambda n: folder / f"index-{n}",
        lambda p: database.build_strided_train_cache(p, None, 0.8, 0.1, MEMBERS, format="index"),
    )  # fmt: skip
    return {
        "caches": ours * bytes_per_row,
        "fancy caches": naive * bytes_per_row,
        "index caches": index * bytes_per_row,
    }


class IdleCalculator(Calculator):
    """A calculator that does nothing, so that only the overhead remains."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}


def run_loop(arrays: Arrays, calculator: Any) -> None:
    """Run a calculator in a loop."""
    for row in range(len(arrays["energy"])):
        cell, positions = arrays["cell"][row], arrays["coordinates"][row]
        atoms = Atoms("Al28", positions, cell=cell, pbc=True, calculator=calculator)
        atoms.get_potential_energy(), atoms.get_forces()


def overhead(folder: Path, repeats: int) -> float:
    """Measure the overhead of the database over a bare loop, relative to the time of EMT.

    Both run a calculator that does nothing: with EMT itself the difference would be smaller than the noise.
    """
    arrays = structures(EVALUATED, 28)
    path = folder / "evaluated"
    with Database(path, write=True) as database:
        add_batch(database, arrays)
        database.compress_dataset()
        for repeat in range(repeats):
            database.create_reduction(f"r{repeat}", number=0)
    with Database(path) as database:
        ours = rate(
            repeats, EVALUATED, lambda n: f"r{n}", lambda r: database.ase_evaluate_unused_data(IdleCalculator, r)
        )
    loop = rate(repeats, EVALUATED, lambda _: IdleCalculator(), lambda calculator: run_loop(arrays, calculator))
    emt = rate(repeats, EVALUATED, lambda _: EMT(), lambda calculator: run_loop(arrays, calculator))
    return (1 / ours - 1 / loop) * emt


def ensemble(folder: Path, repeats: int) -> dict[str, float]:
    """Measure structures per CPU second of an ensemble: as ASE calculators, many at once, and from a cache."""
    path, run, pool = folder / "evaluated", folder / "ensemble", folder / "pool"
    with Database(path) as database:
        database.create_reduction("few", number=16)
        values = {"reduction": "few", "members": MEMBERS_TRAINED, "epochs": 1}
        config = build(AtomsTrainConfig, [Layer("benchmark", values)])
        train_ensemble(config, database, RunDirectory(run), world())
        for repeat in range(2 * repeats):
            database.create_reduction(f"none{repeat}", number=0)
        database.build_strided_train_cache(pool, "none0", 1.0, 0.0, 1, select="unused", format="npy")
        members, none = members_of(run), "none{}".format
        return {
            "ensemble, as ASE": rate(
                repeats, EVALUATED, none, lambda name: database.ase_evaluate_unused_data(members, name)
            ),
            "ensemble": rate(
                repeats, EVALUATED, lambda n: none(n + repeats), lambda name: database.evaluate_unused_data(run, name)
            ),
            "ensemble, cache": rate(repeats, EVALUATED, lambda _: pool, lambda cache: evaluate_cache(run, cache)),
        }


def balance(folder: Path, ranks: int) -> float:
    path = folder / "mixed"
    if not path.exists():
        with Database(path, write=True) as database:
            for atoms, rows in MIXED:
                add_batch(database, structures(rows, atoms))
            database.compress_dataset()
            database.create_reduction("r", number=0)
    return float(harness.run_part("balance", path, ranks=ranks))


def measure(folder: Path, rows: int, repeats: int) -> dict[str, float]:
    """Measure all figures, by name."""
    arrays = structures(rows, 28)
    found = ingest_and_compress(folder, arrays, repeats)
    with Database(folder / "single", write=True) as database:
        add_singly(database, arrays)
    seconds, found["compress memory"] = json.loads(harness.run_part("compress", folder / "single"))
    found["compress"] = rows / seconds
    with Database(folder / "single") as database:
        found |= caches(database, folder, arrays, repeats)
        found["read"] = rate(repeats, rows, lambda _: database, read_labels)
    few = part(arrays, NAIVE_ROWS)
    found["ase-db read"] = rate(repeats, NAIVE_ROWS, lambda n: ase_write(folder / f"rows-{n}.db", few), ase_read)
    found["overhead"] = overhead(folder, repeats)
    found |= ensemble(folder, repeats)
    return found | {f"balance {ranks}": balance(folder, ranks) for ranks in (2, 4)}


def main() -> int:
    rows = harness.Option("rows", 100_000, 2_000, "structures of 28 atoms")
    arguments = harness.parse(
        __doc__, rows, harness.repeats(3), harness.DIRECTORY, needs=("mpirun",), part=measure_here
    )
    world()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        found = measure(Path(folder), arguments.rows, arguments.repeats)
    print(f"{harness.describe_machine()}; {arguments.rows:,} structures of 28 atoms, CPU seconds")
    print("\n".join(f"{name:18} {value:14,.4g}" for name, value in found.items()))
    goals = [
        harness.Goal("add, compared with a group per structure", found["add"] / found["groups write"], least=8),
        harness.Goal(
            "add_batch, compared with a group per structure", found["add_batch"] / found["groups write"], least=100
        ),
        harness.Goal(
            "compress, compared with reading and appending groups",
            found["compress"] / found["groups compress"],
            least=5,
        ),
        harness.Goal("memory of compressing, MiB", found["compress memory"], most=256),
        harness.Goal("8 caches, compared with rows by a list", found["caches"] / found["fancy caches"], least=4),
        harness.Goal("8 caches, MB/s", found["caches"], least=300),
        harness.Goal(
            "energies and forces, compared with ASE's database", found["read"] / found["ase-db read"], least=50
        ),
        harness.Goal("overhead of evaluating", found["overhead"], most=0.03),
        harness.Goal(
            "ensemble at once, compared with its members as ASE calculators",
            found["ensemble"] / found["ensemble, as ASE"],
            least=2,
        ),
        harness.Goal(
            "ensemble on a cache, compared with its members as ASE calculators",
            found["ensemble, cache"] / found["ensemble, as ASE"],
            least=2,
        ),
        *(harness.Goal(f"load balance on {ranks} ranks", found[f"balance {ranks}"], least=0.95) for ranks in (2, 4)),
    ]
    return harness.conclude(goals, {"figures": found}, arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
