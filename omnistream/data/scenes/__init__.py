"""Recorded scenes with depth and cameras: one reader per data set, and the clips that all share."""

from omnistream.data.batch import SceneFrame
from omnistream.data.scenes.bonn import BONN
from omnistream.data.scenes.clips import ClipSampling, SceneClips
from omnistream.data.scenes.deep_video_mvs import DeepVideoMVS
from omnistream.data.scenes.folder import SceneFolder
from omnistream.data.scenes.index_cache import SceneSequence
from omnistream.data.scenes.kitti_depth import KITTIDepth
from omnistream.data.scenes.nyuv2_video import NYUv2Video
from omnistream.data.scenes.reader import SceneReader, is_rigid, read_matrix, usable_frames
from omnistream.data.scenes.scannet import ScanNet
from omnistream.data.scenes.seven_scenes import SevenScenes
from omnistream.data.scenes.sintel import Sintel
from omnistream.data.scenes.tsdf_fusion import TSDFFusion
from omnistream.data.scenes.tum import TUM
from omnistream.data.transforms import SceneCrop

__all__ = [
    "BONN",
    "TUM",
    "ClipSampling",
    "DeepVideoMVS",
    "KITTIDepth",
    "NYUv2Video",
    "ScanNet",
    "SceneClips",
    "SceneCrop",
    "SceneFolder",
    "SceneFrame",
    "SceneReader",
    "SceneSequence",
    "SevenScenes",
    "Sintel",
    "TSDFFusion",
    "is_rigid",
    "read_matrix",
    "usable_frames",
]
