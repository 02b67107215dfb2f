"""Readers of single files: images, videos and depth maps."""

from omnistream.data.media.depth import read_depth_png
from omnistream.data.media.errors import DepthReadError, ImageReadError, MediaReadError, VideoReadError
from omnistream.data.media.image import read_image
from omnistream.data.media.video import read_frames, verify_video
from omnistream.data.media.video_info import VideoInfo
from omnistream.data.media.video_probe import probe_video

__all__ = [
    "DepthReadError",
    "ImageReadError",
    "MediaReadError",
    "VideoInfo",
    "VideoReadError",
    "probe_video",
    "read_depth_png",
    "read_frames",
    "read_image",
    "verify_video",
]
