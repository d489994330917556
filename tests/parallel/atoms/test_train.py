"""Ensembles of potentials under mpirun: a team of ranks per member, and the same ensemble on 1, 2 and 3 ranks."""

import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from atoms_data import metals, opened
from mpi import scimill, start, succeed, wait_until
from scimill.atoms.database.database import Database
from scimill.atoms.exchange.ingest import import_files
from scimill.atoms.exchange.properties import Properties
from scimill.atoms.exchange.serial_ase import ase
from scimill.atoms.learning.potentials import evaluate_cache

SAME = 1e-9  # tolerance of float64 parameters: rounding depends on the order of a sum
ARGUMENTS = ("--radial", 8, "--hidden", 8, "--epochs", 12, "--precision", "float64", "--cutoff", 4)
STOPPED, NUMERICAL = 75, 5


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    folder = tmp_path_factory.mktemp("database")
    ase.io.write(folder / "metals.xyz", metals(24), format="extxyz")
    with opened(folder / "db") as made:
        import_files(made, [folder / "metals.xyz"], Properties())
        made.compress_dataset()
    return folder / "db"


@pytest.fixture(scope="module")
def alone(database, tmp_path_factory):
    """Ensembles of 2 and 3 members, trained on one rank."""
    runs = {members: tmp_path_factory.mktemp("alone") / "run" for members in (2, 3)}
    for members, run in runs.items():
        result = succeed("atoms", "train", database, "--output", run, "--members", members, *ARGUMENTS)
        assert f"{members} members, each with model.pt" in result.stdout
    return runs


def parameters(run, member):
    return torch.load(run / f"member-{member}" / "model.pt", weights_only=True)["state"]


def require_same(run, other, members):
    for member in range(members):
        one, two = parameters(run, member), parameters(other, member)
        assert one.keys() == two.keys()
        for name, values in one.items():
            assert torch.allclose(values.double(), two[name].double(), rtol=0, atol=SAME), (member, name)


def ranks_of(run, members):
    """Return how many ranks trained each member."""
    files = [run / f"member-{member}" / "run.json" for member in range(members)]
    return [json.loads(file.read_text())["environment"]["ranks"] for file in files]


@pytest.mark.parametrize(("ranks", "members", "each"), [(2, 3, [1, 1, 1]), (3, 2, [2, 1])])
def test_teams_of_ranks_train_the_members_as_one_rank_does(database, alone, tmp_path, ranks, members, each):
    run = tmp_path / "run"
    succeed("atoms", "train", database, "--output", run, "--members", members, *ARGUMENTS, ranks=ranks)
    assert ranks_of(run, members) == each
    require_same(run, alone[members], members)


def test_ranks_share_an_evaluation_by_an_ensemble(database, alone, tmp_path):
    paths = [shutil.copytree(database, tmp_path / name) for name in ("one", "many")]
    for path in paths:
        with Database(path) as opened_:
            opened_.create_reduction("r", number=4)
    with Database(paths[0]) as opened_:
        opened_.evaluate_unused_data(alone[2], "r")
    result = succeed("atoms", "evaluate", paths[1], "r", "--ensemble", alone[2], ranks=3)
    assert "20 structures evaluated, 0 failed; RMSE of energies" in result.stdout
    folders = [path / "Data_reductions/r/predictions" for path in paths]
    one, many = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert len(one) > 3
    assert many == one


def test_ranks_share_the_evaluation_of_a_cache(database, alone, tmp_path):
    with Database(database) as opened_:
        opened_.build_strided_train_cache(tmp_path / "cache", None, 1.0, 0.0, 1, format="npy", select="all")
    expected = evaluate_cache(alone[2], tmp_path / "cache").predicted
    assert len(expected) > 5
    driver = Path(__file__).with_name("evaluating.py")
    program = (sys.executable, *map(str, (driver, alone[2], tmp_path / "cache", tmp_path / "found")))
    result = scimill(program=program, ranks=3)
    assert result.returncode == 0, result
    for rank in range(3):
        found = np.load(tmp_path / f"found-{rank}.npz")
        assert set(found.files) == set(expected)
        assert all(np.array_equal(found[group], values["forces"]) for group, values in expected.items())


def test_a_signal_to_one_rank_stops_all_teams_and_others_go_on(database, alone, tmp_path):
    run = tmp_path / "run"
    command = ("atoms", "train", database, "--output", run, "--members", 3, *ARGUMENTS)
    with start(*command, ranks=2) as job:
        wait_until((run / "member-0" / "checkpoint.pt").exists, "a checkpoint")
        job.kill(1, signal.SIGTERM)
        result = job.wait()
    assert (result.returncode, result.tracebacks) == (STOPPED, 0), result
    assert result.stderr.count("stopped by signal SIGTERM; a checkpoint was written") == 1, result
    assert not all((run / f"member-{member}" / "result.json").exists() for member in range(3))
    succeed(*command, "--resume", ranks=3)
    require_same(run, alone[3], 3)


def test_a_failure_of_one_team_ends_the_job_with_one_message(database, tmp_path):
    run = tmp_path / "run"
    diverging = ("--learning-rate", 1000, "--optimizer", "lars", "--momentum", 0.99, "--warmup-steps", 0)
    command = ("atoms", "train", database, "--output", run, "--members", 2, *ARGUMENTS, *diverging)
    result = scimill(*command, ranks=3)
    assert (result.returncode, len(result.errors), result.tracebacks) == (NUMERICAL, 1, 0), result
    assert "loss is" in result.errors[0]
