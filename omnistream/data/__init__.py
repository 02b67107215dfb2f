"""Data sets, readers and data modules."""

from omnistream.data.batch import Batch, CaptionClip, FrameClip, Region, SceneClip, TextTarget, ViewBatch
from omnistream.data.multitask import MultiTaskDataModule, Source

__all__ = [
    "Batch",
    "CaptionClip",
    "FrameClip",
    "MultiTaskDataModule",
    "Region",
    "SceneClip",
    "Source",
    "TextTarget",
    "ViewBatch",
]
