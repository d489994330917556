"""The image under test: built once per content, and kept beside the wheels."""

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from needs import require

ROOT = Path(__file__).resolve().parents[2]
DEFINITION = ROOT / "containers" / "scimill.def"
BUILD = ROOT / "scripts" / "build_image.sh"
CACHE = Path(os.environ.get("SCIMILL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "scimill")
LIMIT = 2400.0  # s; on a busy machine a build took 1 276 s


def inputs() -> Iterator[Path]:
    """All files that the image's definition names, and those that build it."""
    yield from (DEFINITION, BUILD)
    section = re.search(r"^%files\n(.*?)\n\n", DEFINITION.read_text(), re.M | re.S)
    assert section
    for line in section[1].splitlines():
        path = ROOT / line.split()[0]
        yield from sorted(path.rglob("*")) if path.is_dir() else [path]


def key() -> str:
    """Hash of names and contents of `inputs`."""
    value = hashlib.sha256()
    for path in inputs():
        if path.is_file() and not {"__pycache__", "scimill.egg-info"} & set(path.parts):
            value.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return value.hexdigest()[:16]


@pytest.fixture(scope="session")
def image() -> Path:
    """The image of scimill.def, built by the users' script, which also runs its %test."""
    require("apptainer")
    folder = CACHE.expanduser() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"scimill-{key()}.sif"
    if not path.exists():
        require("building images")
        for old in folder.glob("scimill-*.sif"):
            old.unlink()
        command = [BUILD, "--definition", DEFINITION, "--output", path, "--base", "debootstrap"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return path
