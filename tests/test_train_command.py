"""`omnistream fit` on the real module: defaults of the trainer, its messages, and sharding over two processes."""

import csv
import sys
import warnings
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ProgressBar
from processes import run_python
from real_model import CROPS, MODEL

from omnistream.callbacks import TaskProgressBar
from omnistream.cli import main
from omnistream.commands import train
from omnistream.commands.train import OmniStreamCLI
from omnistream.data.world import WorldScenes

CONFIG = f"""\
{MODEL}\
data:
  class_path: omnistream.data.MultiTaskDataModule
  init_args:
    sources:
      ssl/image:
        train: {CROPS}
      geometry:
        train: {{class_path: {__name__}.TalkativeScenes, init_args: {{num_samples: 4, num_frames: 2, size: [32, 32]}}}}
trainer:
  accelerator: cpu
  max_steps: 2
  limit_val_batches: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  logger: {{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {{save_dir: ., name: run, version: only}}}}
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{every_n_train_steps: 1}}
"""
LIGHTNINGS_TALK = (
    "in eval mode",
    "ModelCheckpoint with manual optimization",
    "does not have many workers",
    "litlogger",
)


class TalkativeScenes(WorldScenes):
    """Stands for a part of ours with something to say."""

    def __getitem__(self, key):
        warnings.warn("a warning of ours", stacklevel=1)
        return super().__getitem__(key)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The configuration as a file, with the run confined to a temporary folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return path


def messages_of_a_run(config, caplog) -> str:
    """Everything that was warned of or logged."""
    with warnings.catch_warnings(record=True) as caught, caplog.at_level("INFO", "lightning.pytorch"):
        warnings.simplefilter("default")
        main(["fit", "-c", str(config)])
    return "\n".join([*(str(warning.message) for warning in caught), *caplog.messages])


def test_only_lightnings_idle_talk_is_hidden(config, caplog):
    messages = messages_of_a_run(config, caplog)
    assert "a warning of ours" in messages
    assert "max_steps=2` reached" in messages
    assert [talk for talk in LIGHTNINGS_TALK if talk in messages] == []


def test_the_hidden_messages_exist(config, caplog, monkeypatch):
    """Otherwise the test above would pass without hiding anything."""
    monkeypatch.setattr(train, "quieten", lambda: None)
    monkeypatch.setattr(train.logging.getLogger("lightning.pytorch.utilities.rank_zero"), "filters", [])
    messages = messages_of_a_run(config, caplog)
    # The tip comes when no LitLogger is installed, the hint about workers on machines with many cores.
    assert all(talk in messages for talk in LIGHTNINGS_TALK[:2])


@pytest.mark.parametrize(("arguments", "expected"), [([], False), (["--trainer.use_distributed_sampler=true"], True)])
def test_samples_are_shared_out_by_our_data_modules_unless_told(config, monkeypatch, arguments, expected):
    built = []
    monkeypatch.setattr(OmniStreamCLI, "_run_subcommand", lambda self, name: built.append(self.trainer))
    main(["fit", "-c", str(config), *arguments])
    assert built[0]._accelerator_connector.use_distributed_sampler is expected


@pytest.mark.parametrize(
    ("callbacks", "enabled", "bars"),
    [
        (["{class_path: omnistream.callbacks.TaskProgressBar, init_args: {refresh_rate: 5}}"], "false", []),
        (["{class_path: omnistream.callbacks.TaskProgressBar, init_args: {refresh_rate: 5}}"], "true", [5]),
        (["omnistream.callbacks.Throughput"], "true", [1]),
        (None, "null", [1]),
        (None, "false", []),
    ],
)
def test_the_progress_bar_is_the_one_named_ours_or_none(config, monkeypatch, callbacks, enabled, bars):
    built = []
    monkeypatch.setattr(OmniStreamCLI, "_run_subcommand", lambda self, name: built.append(self.trainer))
    monkeypatch.setattr("lightning.pytorch.trainer.connectors.callback_connector._RICH_AVAILABLE", True)
    named = ["--trainer.callbacks=null"] if callbacks is None else [f"--trainer.callbacks+={one}" for one in callbacks]
    main(["fit", "-c", str(config), *named, f"--trainer.enable_progress_bar={enabled}"])
    found = [callback for callback in built[0].callbacks if isinstance(callback, ProgressBar)]
    assert [bar.refresh_rate for bar in found] == bars
    assert all(isinstance(bar, TaskProgressBar) for bar in found)
    ours = {"TaskProgressBar", "StopOnSignal", "RunFolder"}
    others = {type(callback).__name__ for callback in built[0].callbacks} - ours
    assert others == {"ModelCheckpoint", "SaveConfig"} | ({"Throughput"} if "Throughput" in str(callbacks) else set())


@pytest.mark.slow
def test_fsdp2_over_two_processes(config, tmp_path):
    options = ["--trainer.strategy", "fsdp2", "--trainer.devices", "2"]
    command = ["-m", "omnistream", "fit", "-c", str(config), *options]
    output = run_python(command, cwd=tmp_path, import_from=[Path(__file__).parent])
    assert "MEMBER: 2/2" in output
    assert "view tensor" not in output
    with (tmp_path / "run" / "only" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/geometry/loss"]]
    assert [row["step"] for row in rows] == ["0", "1"]
    assert all(float(row[name]) > 0 for row in rows for name in ("train/ssl/image/loss", "grad_norm/total"))
    assert list((tmp_path / "run" / "only" / "checkpoints").iterdir())
