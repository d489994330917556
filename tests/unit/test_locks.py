"""The locks: they resolve, they have hashes, and they are what is installed."""

import importlib.metadata
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "scripts" / "locks").glob("*.txt"))
FOR_GPUS = re.compile("triton|nvidia-.*|cuda-.*")


def entries(lock: Path) -> Iterator[tuple[str, str, Marker | None, str]]:
    """Yield name, version, marker and hashes of each entry."""
    for entry in re.split(r"\n(?=\S)", lock.read_text()):
        if not entry.startswith("#"):
            head, _, hashes = entry.partition("\\\n")
            requirement, _, marker = head.partition(";")
            name, _, version = requirement.strip().partition("==")
            yield name, version, Marker(marker) if marker else None, hashes


def here(lock: str) -> dict[str, str]:
    """Return the versions that a lock has for this interpreter and platform."""
    chosen = entries(ROOT / "scripts" / "locks" / f"{lock}.txt")
    return {name: version for name, version, marker, _ in chosen if marker is None or marker.evaluate()}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_each_entry_has_a_version_and_hashes(lock: Path) -> None:
    found = list(entries(lock))
    assert found
    for name, version, _, hashes in found:
        assert version, name
        assert re.fullmatch(r"(\s+--hash=sha256:[0-9a-f]{64}( \\\n)?)+\s*", hashes), name


def test_what_is_asked_for_resolves_to_the_locks() -> None:
    done = subprocess.run([ROOT / "scripts" / "lock.sh", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_locks_are_what_is_installed() -> None:
    """All of it, and nothing else. Without a GPU, torch is the build for CPUs."""
    locked = here("scimill") | here("tests") | here("uv")
    needed = {name: version for name, version in locked.items() if not FOR_GPUS.fullmatch(name)}
    installed = {canonicalize_name(each.name): each.version for each in importlib.metadata.distributions()}
    for ours in ("scimill", "pip", "setuptools", "scimill-pendulum"):
        installed.pop(ours, None)
    needed.pop("setuptools")
    torch = installed.pop("torch")
    assert torch in (needed.pop("torch"), here("torch-cpu")["torch"])
    assert installed.items() <= locked.items()
    assert needed.items() <= installed.items()


def test_torch_for_cpus_has_the_version_of_the_other() -> None:
    assert here("torch-cpu") == {"torch": here("scimill")["torch"] + "+cpu"}
