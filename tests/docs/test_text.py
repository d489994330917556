"""The documents: files that are named exist, and scimill accepts every command line."""

import re
import shlex
from pathlib import Path

import pytest

from scimill.cli import parse
from scimill.errors import ConfigError

from .pages import PAGES, ROOT, page_id

FILE = re.compile(r"`((?:src|tests|scripts|docs|jobs|benchmarks|containers)/[\w./-]+\.(?:py|sh|md|yaml|j2|def))`")
PLACEHOLDER = re.compile(r"…|\w\|\w|\[resources\]|CHAIN\.yaml|\bM \[")
CODE = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """Words of the command lines of scimill in a page's code, without launchers and comments."""
    text = page.read_text("utf-8")
    blocks = [*CODE.findall(text), *INDENTED.findall(CODE.sub("", text))]
    lines = [line.strip() for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    found = []
    for line in lines:
        words = shlex.split(line, comments=True) if line.count('"') % 2 == 0 and line.count("'") % 2 == 0 else []
        if "scimill" in words and not PLACEHOLDER.search(line):
            start = words.index("scimill")
            if all(is_launcher(word) for word in words[:start]):
                found.append(words[start + 1 :])
    return found


def is_launcher(word: str) -> bool:
    return word in {"mpirun", "srun", "-n", "horovodrun", "-np"} or word.isdecimal()


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=page_id)
def test_files_that_are_named_exist(page):
    missing = [name for name in FILE.findall(page.read_text("utf-8")) if not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=page_id)
def test_command_lines_are_accepted(page):
    refused = []
    for words in commands(page):
        try:
            parse(words)
        except ConfigError as error:
            if error.what != "the command only prints its help" and words[0] != "pendulum":
                refused.append(f"{shlex.join(words)}: {error.what}")
    assert refused == []


def test_most_pages_have_commands():
    assert sum(len(commands(page)) for page in PAGES) > 60
