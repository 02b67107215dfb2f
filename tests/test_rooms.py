"""The table of docs/architecture.md: which package may import which."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "omnistream"
MAY_IMPORT = {
    "backbone": set(),
    "cameras": set(),
    "data": {"cameras"},
    "metrics": {"cameras"},
    "tasks": {"backbone", "cameras", "data", "metrics"},
    "report": {"backbone", "cameras", "data", "metrics", "tasks"},
    "streaming": {"backbone", "cameras", "data", "metrics", "tasks", "report"},
}
ROOMS = {*MAY_IMPORT, "commands"}


def imported_rooms(file: Path) -> set[str]:
    """Packages of ours that a module imports, at its top or inside a function."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {parts[1] for name in names if (parts := name.split("."))[0] == "omnistream" and len(parts) > 1} & ROOMS


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room):
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    for file in files:
        # The one exception: it chooses views for self-supervision.
        extra = {"tasks"} if file.name == "real_samples.py" else set()
        wrong = imported_rooms(file) - MAY_IMPORT[room] - {room} - extra
        assert not wrong, f"{file.relative_to(PACKAGE)} imports {sorted(wrong)}"


def test_imports_are_found():
    assert {"data", "report", "tasks"} <= imported_rooms(PACKAGE / "report" / "held_out.py")
