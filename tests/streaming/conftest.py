"""Small videos made with PyAV, and a checkpoint that `omnistream fit` wrote."""

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

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


def picture(index: int, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    """A picture whose brightness tells its index: 20 + 5 * index in the middle, darker at the left edge."""
    image = np.full((*size, 3), 20 + 5 * index % 200, np.uint8)
    image[:, : size[1] // 4] //= 2
    return image


def write_video(path: Path, num_frames: int, size=(32, 48), codec="mpeg4", fps=25, times=None) -> Path:
    """A video of `picture`s; `times` in seconds make its rate vary."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(index, size), format="rgb24")
            seconds = index / fps if times is None else times[index]
            frame.pts, frame.time_base = round(1000 * seconds), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def make_video(tmp_path):
    """`write_video` into the test's folder."""
    return lambda name, num_frames, **options: write_video(tmp_path / name, num_frames, **options)


def decoded(path: Path) -> list[np.ndarray]:
    """All frames of a video."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
