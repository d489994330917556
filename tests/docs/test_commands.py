"""The commands and Python lines of the documentation run, page by page, in the order in which a reader tries them."""

import os
import sys
from pathlib import Path

import pytest

from mpi import Job, quick_path

from .pages import PAGES, ROOT, Block, blocks, page_id

LANGUAGES = {"bash", "python", "yaml", "toml", "text", "fortran", "c"}
REASONS = ("needs ", "CI ", "tests/")
RUN = [page for page in PAGES if any(block.is_run for block in blocks(page))]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which a reader would stand: the checkout, with nothing in it that earlier pages have made."""
    for entry in ROOT.iterdir():
        if not entry.name.startswith(".git"):
            (tmp_path / entry.name).symlink_to(entry)
    return tmp_path


def run(block: Block, folder: Path, page: Path) -> None:
    words = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
    path = os.environ["PATH"] if page.name == "extending.md" else quick_path()  # its campaign is not yet installed
    result = Job([*words, block.small], {"MPLBACKEND": "agg", "PATH": path}, folder).wait(280)
    assert result.returncode == 0, f"{page_id(page)}, line {block.line}\n{result}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", RUN, ids=page_id)
def test_every_command_of_a_page_runs(page: Path, checkout: Path) -> None:
    for block in blocks(page):
        if block.mark == "file":
            (checkout / block.text).write_text(block.code, "utf-8")
        elif block.is_run:
            run(block, checkout, page)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_block_has_a_language_and_a_reason(page: Path) -> None:
    """A block that is not run says what it needs that CI lacks, or which test runs it."""
    for block in blocks(page):
        assert block.language in LANGUAGES, f"line {block.line}"
        assert block.mark != "not run" or block.text.startswith(REASONS), f"line {block.line}: {block.text}"
        assert block.mark in {"", "not run", "run with", "file", "from"}, f"line {block.line}: {block.mark}"


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.mark == "from" for b in blocks(page))], ids=page_id)
def test_parts_of_files_are_in_these_files(page: Path) -> None:
    """Line by line and in order; comments that explain a line stand in the page only."""
    for block in blocks(page):
        if block.mark == "from":
            lines = iter((page.parent / block.text).read_text("utf-8").splitlines())
            for line in filter(None, block.code.splitlines()):
                assert line.partition("  # ")[0] in lines, f"line {block.line}: {line}"
