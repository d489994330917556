"""What users read, as the sources have it: errors keep to their form, and the words of an author are not a reader's."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scimill import errors

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "containers/README.md", ROOT / "benchmarks/README.md"]
)
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
PYTHON = re.compile(
    r"\b(NoneType|None|dict|tuple|str|KeyError|ValueError|TypeError|OSError|IndexError|pydantic|errno|repr|kwargs)\b|__|<class"
)
"""Words of Python and of its libraries."""
AUTHORS = re.compile(
    r"\b(tells?|told|mend(s|ed|ing)?|the range .* is upside down|is no|are no (number|file|run|store|model)s?|same law|"
    r"kin|hold against|done again|as it comes|rivals?|makes? a mess|whoever|gives? back|to do again|is judged)\b",
    re.IGNORECASE,
)
"""Words that a careful English-speaking engineer would not write in these senses."""


def text_of(node: ast.expr) -> str | None:
    """A literal text, with {} for each value in it."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            texts = text_of(left), text_of(right)
            return "".join(text or "{}" for text in texts) if any(texts) else None
    return None


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """All calls of a file, each with the name of what is called."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield name, node


def messages() -> Iterator[tuple[str, str, str]]:
    """Place, part and text of every literal message of an error."""
    for path in SOURCES:
        for name, call in calls(path):
            if name in KINDS:
                parts = [("what", value) for value in call.args[:1]]
                parts += [(keyword.arg or "", keyword.value) for keyword in call.keywords]
                for part, value in parts:
                    if text := text_of(value):
                        yield f"{path.relative_to(ROOT)}:{value.lineno}", part, text


def helps() -> Iterator[tuple[str, str]]:
    """Place and text of every help text: of options, arguments, parameters, and of commands."""
    for path in SOURCES:
        for name, call in calls(path):
            given = [keyword.value for keyword in call.keywords if keyword.arg == "help"]
            given += call.args[1:2] if name == "parameter" else []
            for value in given:
                if text := text_of(value):
                    yield f"{path.relative_to(ROOT)}:{value.lineno}", text


def wrong(found: list[tuple[str, str]], pattern: re.Pattern[str]) -> list[str]:
    return [f"{where}: {text!r}" for where, text in found if pattern.search(text)]


def test_there_are_messages_to_read() -> None:
    assert len(list(messages())) > 500
    assert len(list(helps())) > 300


def test_errors_begin_in_lower_case_and_end_without_a_full_stop() -> None:
    """A name, a flag or a place may begin a message in its own case."""
    names = re.compile(r"\w*[A-Z]\w*[A-Z]|Cobalt|Flux|Horovod|Torque")
    assert [
        f"{where}: {part}: {text!r}"
        for where, part, text in messages()
        if (part == "what" and text[:1].isupper() and not names.match(text)) or re.search(r"(?<!\.)\.$", text)
    ] == []


def test_errors_have_no_words_of_python() -> None:
    assert wrong([(where, text) for where, part, text in messages()], PYTHON) == []


@pytest.mark.parametrize(
    "found", [[(where, text) for where, _, text in messages()], list(helps())], ids=["messages", "helps"]
)
def test_messages_and_help_use_the_words_of_the_field(found: list[tuple[str, str]]) -> None:
    assert wrong(found, AUTHORS) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_use_the_words_of_the_field(page: Path) -> None:
    lines = [(str(number), line) for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1)]
    assert wrong(lines, AUTHORS) == []
