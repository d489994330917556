"""The commands of atoms under mpirun: the same bytes on 1, 2 and 3 ranks, and one message for what goes wrong."""

import hashlib

import pytest

from atoms_data import metals
from mpi import scimill, succeed
from scimill.atoms.serial_ase import ase


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    path = tmp_path_factory.mktemp("structures") / "metals.xyz"
    ase.io.write(path, metals(30), format="extxyz")
    return path


def digests(folder):
    """SHA-256 of every file below a folder."""
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
        succeed("atoms", "reduce", path, "first", "--number", 10, ranks=ranks)
        cut = ("--reduction", "first", "--n-caches", 3, "--train-fraction", 0.6, "--valid-fraction", 0.3)
        result = succeed("atoms", "cache", path, path / "caches", *cut, ranks=ranks)
        assert "3 members, the first with 6 structures to train on and 3 to validate" in result.stdout
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
