"""An external campaign: the example of docs/extending.md gets everything that shipped campaigns have."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.constants import g
from scipy.special import ellipj, ellipk

from mpi import (
    DONE,
    Result,
    dataset_hashes,
    done_blocks,
    forking_program,
    quick_path,
    scimill,
    start,
    wait_until,
)

EXAMPLE = Path(__file__).parents[2] / "docs/examples/pendulum"
CHAIN = """
resources: {walltime: 1h}
steps:
  generate: {command: scimill pendulum generate p.h5 --count 2000 --block-size 256}
  verify: {command: scimill verify p.h5, after: generate}
  train: {command: scimill pendulum train p.h5 --output run --epochs 1 --batch-size 256, after: verify}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the example beside the environment; the variables with which it and a quick ``scimill`` are found."""
    folder = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target")
    source = tmp_path_factory.mktemp("source") / "pendulum"
    subprocess.run(["cp", "-r", EXAMPLE, source], check=True)  # building leaves files beside the source
    subprocess.run([*pip, folder, source], check=True)
    modules = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": modules, "PATH": quick_path(modules)}


def run(site: dict[str, str], *words: object, ranks: int = 1, cwd: Path | None = None) -> Result:
    result = scimill(*words, ranks=ranks, env=site, cwd=cwd, program=forking_program(site["PYTHONPATH"]))
    assert result.returncode == 0, result
    return result


def generate(site: dict[str, str], path: Path, ranks: int = 1, *flags: object) -> dict[str, str]:
    run(site, "pendulum", "generate", path, "--count", 3000, "--block-size", 256, *flags, ranks=ranks)
    return dataset_hashes(path)


def test_the_example_is_short():
    code = 0
    for path in (EXAMPLE / "pendulum").glob("*.py"):
        text = path.read_text("utf-8")
        nodes = [
            node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
        ]
        docstrings = sum(len((ast.get_docstring(node, clean=False) or "").splitlines()) for node in nodes)
        code += sum(bool(line.strip()) for line in text.splitlines()) - docstrings
    assert 0 < code <= 80


def test_the_bytes_do_not_depend_on_the_ranks(site, tmp_path):
    hashes = [generate(site, tmp_path / f"{ranks}.h5", ranks) for ranks in (1, 2, 3)]
    assert hashes[0] == hashes[1] == hashes[2]


def test_the_angles_are_those_of_the_exact_solution(site, tmp_path):
    generate(site, tmp_path / "p.h5", 1)
    with h5py.File(tmp_path / "p.h5") as file:
        start_angle, length, time, angle = (file[name][()] for name in ("initial_angle", "length", "time", "angle"))
    m = np.sin(start_angle / 2) ** 2  # released from rest: sin(angle/2) = k cd(w t, k)
    _, cn, dn, _ = ellipj(np.sqrt(g / length) * time, m)
    assert np.allclose(angle, 2 * np.arcsin(np.sqrt(m) * cn / dn), atol=1e-7)
    assert np.all(ellipk(m) > 0)


def test_a_killed_run_goes_on_to_the_same_bytes(site, tmp_path):
    path, part = tmp_path / "killed.h5", tmp_path / "killed.h5.part"
    words = ("pendulum", "generate", path, "--count", 60_000, "--block-size", 256)
    with start(*words, ranks=2, env=site) as job:
        wait_until(lambda: len(done_blocks(part)) > 5, "some blocks")
        job.kill(1, signal.SIGKILL)
        assert job.wait().returncode != 0
    assert not path.exists()
    run(site, *words, "--resume", ranks=3)
    run(site, "pendulum", "generate", tmp_path / "whole.h5", *words[3:])
    assert dataset_hashes(path) == dataset_hashes(tmp_path / "whole.h5")
    with h5py.File(path) as file:
        assert np.all(file["blocks"]["state"] == DONE)


def test_flags_presets_plans_and_provenance(site, tmp_path):
    assert "pendulum" in run(site, "--help").stdout
    printed = run(site, "pendulum", "generate", "x.h5", "--count", 5, "--preset", "metre", "--print-config").stdout
    assert "length_range: [0.9, 1.1]  # length [m]" in printed
    assert "free" in run(site, "pendulum", "generate", tmp_path / "p.h5", "--count", 5, "--dry-run").stdout
    assert not list(tmp_path.iterdir())
    wrong = scimill("pendulum", "generate", tmp_path / "p.h5", "--cuont", 5, env=site)
    assert (wrong.returncode, wrong.errors) == (2, ["scimill: error: no such option: --cuont; did you mean --count?"])
    generate(site, tmp_path / "p.h5")
    assert "scimill-pendulum 0.3" in run(site, "inspect", tmp_path / "p.h5").stdout
    again = run(site, "pendulum", "generate", tmp_path / "p.h5", "--count", 3000, "--block-size", 256, "--resume")
    assert "was already complete" in again.stderr


def test_it_verifies_and_stops_before_the_walltime(site, tmp_path):
    path = tmp_path / "p.h5"
    stopped = scimill("pendulum", "generate", path, "--count", 10**6, "--walltime", "64s", env=site)
    assert stopped.returncode == 75, stopped
    generate(site, tmp_path / "q.h5")
    assert "sound" in run(site, "verify", tmp_path / "q.h5", ranks=2).stdout


def test_a_network_is_trained_on_any_number_of_ranks(site, tmp_path):
    generate(site, tmp_path / "p.h5")
    losses = []
    for ranks in (1, 3):
        words = ("--output", tmp_path / f"run-{ranks}", "--epochs", 2, "--batch-size", 256, "--precision", "float64")
        run(site, "pendulum", "train", tmp_path / "p.h5", *words, ranks=ranks)
        rows = (tmp_path / f"run-{ranks}" / "metrics.csv").read_text("utf-8").splitlines()
        column = rows[0].split(",").index("train_angle" if "train_angle" in rows[0] else "loss")
        losses.append([float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]])
    assert len(losses[0]) >= 1
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


def test_a_chain_of_it_runs_and_its_script_renders(site, tmp_path):
    (tmp_path / "chain.yaml").write_text(CHAIN, "utf-8")
    run(site, "jobs", "run", "chain.yaml", cwd=tmp_path)
    again = run(site, "jobs", "run", "chain.yaml", cwd=tmp_path).stdout
    assert again.count("already complete") == 3
    words = ("--machine", "slurm-generic", "--walltime", "1h", "--", "scimill", "pendulum", "generate", "p.h5")
    assert "pendulum generate p.h5 --count 5" in run(site, "jobs", "render", *words, "--count", 5).stdout
    refused = scimill("jobs", "render", *words, "--count", "many", env=site)
    assert refused.returncode == 2
