"""Video data sets, one file each."""

from omnistream.data.videos.video_folder import VideoFolder, clip_positions

__all__ = ["VideoFolder", "clip_positions"]
