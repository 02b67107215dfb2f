"""The table of docs/architecture.md: which file may import which.

Lazy, type-checking and relative imports count, and names in calls of `import_module`.
"""

import ast
import re
from importlib.util import resolve_name
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "omnistream"
ROOT = "omnistream"
"""The package itself, which leads to all of the backbone and `trained`: no file of ours imports it."""
BELOW = {"version", "boxes", "errors", "distributed", "paths", "run_config"}
"""Root modules that import no room."""
ROOMS = BELOW | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
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
    "commands": ROOMS | {"cli", "packaged_configs", "parallel", "trained"},
    "version": set(),
    "boxes": set(),
    "errors": set(),
    "distributed": set(),
    "paths": set(),
    "run_config": {"errors", "paths"},
    "packaged_configs": {"errors", "paths"},
    "parallel": {"backbone", "distributed", "run_config"},
    "trained": LIBRARY | {"tasks"},
    "trained_stream": LIBRARY | {"tasks", "trained"},
    "cli": {"errors", "version", "commands"},
    "__main__": {"cli"},
    ROOT: {"version", "backbone", "trained"},
}
"""Packages and the modules beside them, and what each may import."""
WINGS = {"sessions", "weights", "export"}
"""Folders of the backbone that import its model; the model's own files do not import them."""
DOOR = {"__init__", "omnistream"}
"""Files that put the backbone together."""


def modules(package: Path) -> dict[str, Path]:
    """Every file of the package by the name under which it is imported."""
    names = {".".join(file.relative_to(package.parent).with_suffix("").parts): file for file in package.rglob("*.py")}
    return {name.removesuffix(".__init__"): file for name, file in names.items()}


def imports(name: str, file: Path, known: set[str]) -> set[str]:
    """Modules of ours that a file imports, at its top, inside a function or for types only."""
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            found |= {full if (full := f"{source}.{alias.name}") in known else source for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            constants = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
            found |= {resolve_name(value, package) for value in constants if isinstance(value, str) and value}
    return found & known


def graph(package: Path) -> dict[str, set[str]]:
    """Imports of every file."""
    files = modules(package)
    return {name: imports(name, file, set(files)) - {name} for name, file in files.items()}


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
    return module.split(".")[1] if "." in module else ROOT


def strangers(edges: dict[str, set[str]], name: str) -> dict[str, list[str]]:
    """Files of a room and what they import beyond what it may."""
    allowed = MAY_IMPORT[name] | {name}
    found = {
        module: sorted(other for other in others if room(other) not in allowed)
        for module, others in edges.items()
        if room(module) == name
    }
    assert found
    return {module: others for module, others in found.items() if others}


def test_no_file_imports_itself_through_others():
    assert circles(GRAPH) == []


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(name):
    assert strangers(GRAPH, name) == {}


def test_every_room_is_in_the_table():
    assert {room(module) for module in GRAPH} == set(MAY_IMPORT)


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


@pytest.mark.parametrize(
    ("text", "imported"),
    [
        ("import omnistream\n", "omnistream"),
        ("from omnistream import load\n", "omnistream"),
        ("from omnistream.trained import load\n", "omnistream.trained"),
        ("from ..trained import load\n", "omnistream.trained"),
        ("from .. import trained\n", "omnistream.trained"),
        ("from .. import load\n", "omnistream"),
        ("from importlib import import_module\nimport_module('omnistream.trained')\n", "omnistream.trained"),
        ("import importlib\nimportlib.import_module('..trained', __package__)\n", "omnistream.trained"),
        ("import importlib\nimportlib.import_module('omnistream.trained' if 1 else '')\n", "omnistream.trained"),
    ],
)
def test_every_way_to_import_counts(tmp_path, text, imported):
    package = tmp_path / "omnistream"
    (package / "data").mkdir(parents=True)
    for name in ("__init__", "trained", "data/__init__"):
        (package / f"{name}.py").write_text("")
    (package / "data" / "one.py").write_text(f"def late():\n    {text.strip().replace(chr(10), chr(10) + '    ')}\n")
    assert strangers(graph(package), "data") == {"omnistream.data.one": [imported]}
