"""The site is built from the documents, and its reference pages from the declarations."""

import subprocess
import sys
from pathlib import Path

import pytest

from .pages import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors: a link, an anchor or a picture that leads nowhere is one."""
    folder = tmp_path_factory.mktemp("site")
    words = ["-q", "-W", "--keep-going", "-c", ROOT / "docs", "-d", folder / "doctrees", ROOT, folder / "html"]
    done = subprocess.run([sys.executable, "-m", "sphinx", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_pages_need_no_network(site: Path) -> None:
    loading = [
        f"{page.relative_to(site)}: {line.strip()}"
        for page in site.rglob("*.html")
        for line in page.read_text("utf-8").splitlines()
        if any(f'{word}="http' in line for word in ("src", 'rel="stylesheet" href'))
    ]
    assert loading == []


@pytest.mark.parametrize("stem", ["kelvin", "reduct", "walltim", "arakawa"])
def test_the_search_finds_what_a_user_would_look_for(site: Path, stem: str) -> None:
    assert f'"{stem}"' in (site / "searchindex.js").read_text("utf-8")


def test_the_reference_is_that_of_the_declarations() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/make_reference.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
