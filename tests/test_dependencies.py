"""Every dependency of pyproject.toml is imported somewhere, and every library that is imported is declared there."""

import ast
import re
import sys
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("tomllib came with Python 3.11", allow_module_level=True)
import tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
MODULES = {
    "huggingface-hub": "huggingface_hub",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "typing-extensions": "typing_extensions",
}
"""Modules that are not called like their distribution."""
TOOLS = {"ruff", "mypy", "pre-commit", "sphinx", "myst-parser", "pydata-sphinx-theme", "pytest-xdist", "pytest-timeout"}
"""Run by the Makefile, or named in docs/conf.py or in pyproject.toml."""
HIDDEN = {"onnxscript"}
"""Needed by a library that imports it for us: torch's exporter to ONNX."""


def declared(requirements: list[str]) -> set[str]:
    """Modules of requirements such as `torch>=2.9`, without extras of this project."""
    names = {re.match(r"[\w-]+", line)[0] for line in requirements} - {PROJECT["name"]}
    return {MODULES.get(name, name) for name in names - TOOLS}


def imported(*folders: str) -> set[str]:
    """Top-level modules that the files of folders import, anywhere in a file, and those whose files they look up."""
    found: set[str] = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.split(".")[0])
                elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                    "find_spec",
                    "files",
                    "import_module",
                ):
                    found |= {arg.value.split(".")[0] for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return found


def test_every_dependency_is_imported():
    assert declared(PROJECT["dependencies"]) - imported("omnistream") == set()


def test_every_optional_dependency_is_imported():
    for name, requirements in EXTRAS.items():
        unused = declared(requirements) - imported("omnistream", "tests", "examples", "benchmarks") - HIDDEN
        assert unused == set(), name


def test_every_import_is_declared():
    known = declared(PROJECT["dependencies"]) | {module for extra in EXTRAS.values() for module in declared(extra)}
    foreign = imported("omnistream") - set(sys.stdlib_module_names) - {PROJECT["name"]}
    assert foreign - known == set()


def test_every_bound_of_jsonargparse_is_given():
    """Its texts of errors are rewritten for the command line: a new version is let in when the tests have seen it."""
    (line,) = [line for line in PROJECT["dependencies"] if line.startswith("jsonargparse")]
    assert re.search(r">=[\d.]+,<[\d.]+", line)
