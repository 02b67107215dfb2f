"""Videos, one file per data set."""

from omnistream.data.videos.video_folder import VideoFolder, clip_positions

__all__ = ["VideoFolder", "clip_positions"]
