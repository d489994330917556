import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

Mount = Callable[..., Path]


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
