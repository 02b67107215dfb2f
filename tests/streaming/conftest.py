"""Small videos, and a checkpoint that `omnistream fit` wrote."""

import signal
import sys
from pathlib import Path

import pytest
from stream_clips import write_video

from omnistream.cli import main

CONFIG = """\
model:
  class_path: omnistream.tasks.MultiTaskModule
  init_args:
    backbone:
      class_path: omnistream.backbone.OmniStream
      init_args: {variant: vit_nano, rope_layout: official, layer_scale_init: 1.0}
    tasks:
      shapes:
        class_path: omnistream.tasks.geometry.GeometryModule
        init_args: {features: 8, out_channels: [8, 8, 8, 12], hidden: 8, loss: {ray_confidence: true}}
data:
  class_path: omnistream.data.MultiTaskDataModule
  init_args:
    sources:
      shapes:
        train:
          class_path: omnistream.data.world.WorldScenes
          init_args: {num_samples: 2, num_frames: 2, size: [32, 32]}
trainer:
  accelerator: cpu
  max_steps: 1
  limit_val_batches: 0
  enable_progress_bar: false
  enable_model_summary: false
  logger: {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: ., name: run, version: only}}
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {save_last: true}
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A checkpoint of one training step, two folders below its config.yaml."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["omnistream"])
        main(["fit", "-c", "small.yaml"])
    return folder / "run" / "only" / "checkpoints" / "last.ckpt"


@pytest.fixture
def make_video(tmp_path):
    """`write_video` into the test's folder."""
    return lambda name, num_frames, **options: write_video(tmp_path / name, num_frames, **options)


@pytest.fixture(autouse=True)
def sigint_raises():
    """Ctrl-C acts as in a terminal, even if the tests run in a background job, which would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
