"""The table of docs/architecture.md: which file may import which. Lazy and type-checking imports count."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "omnistream"
BELOW = {"version", "boxes", "errors", "distributed", "paths", "run_config"}
"""Root modules that import no room."""
LIBRARY = BELOW | {"backbone", "cameras", "metrics", "data", "language", "evaluation"}
MAY_IMPORT = {
    "backbone": BELOW,
    "cameras": set(),
    "metrics": BELOW | {"cameras"},
    "data": BELOW | {"cameras", "metrics"},
    "language": BELOW | {"backbone", "cameras", "metrics", "data"},
    "evaluation": LIBRARY,
    "tasks": LIBRARY | {"parallel"},
    "plots": LIBRARY | {"tasks"},
    "report": LIBRARY | {"tasks", "plots"},
    "callbacks": LIBRARY | {"tasks", "plots", "report"},
    "streaming": LIBRARY | {"tasks", "plots", "trained"},
}
WINGS = {"sessions", "weights", "export"}
"""Folders of the backbone that import its model; the model's own files do not import them."""
DOOR = {"__init__", "omnistream"}
"""Files that put the backbone together."""


def modules(package: Path) -> dict[str, Path]:
    """Every file of the package by the name under which it is imported."""
    names = {".".join(file.relative_to(package.parent).with_suffix("").parts): file for file in package.rglob("*.py")}
    return {name.removesuffix(".__init__"): file for name, file in names.items()}


def imports(file: Path, known: set[str]) -> set[str]:
    """Modules of ours that a file imports, at its top, inside a function or for types only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {full if (full := f"{node.module}.{alias.name}") in known else node.module for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & known


def graph(package: Path) -> dict[str, set[str]]:
    """Imports of every file."""
    files = modules(package)
    return {name: imports(file, set(files)) - {name} for name, file in files.items()}


def circles(edges: dict[str, set[str]]) -> list[str]:
    """Modules that reach themselves."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(edges[start])
        while waiting:
            if (name := waiting.pop()) not in seen:
                seen.add(name)
                waiting += edges[name]
        return seen

    return sorted(name for name in edges if name in reachable(name))


GRAPH = graph(PACKAGE)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_no_file_imports_itself_through_others():
    assert circles(GRAPH) == []


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(name):
    members = [module for module in GRAPH if room(module) == name]
    assert members
    for module in members:
        wrong = {other for other in GRAPH[module] if room(other) not in MAY_IMPORT[name] | {name, ""}}
        assert not wrong, f"{module} imports {sorted(wrong)}"


def test_every_room_is_in_the_table():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == {*MAY_IMPORT, "commands"}


def test_the_model_imports_no_wing():
    for module, others in GRAPH.items():
        parts = module.split(".")
        if parts[1:2] == ["backbone"] and len(parts) == 3 and parts[2] not in DOOR | WINGS:
            wrong = {other for other in others if other.split(".")[2:3] and other.split(".")[2] in WINGS | DOOR}
            assert not wrong, f"{module} imports {sorted(wrong)}"


def test_a_task_imports_no_other_task():
    tasks = {path.parent.name for path in (PACKAGE / "tasks").glob("*/__init__.py")}
    for module, others in GRAPH.items():
        parts = module.split(".")
        if parts[1:2] == ["tasks"] and len(parts) > 2 and parts[2] in tasks:
            wrong = {other for other in others if other.split(".")[1:2] == ["tasks"] and other.split(".")[2:3]}
            wrong = {other for other in wrong if other.split(".")[2] in tasks - {parts[2]}}
            assert not wrong, f"{module} imports {sorted(wrong)}"


def test_pickles_are_read_in_one_place():
    """`torch.load` stands where its arguments are safe and its errors are worded, and nowhere else."""
    calls = re.compile(r"torch\.load\(|pickle\.loads?\(|load_state_dict_from_url")
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if calls.search(path.read_text())}
    assert files == {"backbone/weights/files.py"}


def test_lazy_imports_and_circles_are_found(tmp_path):
    package = tmp_path / "omnistream"
    (package / "a").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "a" / "__init__.py").write_text("")
    (package / "a" / "one.py").write_text("def late():\n    from omnistream.a import two\n")
    (package / "a" / "two.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import omnistream.a.one\n"
    )
    assert circles(graph(package)) == ["omnistream.a.one", "omnistream.a.two"]
