"""The pages of the documentation and their code blocks, with the marks that say what a test does with a block.

A mark is a comment on the line above the block:

    <!-- not run: REASON -->           the reason is a machine, a device or a test that runs the same
    <!-- run with: A -> B; C -> D -->  each text A of the block is replaced by B, to make it small
    <!-- file: NAME -->                the block is the content of this file, which later blocks read
    <!-- from: PATH -->                the block is a part of this file, a path from the page
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
OTHERS = (ROOT / "containers/README.md", ROOT / "benchmarks/README.md")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *OTHERS])
MARK = r"^(?:<!-- (?P<mark>[\w ]+): (?P<text>.*?) -->\n)?"
BLOCK = re.compile(MARK + r"```(?P<language>\w*)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block of a page; `line` is the number of its first line of code."""

    line: int
    language: str
    code: str
    mark: str
    text: str

    @property
    def is_run(self) -> bool:
        return self.language in {"bash", "python"} and self.mark not in {"not run", "from", "file"}

    @property
    def small(self) -> str:
        """The code as tests run it."""
        code = self.code
        for pair in self.text.split("; ") if self.mark == "run with" else ():
            before, _, after = pair.partition(" -> ")
            assert before in code, f"line {self.line}: {before!r} is not in the block"
            code = code.replace(before, after)
        return code


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """Code blocks of a page in their order."""
    text = page.read_text("utf-8")
    return [
        Block(text.count("\n", 0, found.start("code")) + 1, found["language"], found["code"],
              found["mark"] or "", found["text"] or "")
        for found in BLOCK.finditer(text)
    ]  # fmt: skip
