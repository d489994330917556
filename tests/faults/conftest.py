import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from faults import fuzz
from mpi import succeed
from needs import require

Mount = Callable[..., Path]
CASES = 2000
"""Random inputs of each kind."""
SEED = 1
KINDS = ("configs", "files")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount small disks."""
    require("mounting")
    with ExitStack() as mounted:

        def tmpfs(size: str, options: str = "rw") -> Path:
            folder = tmp_path / f"disk-{size}"
            folder.mkdir(exist_ok=True)
            options = f"remount,{options}" if folder.is_mount() else f"size={size},{options}"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
            if "remount" not in options:
                mounted.callback(subprocess.run, ["umount", "--lazy", folder], check=True)
            return folder

        yield tmpfs


@pytest.fixture
def ramfs(tmp_path: Path) -> Iterator[Path]:
    """A file system that supports neither direct I/O nor reserving space."""
    require("mounting")
    folder = tmp_path / "ramfs"
    folder.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def fuzzers(compiled_kernel: None) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Try random configurations and damaged files, each in a low-priority process."""
    started = {
        what: subprocess.Popen(
            ["nice", sys.executable, fuzz.__file__, f"--seed={SEED}", *(f"--{w}={CASES * (w == what)}" for w in KINDS)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for what in KINDS
    }  # fmt: skip
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def fuzzers_beside(request: pytest.FixtureRequest) -> None:
    """Start them during slow tests of the same process, if their own tests will run."""
    if any("fuzzers" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("fuzzers")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 blocks of 64 droplets to train on."""
    path = tmp_path_factory.mktemp("store") / "droplets.h5"
    succeed("droplets", "generate", path, "--count", 1280, "--block-size", 64, "--tolerance", 1e-4)
    return path
