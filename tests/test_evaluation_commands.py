"""`omnistream validate`, `test` and `predict` on a trained checkpoint."""

import csv
import sys

import pytest
import torch
from lightning import Trainer
from real_model import CROPS, MODEL
from safetensors import safe_open
from torch.utils.data import DataLoader

from omnistream.backbone import OmniStream, create_model
from omnistream.callbacks import PredictionWriter
from omnistream.cli import main
from omnistream.data.world import WorldScenes
from omnistream.tasks.geometry import GeometryModule

SCENES = "class_path: omnistream.data.world.WorldScenes, init_args: {num_frames: 2, size: [32, 32]"
CONFIG = f"""\
{MODEL}\
data:
  class_path: omnistream.data.MultiTaskDataModule
  init_args:
    sources:
      ssl/image:
        train: {CROPS}
        val: {CROPS}
      geometry:
        train: {{{SCENES}, num_samples: 4}}}}
        val: {{{SCENES}, num_samples: 3, split: val}}}}
        test: {{{SCENES}, num_samples: 2, split: test}}}}
        val_batch_size: 2
trainer:
  accelerator: cpu
  max_steps: 1
  limit_val_batches: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  logger: {{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {{save_dir: ., name: run, version: only}}}}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a configuration and of the checkpoint of one step."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "run.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["omnistream"])
        main(["fit", "-c", "run.yaml"])
    return folder, next((folder / "run").rglob("*.ckpt"))


@pytest.fixture
def command(trained, tmp_path, monkeypatch):
    """Runs a subcommand on the checkpoint in a folder of its own."""
    folder, checkpoint = trained
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnistream"])

    def run(name, *options):
        limits = ["--trainer.limit_val_batches", "1.0"]
        main([name, "-c", str(folder / "run.yaml"), "--ckpt_path", str(checkpoint), *limits, *options])

    return run


def trained_backbone(checkpoint) -> OmniStream:
    backbone = create_model("vit_nano")
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in weights.items() if k.startswith("backbone.")})
    return backbone.eval()


def logged(folder) -> dict[str, float]:
    with (folder / "run" / "only" / "metrics.csv").open() as file:
        return {name: float(value) for row in csv.DictReader(file) for name, value in row.items() if value}


def test_validation_and_test_measure_their_own_sets(trained, command, tmp_path):
    command("test")
    tested = logged(tmp_path)
    command("validate")
    validated = logged(tmp_path)
    assert tested["test/geometry/loss"] > 0
    assert validated["val/geometry/loss"] > 0
    assert "val/geometry/loss" not in tested
    assert "val/ssl/image/loss" in validated
    assert "test/ssl/image/loss" not in tested  # it has no test set
    # The test set's figure is that of its clips: validation on the same clips gives it too.
    command(
        "validate",
        "--data.sources.geometry.val.init_args.split=test",
        "--data.sources.geometry.val.init_args.num_samples=2",
    )
    again = logged(tmp_path)
    names = [name.removeprefix("test/") for name in tested if name.startswith("test/")]
    assert {name: again[f"val/{name}"] for name in names} == {name: tested[f"test/{name}"] for name in names}
    assert again["val/geometry/loss"] != validated["val/geometry/loss"]


def test_a_task_may_be_left_out(trained, command, tmp_path, caplog):
    command("validate")
    everything = logged(tmp_path)
    command("validate", "--model.tasks.geometry=null", "--data.sources.geometry=null")
    assert [message for message in caplog.messages if "not loaded" in message and "tasks.geometry" in message]
    alone = logged(tmp_path)
    ours = {name: value for name, value in everything.items() if name.startswith("val/ssl")}
    assert ours
    assert {name: value for name, value in alone.items() if name.startswith("val/")} == ours


def test_the_weights_of_another_model_are_one_line(trained, command, capsys):
    with pytest.raises(SystemExit, match="2"):
        command("validate", "--model.backbone.variant=vit_tiny")
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"omnistream: error: --ckpt_path {trained[1]}: the checkpoint is of another configuration: ")
    assert line.endswith(f"; its own configuration is {trained[0] / 'run' / 'only' / 'config.yaml'}")


def test_a_run_goes_on_with_all_its_tasks_only(trained, capsys, monkeypatch, tmp_path):
    folder, checkpoint = trained
    monkeypatch.chdir(tmp_path)
    left_out = ["--model.tasks.geometry=null", "--data.sources.geometry=null"]
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "-c", str(folder / "run.yaml"), "--ckpt_path", str(checkpoint), *left_out])
    line = capsys.readouterr().err.splitlines()[-1]
    assert "tasks.geometry" in line
    assert "--model.init_from" in line
    assert not (tmp_path / "run").exists()


def test_a_test_needs_a_test_set(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        command("test", "--data.sources.geometry.test=null")
    expected = "no data source has a test set; give one as `test` of any of ['geometry', 'ssl/image']"
    assert expected in capsys.readouterr().err.splitlines()[-1]


def test_predictions_are_the_features_of_every_clip(trained, command, tmp_path):
    command("predict")
    files = sorted((tmp_path / "run" / "only" / "predictions").rglob("*.safetensors"))
    assert [str(file.relative_to(files[0].parent.parent)) for file in files] == [
        f"geometry/{index:06d}.safetensors" for index in range(3)
    ]
    backbone, scenes = trained_backbone(trained[1]), WorldScenes(3, split="val", num_frames=2, size=(32, 32))
    for index, path in enumerate(files):
        with safe_open(path, "pt") as file, torch.no_grad():
            output = backbone(backbone.normalize(scenes[index].images[None]))
            torch.testing.assert_close(file.get_tensor("cls"), output.cls[0])
            torch.testing.assert_close(file.get_tensor("last"), output.last[0])
            assert file.metadata() == {"name": scenes[index].name}


def test_a_run_without_clips_says_so(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        command("predict", "--data.sources.geometry.val=null")
    assert "nothing was predicted: the validation sets hold no whole clips" in capsys.readouterr().err.splitlines()[-1]


def test_an_objective_alone_is_tested_and_predicts(tmp_path):
    module = GeometryModule(create_model("vit_nano"), features=8, out_channels=(8, 8, 8, 8), hidden=8)
    scenes = WorldScenes(3, split="test", num_frames=2, size=(32, 32))
    loader = DataLoader(scenes, batch_size=2, collate_fn=scenes.collate)
    writer = PredictionWriter(tmp_path / "features")
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[writer], enable_model_summary=False
    )
    assert trainer.test(module, loader, verbose=False)[0]["test/geometry/loss"] > 0
    assert trainer.predict(module, loader) is None
    assert len(list((tmp_path / "features" / "clips").iterdir())) == 3
