"""Video data sets, one file each."""

from omnistream.data.videos.davis import DAVIS, DAVISDataModule, ResizeFrames
from omnistream.data.videos.video_folder import VideoFolder, clip_positions

__all__ = ["DAVIS", "DAVISDataModule", "ResizeFrames", "VideoFolder", "clip_positions"]
