"""Fenced blocks of the documentation, and what the tests need to run them.

`<!-- skip: reason -->` on the line above a block keeps it from being run; `<!-- slow: reason -->` leaves it to the slow
tests. Readers of the source see the reason.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [page for page in PAGES if "generated" not in page.parts]
FENCE = re.compile(
    r"(?:^<!-- (?P<marker>skip|slow): [^\n]+? -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    """Number of the first line of code."""
    language: str
    code: str
    marker: str | None
    """`skip`, `slow` or None."""


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page with a language, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start("code")) + 1, found["language"], found["code"], found["marker"])
        for found in FENCE.finditer(text)
    ]


def commands(block: Block) -> list[list[str]]:
    """The calls of `omnistream` in a block of shell code, as arguments after the name of the program."""
    lines = block.code.replace("\\\n", " ").splitlines()
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["omnistream"]]


def yaml_name(block: Block) -> str:
    """Name of the file that a block of YAML shows: the first word of its first line, `# my.yaml: ...`."""
    name = block.code.splitlines()[0].removeprefix("# ").split(":")[0]
    if not name.endswith(".yaml"):
        raise ValueError(f"{block.page.name}:{block.line}: the first line must name the file, as in `# my.yaml`")
    return name
