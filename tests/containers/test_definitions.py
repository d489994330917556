"""The three definitions, with docker in their headers: apptainer reads them, and rejects a broken one."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from containers.conftest import ROOT

DEFINITIONS = sorted((ROOT / "containers").glob("*.def"))
NOWHERE = "registry.invalid/nothing:1"
"""A registry that cannot exist: RFC 6761 reserves .invalid, so no build starts, whatever the network."""


def parse(definition: Path, folder: Path, *options: str) -> str:
    """Return apptainer's message for a definition with an unreachable base; it parses before it fetches."""
    arguments = ["--build-arg", f"from={NOWHERE}", "--build-arg", f"runtime={NOWHERE}", "--warn-unused-build-args"]
    command = ["apptainer", "build", *arguments, *options, folder / "image.sif", definition]
    env = os.environ | {"APPTAINER_TMPDIR": str(folder)}  # where a failed build leaves its tree
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0 and not (folder / "image.sif").exists(), done
    return done.stderr


def is_read(message: str) -> bool:
    """Whether only the registry stopped the build."""
    return "conveyor failed to get" in message and "registry.invalid" in message


def test_there_are_three() -> None:
    assert [path.stem for path in DEFINITIONS] == ["scimill-cuda", "scimill-mpich", "scimill"]


@pytest.mark.needs("apptainer")
@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda path: path.stem)
def test_apptainer_reads_it(definition: Path, tmp_path: Path) -> None:
    message = parse(definition, tmp_path)
    assert is_read(message), message


BREAKS = {
    "an unknown section": ("%labels", "%lables"),
    "an unknown agent": ("agent=docker", "agent=dokcer"),
    "an argument without value": ("    git=unknown\n", ""),
    "a word that is no key in the header": ("Stage: build", "Stadium: build"),
}


@pytest.mark.needs("apptainer")
@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_one_is_recognised(definition: Path, what: str, tmp_path: Path) -> None:
    right, wrong = BREAKS[what]
    text = definition.read_text()
    assert right in text
    broken = tmp_path / definition.name
    broken.write_text(text.replace(right, wrong))
    message = parse(broken, tmp_path)
    assert not is_read(message), message


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda path: path.stem)
def test_all_that_it_copies_is_there(definition: Path) -> None:
    section = re.search(r"^%files\n(.*?)\n\n", definition.read_text(), re.M | re.S)
    assert section
    missing = [line for line in section[1].splitlines() if not (ROOT / line.split()[0]).exists()]
    assert missing == []
    stages = re.findall(r"^Stage: (.*)$", definition.read_text(), re.M)
    assert re.findall(r"^%files from (.*)$", definition.read_text(), re.M) == stages[:1]


def test_they_name_no_mirror() -> None:
    for definition in DEFINITIONS:
        assert not re.search(r"https?://", definition.read_text()), definition


def test_they_differ_only_where_they_must() -> None:
    """Shared parts of images are in containers/image; their common sections differ only in MPI and GPU."""
    texts = [re.sub(r"\b(openmpi|mpich)$", "MPI", path.read_text(), flags=re.M) for path in DEFINITIONS]
    for section in ("files", "environment", "runscript", "apprun mpirun", "apprun doctor"):
        found = {re.search(rf"^%{section}\n(.*?)\n\n", text, re.M | re.S)[1] for text in texts}  # type: ignore[index]
        assert len(found) == 1, section
