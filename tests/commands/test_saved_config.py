"""The configuration a run leaves in its folder."""

from pathlib import Path

import pytest
import yaml
from cli_dummies import built
from processes import run_python


class TestSavedConfig:
    def test_kept_when_it_changes(self, config: Path, tmp_path: Path) -> None:
        logger = (
            "--trainer.logger=lightning.pytorch.loggers.CSVLogger",
            f"--trainer.logger.save_dir={tmp_path}",
            "--trainer.logger.name=run",
            "--trainer.logger.version=first",
        )
        folder = tmp_path / "run" / "first"
        built(config, *logger)
        first = (folder / "config.yaml").read_text()
        assert yaml.safe_load(first)["model"]["init_args"]["weights"]["ssl"] == 0.1
        built(config, *logger)
        assert [path.name for path in folder.glob("config*")] == ["config.yaml"]
        built(config, *logger, "--model.weights.ssl", "0.5")
        assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["weights"]["ssl"] == 0.5
        assert (folder / "config.1.yaml").read_text() == first
        # The saved file is a configuration: it reproduces the run.
        assert built(folder / "config.yaml", f"--trainer.default_root_dir={tmp_path}").weights["ssl"] == 0.5

    def test_nothing_written_without_a_logger_folder(self, config: Path, tmp_path: Path) -> None:
        built(config, "--trainer.fast_dev_run", "true")
        assert list(tmp_path.rglob("config*.yaml")) == []

    @pytest.mark.parametrize("report", [False, True])
    def test_the_folder_is_printed_at_the_end_unless_there_is_a_report(
        self, config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, report: bool
    ) -> None:
        logger = (
            "--trainer.logger=lightning.pytorch.loggers.CSVLogger",
            f"--trainer.logger.save_dir={tmp_path}",
            "--trainer.logger.name=run",
            "--trainer.logger.version=first",
        )
        callbacks = ["--trainer.callbacks+=omnistream.callbacks.FinalReport"] if report else []
        with caplog.at_level("INFO", "lightning.pytorch"):
            built(config, *logger, *callbacks)
        assert (f"The run is saved in {tmp_path / 'run' / 'first'}" in caplog.messages) is not report
        assert (f"The page of this run: {tmp_path / 'run' / 'first' / 'report.html'}" in caplog.messages) is report

    @pytest.mark.slow
    def test_written_once_by_two_processes(self, config: Path, tmp_path: Path) -> None:
        """The folder of a run is agreed on by all processes: asking for it on one alone would never end."""
        options = ["--trainer.devices=2", "--trainer.strategy=ddp"]
        logger = ["--trainer.logger=lightning.pytorch.loggers.CSVLogger", f"--trainer.logger.save_dir={tmp_path}"]
        folder = ["--trainer.logger.name=run", "--trainer.logger.version=two"]
        command = ["-m", "omnistream", "fit", "-c", str(config), *options, *logger, *folder]
        run_python(command, cwd=tmp_path, import_from=Path(__file__).parents[:2])
        assert [path.name for path in (tmp_path / "run" / "two").glob("config*")] == ["config.yaml"]
