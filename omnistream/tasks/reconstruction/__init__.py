"""Evaluation of streamed geometry, frame by frame: depth of videos, camera poses and point maps."""

from omnistream.tasks.reconstruction.camera_pose import CameraPose
from omnistream.tasks.reconstruction.outcome import ReconstructedVideo, SequenceOutcome, Status
from omnistream.tasks.reconstruction.point_map import PointMap
from omnistream.tasks.reconstruction.streamed import PredictedFrame, StreamedEvaluation
from omnistream.tasks.reconstruction.video_depth import VideoDepth

__all__ = [
    "CameraPose",
    "PointMap",
    "PredictedFrame",
    "ReconstructedVideo",
    "SequenceOutcome",
    "Status",
    "StreamedEvaluation",
    "VideoDepth",
]
