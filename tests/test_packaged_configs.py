"""Every packaged configuration parses, and builds its model and data."""

import re

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from omnistream.callbacks import HeldOutEvaluation, TaskProgressBar
from omnistream.commands.overrides import load_config, prepare
from omnistream.commands.train import OmniStreamCLI
from omnistream.errors import UsageError
from omnistream.packaged_configs import find_config, list_configs, summary
from omnistream.tasks import MultiTaskModule

# Weights and decoders of the hub cannot be fetched in a test: their place is taken by random ones of a small size.
OFFLINE = [
    "--model.backbone=omnistream.backbone.OmniStream",
    "--model.backbone.variant=vit_small",
    "--model.tasks.captioning.decoder.hidden_size=32",
    "--trainer.strategy=auto",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.logger=false",
]
ABLATIONS = sorted(name for name in list_configs() if name.startswith("ablations/"))


def build(names, overrides):
    arguments = [token for name in names for token in ("-c", name)]
    return OmniStreamCLI(args=prepare([*arguments, *overrides]), run=False)


def test_there_are_the_papers_stages_ablations_and_the_two_demos():
    assert {"quickstart", "real_samples", "stage1", "stage2"} <= set(list_configs())
    assert ABLATIONS == ["ablations/without_captioning", "ablations/without_geometry", "ablations/without_video"]
    assert all(summary(find_config(name)) for name in list_configs())


@pytest.fixture(scope="module")
def first_stage():
    return build(["stage1"], OFFLINE)


@pytest.fixture
def second_stage(first_stage, tmp_path):
    checkpoint = tmp_path / "last.ckpt"
    torch.save({"state_dict": first_stage.model.state_dict()}, checkpoint)
    cli = build(["stage2"], [*OFFLINE, f"--model.init_from={checkpoint}"])
    checkpoint.unlink()  # it is large
    return cli


def test_second_stage_needs_the_first():
    with pytest.raises(UsageError, match=r"pass its checkpoint, --model.init_from STAGE1.ckpt \(or null"):
        build(["stage2"], OFFLINE)


@pytest.mark.parametrize(("stage", "size", "steps"), [("first_stage", 224, 60_000), ("second_stage", 512, 120_000)])
def test_stages_are_the_papers(stage, size, steps, request):
    cli = request.getfixturevalue(stage)
    model: MultiTaskModule = cli.model
    assert model.weights == {"ssl": 0.1, "geometry": 1.0, "captioning": 1.0}
    assert (model.optimizer_config.lr, model.optimizer_config.warmup_steps) == (1e-4, 4000)
    assert model.optimizer_config.weight_decay == 0
    assert cli.trainer.max_steps == steps
    assert cli.datamodule.sources["ssl/video"].train.crops.global_size == size
    assert cli.datamodule.sources["geometry"].train.config.num_frames == 16
    assert cli.datamodule.sources["geometry"].train.config.size == (size, size)


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_stages_keep_the_last_checkpoint_and_few_others(name, tmp_path):
    """A checkpoint of the full model has 14.5 GB: the files that a small model leaves are counted."""
    trainer = load_config(find_config(name))["trainer"]
    callbacks = [
        ModelCheckpoint(dirpath=tmp_path, **one["init_args"])
        for one in trainer["callbacks"]
        if "init_args" in one and one["class_path"].endswith("ModelCheckpoint")
    ]
    scale = 500  # one step stands for so many
    for callback in callbacks:
        assert callback._every_n_train_steps % scale == 0
        callback._every_n_train_steps //= scale
    Trainer(
        max_steps=trainer["max_steps"] // scale,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    ).fit(BoringModel())
    names = {path.name for path in tmp_path.iterdir()}
    steps = {int(re.fullmatch(r"step=(\d+).ckpt", name)[1]) * scale for name in names - {"last.ckpt"}}
    assert "last.ckpt" in names
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] * scale == trainer["max_steps"]
    assert max(steps) == trainer["max_steps"]
    assert 2 <= len(steps) <= 4


