"""The commands of atoms under mpirun: the same bytes on 1, 2 and 3 ranks, and one message per failure."""

import hashlib
import shutil
import sys
from pathlib import Path

import pytest

from atoms_data import metals, opened
from mpi import scimill, succeed
from scimill.atoms.database.database import Database
from scimill.atoms.exchange.ingest import import_files
from scimill.atoms.exchange.properties import Properties
from scimill.atoms.exchange.serial_ase import ase


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    path = tmp_path_factory.mktemp("structures") / "metals.xyz"
    ase.io.write(path, metals(30), format="extxyz")
    return path


def digests(folder):
    """Compute the SHA-256 of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_database_has_the_same_bytes_on_any_number_of_ranks(structures, tmp_path):
    found = []
    for ranks in (1, 2, 3):
        path = tmp_path / f"{ranks}"
        result = succeed("atoms", "import", path, structures, "--piece-size", 4, "--test-fraction", 0.2, ranks=ranks)
        assert "30 structures added, 30 in all" in result.stdout
        result = succeed("atoms", "compress", path, ranks=ranks)
        assert "30 structures compressed" in result.stdout
        with Database(path) as database:
            database.create_reduction("first", number=10)
        cut = ("--reduction", "first", "--n-caches", 3, "--train-fraction", 0.6, "--valid-fraction", 0.3)
        result = succeed("atoms", "cache", path, path / "caches", *cut, ranks=ranks)
        assert "3 members; the first has 6 structures to train on and 3 to validate on" in result.stdout
        found.append(digests(path))
    sets = {f"caches/member-{m}/{kind}.h5" for m in range(3) for kind in ("train", "valid")}
    database = {"manifest.json", "Compressed_data/000000.h5", "Data_reductions/first/0.h5"}
    assert found[0].keys() == {*database, *sets, "caches/manifest.json"}
    for path in sorted(database | sets):
        assert found[0][path] == found[1][path] == found[2][path], path


def test_a_refusal_on_one_rank_ends_the_job_with_one_message(structures, tmp_path):
    bad = tmp_path / "bad.xyz"
    bad.write_text(structures.read_text().replace("Cu ", "Qq ", 1))
    result = scimill("atoms", "import", tmp_path / "db", bad, "--piece-size", 4, ranks=2)
    assert result.returncode == 3, result
    assert len(result.errors) == 1
    assert "frame" in result.errors[0]
    assert result.tracebacks == 0
    assert "30 structures added" in succeed("atoms", "import", tmp_path / "db", structures, ranks=2).stdout


def test_ranks_share_an_evaluation_and_find_the_same(structures, tmp_path):
    with opened(tmp_path / "0") as database:
        import_files(database, [structures], Properties())
        database.compress_dataset()
        database.create_reduction("r", fraction=0.2)
    found = []
    for ranks in (1, 3):
        path = shutil.copytree(tmp_path / "0", tmp_path / f"{ranks}")
        result = succeed("atoms", "evaluate", path, "r", "--calculator", "emt", ranks=ranks)
        assert "24 structures evaluated, 0 failed; RMSE of energies" in result.stdout
        found.append(digests(path / "Data_reductions"))
        result = succeed("atoms", "update", path, "r", "--fraction", 0.5, "--score", "force", ranks=ranks)
        assert "reduction r, iteration 1: 12 structures added, 0 excluded" in result.stdout
        found[-1] |= {f"updated {name}": digest for name, digest in digests(path / "Data_reductions").items()}
    assert "updated r/1.h5" in found[0]
    assert found[0] == found[1]


def test_an_update_does_not_remove_predictions_that_late_ranks_still_need(structures, tmp_path):
    with opened(tmp_path / "db") as database:
        import_files(database, [structures], Properties())
        database.compress_dataset()
        database.create_reduction("r", fraction=0.2)
        database.ase_evaluate_unused_data("emt", "r")
    driver = (sys.executable, str(Path(__file__).with_name("updating.py")))
    result = scimill(tmp_path / "db", ranks=3, program=driver)
    assert result.returncode == 0, result
    assert "12 structures added" in result.stdout
