from pathlib import Path

import pytest

from mpi import succeed


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
