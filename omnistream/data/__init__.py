"""Data sets, readers and data modules."""

from omnistream.data.batch import Batch, CaptionClip, FrameClip, Region, SceneClip, TextTarget, ViewBatch
from omnistream.data.benchmarks import EvaluationDataModule
from omnistream.data.multitask import MultiTaskDataModule, Source

__all__ = [
    "Batch",
    "CaptionClip",
    "EvaluationDataModule",
    "FrameClip",
    "MultiTaskDataModule",
    "Region",
    "SceneClip",
    "Source",
    "TextTarget",
    "ViewBatch",
]
