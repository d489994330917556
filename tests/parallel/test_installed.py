"""The wheel in an environment of its own: without MPI, without extras, without these sources."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from containers.conftest import CACHE, ROOT
from mpi import BIN

ENV = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], "UV_CACHE_DIR": str(CACHE.expanduser() / "uv")}
"""A user's, without the environment of the tests, so without its mpirun."""

Run = subprocess.CompletedProcess[str]


def run(*words: object, cwd: Path | None = None, **env: str) -> Run:
    certificates = {name: os.environ[name] for name in ("SSL_CERT_FILE",) if name in os.environ}
    return subprocess.run(
        [*map(str, words)], cwd=cwd, env={**ENV, **certificates, **env}, capture_output=True, text=True, check=False
    )


def succeed(*words: object, cwd: Path | None = None, **env: str) -> str:
    done = run(*words, cwd=cwd, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy of the sources, as a build writes beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "jobs"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=skipped)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    succeed(BIN / "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def scimill(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, installed from the wheel into an empty environment, with what it always requires."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    succeed(sys.executable, "-m", "venv", "--without-pip", folder)
    locked = ("--constraint", ROOT / "scripts" / "locks" / "scimill.txt")
    succeed(BIN / "uv", "pip", "install", "--no-config", "--python", folder, *locked, wheel)
    return folder / "bin" / "scimill"


def test_it_generates_and_verifies_without_mpi(scimill: Path, tmp_path: Path) -> None:
    succeed(scimill, "droplets", "generate", "a.h5", "--count", "200", cwd=tmp_path)
    succeed(scimill, "bench", "generate", "imseg", "set", "--size", "20MB", cwd=tmp_path)
    flags = ("--points", "64", "--snapshots", "1")
    succeed(scimill, "turbulence", "simulate", "t.h5", *flags, cwd=tmp_path)
    for path in ("a.h5", "set", "t.h5"):
        succeed(scimill, "verify", path, cwd=tmp_path)
    assert "fft: scipy" in succeed(scimill, "inspect", "t.h5", cwd=tmp_path)


def test_machines_templates_and_chains_are_in_the_wheel(scimill: Path, tmp_path: Path) -> None:
    assert "polaris" in succeed(scimill, "jobs", "machines")
    script = succeed(
        scimill, "jobs", "render", "--machine", "polaris", "--account", "a", "--filesystems", "home",
        "--walltime", "1h", "--nodes", "1", "--", "droplets", "generate", "a.h5", "--count", "1e6", cwd=tmp_path,
    )  # fmt: skip
    assert "#PBS" in script


NEEDS = {
    "training": ("droplets", "train", "a.h5", "--output", "run"),
    "fftw": ("turbulence", "simulate", "b.h5", "--points", "64", "--snapshots", "1", "--fft", "fftw"),
    "bench": ("bench", "generate", "dlrm", "b", "--format", "parquet", "--size", "1MB"),
    "atoms": ("atoms", "demo", "a.xyz", "--count", "2"),
    "sky": ("sky", "scene", "a", "--frames", "1"),
}
"""For each extra a command that needs it."""


@pytest.mark.parametrize("extra", NEEDS)
def test_a_missing_extra_is_named(extra: str, scimill: Path, tmp_path: Path) -> None:
    succeed(scimill, "droplets", "generate", "a.h5", "--count", "200", cwd=tmp_path)
    done = run(scimill, *NEEDS[extra], cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2), done.stderr
    assert f"pip install 'scimill[{extra}]', or scripts/setup.sh" in done.stderr


def test_ranks_without_mpi4py_are_refused(scimill: Path, tmp_path: Path) -> None:
    done = run(scimill, "droplets", "generate", "a.h5", "--count", "200", cwd=tmp_path, OMPI_COMM_WORLD_SIZE="2")
    assert done.returncode == 2, done.stderr
    assert "pip install 'scimill[mpi]'" in done.stderr


def test_the_doctor_says_what_cannot_be_done(scimill: Path, tmp_path: Path) -> None:
    done = run(scimill, "doctor", cwd=tmp_path)
    assert "installed: none" in done.stdout, done.stdout + done.stderr
    for extra, purpose in {"training": "training and exporting networks", "mpi": "several ranks"}.items():
        assert f"for {purpose}: pip install 'scimill[{extra}]'" in done.stdout


def test_it_works_from_a_folder_too(scimill: Path, wheel: Path, tmp_path: Path) -> None:
    """As with ``pip install --target`` and ``--user``, where the environment's own folder has nothing of scimill."""
    folder = tmp_path / "folder"
    succeed(
        BIN / "uv", "pip", "install", "--no-config", "--python", sys.executable, "--no-deps", "--target", folder, wheel
    )
    others = next(scimill.parents[1].glob("lib/python*/site-packages"))
    listed = succeed(sys.executable, "-m", "scimill", "jobs", "machines", PYTHONPATH=f"{folder}:{others}", cwd=tmp_path)
    assert "polaris" in listed
    where = "import scimill.jobs.machine as m; print(m.folder())"
    assert succeed(sys.executable, "-c", where, PYTHONPATH=f"{folder}:{others}").startswith(str(folder))
