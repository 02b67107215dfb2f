"""What `pip install` gives: metadata, files, the command; and a Makefile that leaves a complete machine alone."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

import pytest

import omnistream
from omnistream.cli import main
from omnistream.packaged_configs import list_configs, summary

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_version_is_the_same_everywhere() -> None:
    assert re.search(r'^version = "(.+)"$', PYPROJECT, re.MULTILINE)[1] == omnistream.__version__
    try:
        assert version("omnistream") == omnistream.__version__
    except PackageNotFoundError:
        pytest.skip("run from a checkout that is not installed")


def test_console_script_is_main() -> None:
    module, function = re.search(r'^omnistream = "(.+):(.+)"$', PYPROJECT, re.MULTILINE).groups()
    assert getattr(sys.modules[module], function) is main
    for script in entry_points(group="console_scripts", name="omnistream"):
        assert script.load() is main


def test_module_runs_like_the_command() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "omnistream", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout == f"omnistream {omnistream.__version__}\n"


def test_import_is_light() -> None:
    program = "import sys, omnistream; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'lightning')))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_every_packaged_config_says_what_it_is() -> None:
    assert [name for name, path in list_configs().items() if not summary(path)] == []


def test_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_requirements_check_sees_what_is_missing(tmp_path: Path) -> None:
    """The Makefile's check: true for this environment, false for one without the dependencies."""
    script = ROOT / "tools" / "requirements_met.py"
    if sys.version_info >= (3, 11):
        assert subprocess.run([sys.executable, script, "test"], check=False).returncode == 0
    isolated = [sys.executable, "-I", "-S", script, "test"]
    assert subprocess.run(isolated, cwd=tmp_path, check=False).returncode == 1


@pytest.mark.slow
def test_wheel_holds_code_and_data(tmp_path: Path) -> None:
    """`pip wheel` builds the package in isolation; this needs pip's network for setuptools."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("omnistream-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    source = [path for path in (ROOT / "omnistream").rglob("*.py") if "__pycache__" not in path.parts]
    expected = {path.relative_to(ROOT).as_posix() for path in [*source, *list_configs().values()]}
    assert expected <= set(names)
    assert "omnistream/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]


@pytest.mark.slow
def test_installed_command_runs(tmp_path: Path) -> None:
    """`pip install .` into an empty environment gives the command, with its configurations."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(ROOT)], check=True)
    command = environment / "bin" / "omnistream"
    out = subprocess.run([command, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert out == f"omnistream {omnistream.__version__}\n"
    dependencies = os.environ | {"PYTHONPATH": sysconfig.get_path("purelib")}  # of this environment, without omnistream
    listing = [command, "configs"]
    out = subprocess.run(listing, cwd=tmp_path, env=dependencies, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in out.splitlines()] == list(list_configs())
