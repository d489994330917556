"""The script that builds images: what it refuses before it builds, and that a failing image is not kept."""

import os
import subprocess
from pathlib import Path

import pytest

from containers.conftest import BUILD, CACHE, LIMIT, ROOT

Run = subprocess.CompletedProcess[str]


def build(*words: object, cwd: Path = ROOT, **environment: str) -> Run:
    return subprocess.run(
        [BUILD, *map(str, words)],
        cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def refused(done: Run, code: int, word: str) -> bool:
    return done.returncode == code and len(done.stderr.splitlines()) <= 4 and word in done.stderr


@pytest.fixture
def without_apptainer(tmp_path: Path) -> str:
    """A PATH with everything except apptainer."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for place in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for program in Path(place).iterdir():
            if program.name not in ("apptainer", "singularity") and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    return str(folder)


def test_without_apptainer_it_says_how_to_get_it(without_apptainer: str, tmp_path: Path) -> None:
    done = build("--output", tmp_path / "a.sif", PATH=without_apptainer)
    assert refused(done, 3, "install_apptainer.sh"), done


@pytest.mark.needs("building images")
def test_it_refuses_what_cannot_be_built(tmp_path: Path) -> None:
    there = tmp_path / "there.sif"
    there.write_text("not to be lost")
    assert refused(build("--definition", "none.def"), 3, "none.def")
    assert refused(build("--definition"), 2, "--definition")
    assert refused(build("--output", there), 2, "already exists")
    assert refused(build("--output", tmp_path), 2, "directory")
    assert refused(build("--output", tmp_path / "no" / "a.sif"), 4, "cannot write")
    assert refused(build("--output", tmp_path / "a.sif", "--base", "none.sif"), 3, "none.sif")
    assert refused(build("--output", tmp_path / "a.sif", SCIMILL_CACHE="/proc/cache"), 4, "/proc/cache")
    assert there.read_text() == "not to be lost"
    assert sorted(tmp_path.iterdir()) == [there]


@pytest.mark.needs("apptainer")
def test_a_relative_output_is_where_the_user_is(tmp_path: Path) -> None:
    (tmp_path / "there.sif").touch()
    assert refused(build("--output", "there.sif", cwd=tmp_path), 2, str(tmp_path / "there.sif"))


def test_help_says_what_it_takes() -> None:
    done = build("--help")
    assert done.returncode == 0
    for word in ("--definition", "--output", "--base", "Exit codes"):
        assert word in done.stdout


SMALL = """Bootstrap: {{{{ agent }}}}
From: {{{{ from }}}}
Stage: final

%arguments
    agent=docker
    from=none
    git=unknown

%post
    {post}

%labels
    git {{{{ git }}}}

%test
    {test}
"""


@pytest.fixture
def base(image: Path) -> Path:
    """The base that was made and kept while building the image."""
    (found,) = (CACHE.expanduser() / "bases").glob("*.sif")
    return found


@pytest.mark.timeout(LIMIT + 60)
@pytest.mark.parametrize("post, test, code", [("true", "true", 0), ("false", "true", 1), ("true", "false", 1)])
def test_only_an_image_that_passes_its_test_is_kept(
    base: Path, tmp_path: Path, post: str, test: str, code: int
) -> None:
    definition = tmp_path / "small.def"
    definition.write_text(SMALL.format(post=post, test=test))
    done = build("--definition", definition, "--output", tmp_path / "small.sif", "--base", base)
    assert done.returncode == code, done
    assert (tmp_path / "small.sif").exists() == (code == 0)
    assert not list(tmp_path.glob("*.part"))
    if code == 0:
        assert "MB, built in" in done.stderr.splitlines()[-1]


@pytest.mark.needs("apptainer")
def test_apptainer_is_installed_once() -> None:
    """If it is installed, installing it again changes nothing and takes no time."""
    program = Path("/usr/bin/apptainer")
    before = program.stat().st_mtime_ns
    done = subprocess.run([ROOT / "scripts" / "install_apptainer.sh"], timeout=60, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert program.stat().st_mtime_ns == before
