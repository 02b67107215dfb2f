"""The packaged configurations of linear segmentation."""

import json
import sys

import pytest
from ade20k_files import write_ade20k

from omnistream.cli import main
from omnistream.commands.overrides import prepare
from omnistream.commands.train import OmniStreamCLI
from omnistream.data.segmentation_transforms import PhotometricDistortion, ResizeShorterSide
from omnistream.data.world import CLASSES

SMALL = ("--model.backbone.variant=vit_nano", "--trainer.logger=false")


def build(name, *overrides):
    return OmniStreamCLI(args=prepare(["-c", name, *SMALL, *overrides]), run=False)


def test_ade20k_is_the_papers_setting(tmp_path):
    write_ade20k(tmp_path)
    cli = build("segmentation/ade20k", f"--data.root={tmp_path}")
    model, trainer, data = cli.model, cli.trainer, cli.datamodule
    assert (model.num_classes, model.window, model.stride, model.dropout) == (150, 512, 341, 0.1)
    assert model.settings() == [{"lr": 1e-3, "weight_decay": 1e-3}]
    assert (model.warmup_steps, trainer.max_steps, trainer.val_check_interval) == (1500, 40000, 5000)
    assert trainer.check_val_every_n_epoch is None
    assert trainer.gradient_clip_val is None
    assert (data.size, data.batch_size, data.eval_batch_size, data.endless) == (512, 16, 1, True)
    data.setup("fit")
    (distortion,) = [step for step in data.train.transform.transforms if isinstance(step, PhotometricDistortion)]
    assert distortion.hue == 0.5
    (resize,) = [step for step in data.train.transform.transforms if isinstance(step, ResizeShorterSide)]
    assert (resize.size, resize.scale) == (512, (0.5, 2.0))
    assert data.test is data.val
    assert (data.val.transform.size, data.val.transform.labels) == (512, False)


def test_ade20k_asks_for_its_root(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    with pytest.raises(SystemExit):
        main(["fit", "-c", "segmentation/ade20k", "--model.backbone.variant", "vit_nano"])
    assert "data.root" in capsys.readouterr().err.splitlines()[-1]


def test_world_builds():
    cli = build("segmentation/world")
    assert cli.model.num_classes == len(CLASSES)
    assert cli.datamodule.train[0].labels.shape == (64, 64)
    assert cli.datamodule.test[0].labels.shape == (64, 96)
    assert cli.trainer.max_steps == 4 * cli.trainer.val_check_interval


@pytest.mark.slow
def test_world_is_learned_from_random_features(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    command = ["-c", "segmentation/world", "--trainer.enable_progress_bar", "false"]
    main(["fit", *command, "--trainer.max_steps", "80"])
    main(["test", *command, "--ckpt_path", "runs/segmentation_world"])
    results = json.loads(next((tmp_path / "runs").rglob("results.json")).read_text())
    values = {name: metric["value"] for name, metric in results["metrics"].items()}
    assert results["protocol"] == "segmentation/world"
    assert values["miou"] > 3 * values["miou_majority"]
    assert values["miou_best"] > 0
