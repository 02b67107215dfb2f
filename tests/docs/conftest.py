"""The files that the pages of the documentation speak of, as small as can be."""

import re
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from snippets import PAGES, blocks, yaml_name

from omnistream.cli import main
from omnistream.evaluation import EvaluationResult

SIZE = (48, 64)
RUNS = {name for page in PAGES for name in re.findall(r"runs/(\w+)/version_0", page.read_text(encoding="utf-8"))}
"""Runs that pages name."""
CONFIG = """\
model:
  class_path: omnistream.tasks.MultiTaskModule
  init_args:
    backbone: {class_path: omnistream.backbone.OmniStream, init_args: {variant: vit_nano}}
    tasks:
      geometry:
        class_path: omnistream.tasks.geometry.GeometryModule
        init_args: {features: 8, out_channels: [8, 8, 8, 8], hidden: 8}
data:
  class_path: omnistream.data.MultiTaskDataModule
  init_args:
    sources:
      geometry:
        train:
          class_path: omnistream.data.world.WorldScenes
          init_args: {num_samples: 1, num_frames: 2, size: [32, 32]}
trainer:
  accelerator: cpu
  max_steps: 1
  limit_val_batches: 0
  enable_progress_bar: false
  enable_model_summary: false
  logger: {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: runs, name: quickstart}}
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {save_last: true}
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A folder with `runs/quickstart/version_0` in it, after one step of a much smaller model."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["omnistream"])
        main(["fit", "-c", "small.yaml"])
    return folder / "runs"


@pytest.fixture
def workplace(tmp_path, monkeypatch, trained, no_type_checks) -> Path:
    """The working folder of the snippets: a run, a video `clip.mp4`, images in class folders; no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnistream"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(trained, tmp_path / "runs")
    for name in RUNS - {"quickstart"}:  # only their places are looked at
        shutil.copytree(trained / "quickstart", tmp_path / "runs" / name)
    result = EvaluationResult(protocol="action/world", metrics={}, num_samples=1)
    result.write(tmp_path / "runs" / "action_world" / "version_0" / "test" / "results.json")
    frames = np.random.default_rng(0).integers(0, 256, (8, *SIZE, 3), dtype=np.uint8)
    write_video(tmp_path / "clip.mp4", frames)
    for index, frame in enumerate(frames):
        path = tmp_path / "my_data" / "images" / ("cats", "dogs")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(path)
    for block in (block for page in PAGES for block in blocks(page) if block.language == "yaml"):
        (tmp_path / yaml_name(block)).write_text(block.code)
    return tmp_path


def write_video(path: Path, frames: np.ndarray) -> None:
    """H.264 at 25 frames per second."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", 25, width=frames.shape[2], height=frames.shape[1], pix_fmt="yuv420p")
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
