"""Data sets, readers and data modules."""

from omnistream.boxes import Box
from omnistream.data.batch import (
    Batch,
    CaptionClip,
    DepthImage,
    FrameClip,
    LabelledImage,
    Region,
    SceneClip,
    SceneFrame,
    TextTarget,
    ViewBatch,
)
from omnistream.data.benchmarks import EvaluationDataModule
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.geometry_data import GeometryVideosDataModule
from omnistream.data.geometry_videos import FrameChoice, GeometryVideo, GeometryVideos, ModelImages
from omnistream.data.multitask import MultiTaskDataModule, Source
from omnistream.data.splits import Split

__all__ = [
    "Batch",
    "Box",
    "CaptionClip",
    "DatasetNotFoundError",
    "DepthImage",
    "EvaluationDataModule",
    "FrameChoice",
    "FrameClip",
    "GeometryVideo",
    "GeometryVideos",
    "GeometryVideosDataModule",
    "LabelledImage",
    "ModelImages",
    "MultiTaskDataModule",
    "Region",
    "SceneClip",
    "SceneFrame",
    "Source",
    "Split",
    "TextTarget",
    "ViewBatch",
]
