"""Video data sets, one file each."""

from omnistream.data.videos.action_data import ActionData, KineticsData, SomethingSomethingData
from omnistream.data.videos.clip_sampling import segment_positions
from omnistream.data.videos.clip_transforms import ClipAugmentation, SpatialViews
from omnistream.data.videos.davis import DAVIS, DAVISDataModule, ResizeFrames
from omnistream.data.videos.kinetics import Kinetics
from omnistream.data.videos.labelled_videos import LabelledVideos
from omnistream.data.videos.something_something import SomethingSomething
from omnistream.data.videos.video_folder import VideoFolder, clip_positions

__all__ = [
    "DAVIS",
    "ActionData",
    "ClipAugmentation",
    "DAVISDataModule",
    "Kinetics",
    "KineticsData",
    "LabelledVideos",
    "ResizeFrames",
    "SomethingSomething",
    "SomethingSomethingData",
    "SpatialViews",
    "VideoFolder",
    "clip_positions",
    "segment_positions",
]
