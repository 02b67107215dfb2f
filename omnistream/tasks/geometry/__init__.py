"""Streaming geometric reconstruction: heads, targets, losses and the objective that joins them."""

from omnistream.tasks.geometry.camera_head import CameraHead
from omnistream.tasks.geometry.dual_dpt import DenseMaps, DualDPT
from omnistream.tasks.geometry.losses import GeometryLossConfig, geometry_loss
from omnistream.tasks.geometry.module import GeometryModule
from omnistream.tasks.geometry.prediction import GeometryPrediction
from omnistream.tasks.geometry.streaming import GeometryStream, StreamedGeometry
from omnistream.tasks.geometry.targets import GeometryTargets, geometry_targets, scene_scale

__all__ = [
    "CameraHead",
    "DenseMaps",
    "DualDPT",
    "GeometryLossConfig",
    "GeometryModule",
    "GeometryPrediction",
    "GeometryStream",
    "GeometryTargets",
    "StreamedGeometry",
    "geometry_loss",
    "geometry_targets",
    "scene_scale",
]
