"""Links of the documentation, and what its pages say of the code."""

import importlib
import re
from pathlib import Path

import pytest
from snippets import PAGES, ROOT

WITHOUT_PAGE = {"omnistream", "omnistream.commands"}
"""The names of the first are those of other pages; the second has its own kind of page."""


@pytest.mark.parametrize("document", PAGES, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", ["docs/paper_to_code.md", "docs/architecture.md"])
def test_modules_named_in_the_documents_exist(document: str) -> None:
    named = re.findall(r"`((?:omnistream|tests|benchmarks)/[\w/]+(?:\.py|/)?)`", (ROOT / document).read_text())
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_package_has_a_page_in_the_reference():
    listed = re.findall(r"^   (omnistream[\w.]*)$", (ROOT / "docs/reference/index.md").read_text(), re.MULTILINE)
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "omnistream").rglob("__init__.py")}
    assert packages - WITHOUT_PAGE <= set(listed)
    assert len(set(listed)) == len(listed)
    assert all(importlib.import_module(name).__all__ for name in listed), "a page lists the names in __all__"
