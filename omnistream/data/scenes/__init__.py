"""Recorded scenes with depth and cameras, one reader per file layout."""

from omnistream.data.scenes.base import SceneDataset
from omnistream.data.scenes.clip_sampling import ClipSampling
from omnistream.data.scenes.deep_video_mvs import DeepVideoMVS
from omnistream.data.scenes.folder import SceneFolder, find_sequences
from omnistream.data.scenes.sequence import SceneSequence
from omnistream.data.scenes.tsdf_fusion import TSDFFusion

__all__ = [
    "ClipSampling",
    "DeepVideoMVS",
    "SceneDataset",
    "SceneFolder",
    "SceneSequence",
    "TSDFFusion",
    "find_sequences",
]
