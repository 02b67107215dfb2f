"""Evaluations of world videos in processes of their own.

`python streamed_runs.py shared FOLDER DEVICES` tests a model on five videos and leaves the results in the folder.
`python streamed_runs.py long FRAMES` streams one long video in window mode and prints the peak memory in MiB.
"""

import resource
import sys
import tempfile
from pathlib import Path

import lightning
import torch
from torch import nn

from omnistream.backbone import SessionOptions, create_model
from omnistream.data import EvaluationDataModule, GeometryVideos
from omnistream.data.world import WorldConfig, WorldVideos
from omnistream.evaluation import ResultsWriter
from omnistream.tasks.geometry import GeometryModule
from omnistream.tasks.reconstruction import CameraPose, VideoDepth
from omnistream.trained import TrainedModel
from omnistream.trained_stream import TrainedStream

SIMPLE = WorldConfig(num_objects=(0, 1), num_buildings=(0, 0), sign_probability=0.0)


def model(**options) -> nn.Module:
    """The same random weights in every process."""
    torch.manual_seed(3)
    backbone = create_model("vit_nano", layer_scale_init=0.5)
    geometry = GeometryModule(features=8, out_channels=(8, 8, 8, 8), hidden=8)
    geometry.build(backbone)
    stream = TrainedStream(**options)
    stream._use(TrainedModel(backbone, geometry))
    return stream


def data(num_videos: int, num_frames: int) -> EvaluationDataModule:
    reader = WorldVideos(num_videos, num_frames, size=(16, 16), config=SIMPLE)
    return EvaluationDataModule(test=GeometryVideos(reader, images=None), batch_size=1)


def evaluate(module, videos, folder, **options) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu", default_root_dir=str(folder), logger=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=[ResultsWriter()], **options,
    )  # fmt: skip
    trainer.test(module, videos, verbose=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "shared":
        for name, evaluation in (("depth", VideoDepth), ("pose", CameraPose)):
            folder = Path(sys.argv[2]) / name
            evaluate(evaluation(model(cameras="head")), data(5, 4), folder, devices=int(sys.argv[3]), strategy="ddp")
    else:
        with tempfile.TemporaryDirectory() as folder:
            windowed = model(session=SessionOptions(window=8, sink=1))
            evaluate(VideoDepth(windowed), data(1, int(sys.argv[2])), folder)
            assert windowed.session is not None
            cache = windowed.session.cache.num_bytes  # type: ignore[attr-defined]
        print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "cache", cache)
