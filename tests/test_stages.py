"""The packaged stages with two processes, FSDP2 and bfloat16, made small by what a user would type."""

import math
from pathlib import Path

import pytest
import torch
from processes import run_python

from omnistream.plots import read_scalars

pytestmark = pytest.mark.slow

MODEL = [
    "--model.backbone.variant=vit_nano",
    "--model.backbone=omnistream.backbone.OmniStream",
    "--model.compile=false",
    "--model.optimizer.warmup_steps=1",
    "--model.tasks.ssl.heads.num_prototypes=16",
    "--model.tasks.ssl.heads.hidden_dim=32",
    "--model.tasks.ssl.heads.bottleneck_dim=16",
    "--model.tasks.ssl.head_warmup_steps=0",
    "--model.tasks.geometry.features=8",
    "--model.tasks.geometry.out_channels=[8,8,8,8]",
    "--model.tasks.geometry.hidden=8",
    "--model.tasks.captioning.decoder.hidden_size=32",
    "--model.tasks.captioning.max_new_tokens=4",
]
DATA = [
    "--data.num_workers=0",
    "--data.pin_memory=false",
    "--data.sources.ssl/image.batch_size=2",
    "--data.sources.captioning.batch_size=2",
    *(
        f"--data.sources.ssl/{stream}.{part}.{key}"
        for stream, frames in (("image", 1), ("video", 2))
        for part in ("train", "val")
        for key in (
            "crops.global_size=32",
            "crops.local_size=16",
            "crops.patch_size=8",
            "base.size=[40,40]",
            f"base.num_frames={frames}",
        )
    ),
    *(f"--data.sources.{task}.{part}.size=[32,32]" for task in ("geometry", "captioning") for part in ("train", "val")),
    *(f"--data.sources.geometry.{part}.num_frames=2" for part in ("train", "val")),
]
TRAINER = [
    "--trainer.accelerator=cpu",
    "--trainer.devices=2",
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=1",
    "--trainer.log_every_n_steps=1",
]


def run(folder: Path, stage: str, *options: str) -> Path:
    """Fit a packaged stage in its small form; returns the folder of the run."""
    output = run_python(["-m", "omnistream", "fit", "-c", stage, *MODEL, *DATA, *TRAINER, *options], cwd=folder)
    assert "MEMBER: 2/2" in output
    assert "bfloat16 Automatic Mixed Precision" in output
    return folder / "runs" / stage / "version_0"


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("stage1"), "stage1")


def check_losses(folder: Path) -> None:
    scalars = read_scalars(folder)
    losses = {name: series.values for name, series in scalars.items() if name.endswith("/loss")}
    parts = ("ssl/image", "ssl/video", "geometry", "captioning")
    assert {f"{stage}/{part}/loss" for stage in ("train", "val") for part in parts} <= set(losses)
    assert all(len(losses[f"train/{part}/loss"]) == 2 for part in parts)
    assert all(math.isfinite(value) for values in losses.values() for value in values)
    assert all(math.isfinite(value) for value in scalars["grad_norm/total"].values)


def test_first_stage_trains_validates_and_is_saved(first_stage):
    check_losses(first_stage)
    assert list((first_stage / "plots").glob("geometry-depth*.png"))
    state = torch.load(first_stage / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2
    weights = [value for value in state["state_dict"].values() if value.is_floating_point()]
    assert {value.dtype for value in weights} == {torch.float32}  # only the arithmetic is in bfloat16
    assert all(value.isfinite().all() for value in weights)


def test_second_stage_starts_from_the_first(first_stage, tmp_path):
    checkpoint = first_stage / "checkpoints" / "last.ckpt"
    folder = run(tmp_path, "stage2", f"--model.init_from={checkpoint}")
    check_losses(folder)
    before, after = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (first_stage, folder))
    assert before["state_dict"].keys() == after["state_dict"].keys()
    # Warm-up starts at 0, so one of the two steps moves the weights, by about Adam's learning rate.
    name = "backbone.blocks.0.attn.qkv.weight"
    moved = (after["state_dict"][name] - before["state_dict"][name]).abs().max()
    assert 1e-5 < moved < 3e-4
