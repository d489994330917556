import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mpi import succeed

Mount = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def compiled_kernel(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compile the kernel once, so that no timed test waits for it."""
    succeed("droplets", "generate", tmp_path_factory.mktemp("warm") / "a.h5", "--count", 16)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output in a folder of its own, so that leftovers show."""
    folder = tmp_path / "output"
    folder.mkdir()
    return folder / "droplets.h5"


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount small disks; needs root, and fails without."""
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