@pytest.mark.parametrize(("name", "left"), zip(ABLATIONS, ["captioning", "geometry", "video"], strict=True))
def test_ablations_leave_one_out(name, left):
    overrides = [o for o in OFFLINE if not (left == "captioning" and "captioning" in o)]
    cli = build(["stage1", name], overrides)
    if left == "video":
        assert set(cli.model.objectives) == {"ssl", "geometry", "captioning"}
        assert "ssl/video" not in cli.datamodule.sources
    else:
        assert set(cli.model.objectives) == {"ssl", "geometry", "captioning"} - {left}


def test_quickstart_builds():
    cli = build(["quickstart"], ["--trainer.logger=false"])
    assert set(cli.model.objectives) == {"ssl", "geometry", "captioning"}
    assert cli.trainer.max_steps > 0
    without_bar = build(["quickstart"], ["--trainer.logger=false", "--trainer.enable_progress_bar", "false"])
    shown = [type(callback) for callback in cli.trainer.callbacks]
    assert TaskProgressBar in shown
    assert [type(callback) for callback in without_bar.trainer.callbacks] == [t for t in shown if t != TaskProgressBar]


def test_quickstart_compares_only_what_is_evaluated():
    cli = build(["quickstart"], [])
    (callback,) = [one for one in cli.trainer.callbacks if isinstance(one, HeldOutEvaluation)]
    assert set(callback.retrained) <= set(cli.model.objectives)
    assert {one.evaluation for one in callback.comparisons} == {"objectives", *callback.probes}
    for name, make in callback.probes.items():
        probe = make(cli.model.backbone)
        probe.configure_model()
        known = {*probe.metrics(), "untrained"}
        assert {one.baseline for one in callback.comparisons if one.evaluation == name} <= known
    for one in callback.comparisons:
        task = cli.model.objectives.get(one.metric.split("/")[0])
        metrics = dict(task.metrics.named_children()) if task else {}
        assert one.evaluation != "objectives" or one.metric.split("/")[1] in metrics
        assert one.evaluation != "objectives" or one.baseline.split("/")[-1] in {*metrics, "untrained"}


def test_world_action_probe_builds():
    cli = build(["action/world"], ["--trainer.logger=false"])
    cli.model.configure_model()
    assert len(cli.model.heads) == 2
    assert cli.model.probe.num_positions == cli.datamodule.train.dataset.config.num_frames * cli.model.token_grid**2
    assert len(cli.datamodule.val) == 400


def test_imagenet_linear_is_the_published_setting():
    cli = build(
        ["classification/imagenet"],
        ["--trainer.logger=false", "--data.root=x", "--model.backbone.variant=vit_nano", "--trainer.accelerator=cpu"],
    )
    assert (cli.trainer.max_steps, cli.trainer.val_check_interval) == (12_500, 1_250)
    assert (cli.model.num_classes, len(cli.model.lrs), cli.model.selection) == (1000, 13, "test")
    assert (cli.datamodule.batch_size, cli.datamodule.image_size, cli.datamodule.endless) == (128, 224, True)
    assert cli.model.protocol == "classification/imagenet"


@pytest.mark.parametrize("name", ["classification/world", "knn/world", "knn/imagenet"])
def test_classification_builds(name):
    root = ["--data.root=x", "--model.backbone.variant=vit_nano"] if name.endswith("imagenet") else []
    cli = build([name], ["--trainer.logger=false", *root])
    assert cli.model.protocol == name
    if name.startswith("knn"):
        assert (cli.model.ks, cli.model.temperature) == ((10, 20, 100, 200), 0.07)
    if name.endswith("world"):
        assert cli.model.num_classes == len(cli.datamodule.test.classes)


def test_real_samples_builds_on_real_files(sample_data):
    cli = build(["real_samples"], [f"--data.root={sample_data}", "--trainer.logger=false"])
    assert set(cli.datamodule.sources) == {"ssl/image", "ssl/video", "geometry", "captioning"}


@pytest.mark.parametrize("kind", ["video_depth", "camera_pose"])
def test_own_scenes_build_on_real_files(sample_data, kind):
    overrides = [f"--data.root={sample_data}/rgbd", "--data.frames.count=24", "--trainer.logger=false"]
    cli = build([f"{kind}/folder"], [*overrides, "--trainer.accelerator=cpu"])
    assert cli.model.protocol == f"{kind}/own_scenes"
    videos = cli.datamodule.test
    assert [len(videos[index]) for index in range(len(videos))] == [24, 24]
