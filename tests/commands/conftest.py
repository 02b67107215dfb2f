import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_dummies import CONFIG, REAL_CONFIG

from omnistream.cli import main
from omnistream.commands.train import OmniStreamCLI
from omnistream.tasks import MultiTaskModule


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The dummy configuration as a file, with the run confined to a temporary folder."""
    monkeypatch.chdir(tmp_path)
    # LightningCLI warns when it gets arguments while the process (pytest) has its own.
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    path = tmp_path / "dummy.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def build(config: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., MultiTaskModule]:
    """Builds MultiTaskModule itself from the command line, and trains nothing."""
    config.write_text(REAL_CONFIG)
    models = []
    monkeypatch.setattr(OmniStreamCLI, "_run_subcommand", lambda self, name: models.append(self.model))

    def build(*arguments: str) -> MultiTaskModule:
        main(["fit", "-c", str(config), *arguments])
        return models[-1]

    return build
