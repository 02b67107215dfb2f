"""Opening the source that a user names: a video file, a camera, a network address or a folder of images."""

import re
import sys
from pathlib import Path

from omnistream.errors import UsageError
from omnistream.streaming.folder_source import FolderSource, find_images, natural_key
from omnistream.streaming.frames import DEFAULT_SOURCE, Source, SourceOptions, public_name
from omnistream.streaming.problems import Problems
from omnistream.streaming.video_source import VideoSource

ADDRESSES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")
"""Schemes of network addresses; others that FFmpeg knows (`concat:`, `data:`) are refused."""


def open_source(text: str, problems: Problems, options: SourceOptions = DEFAULT_SOURCE) -> Source:
    """Open the source that a user names.

    Args:
        text: A number is a camera, `scheme://...` a network address, and a folder or a pattern such as
            `folder/*.color.png` stands for images. Anything else, or a pattern that is the name of a file, is a video
            file. For a file called `0`, write `./0`.
        problems: Receives broken frames.
        options: How to read the source.

    Raises:
        UsageError: If the address has an unknown scheme, this system has no camera support, a folder holds colour
            images and depth maps, or `frame_rate` or `timeout` is given and would have no effect.
        FileNotFoundError: If there is no such file or folder, or no image in it.
        VideoReadError: If a video or camera cannot be opened.
    """
    scheme = re.match(r"([a-zA-Z][\w+.-]*)://", text)
    path = Path(text)
    is_camera = re.fullmatch(r"\d+", text) is not None
    # File names may contain brackets and similar characters, so it is a pattern only if no file has this name.
    is_pattern = re.search(r"[*?\[]", path.name) is not None and not path.is_file()
    is_folder = not is_camera and not scheme and (path.is_dir() or is_pattern)
    if options.frame_rate is not None and not is_folder:
        raise UsageError(f"frame_rate is for folders of images; {public_name(text)} has its own timestamps")
    if options.timeout is not None and not scheme:
        raise UsageError(f"timeout is for network addresses; {text} is not one")
    if is_camera:
        device, interface = camera_device(int(text))
        return VideoSource(device, problems, options, container_format=interface, live=True)
    if scheme:
        if scheme[1].lower() not in ADDRESSES:
            raise UsageError(
                f"cannot stream from {public_name(text)}: the address must start with one of {', '.join(ADDRESSES)}"
            )
        return VideoSource(text, problems, options, live=not scheme[1].lower().startswith("http"))
    if is_folder:
        return FolderSource(find_images(path), text, problems, options)
    if not path.is_file():
        raise FileNotFoundError(f"no file, folder, camera or address {text!r}")
    return VideoSource(text, problems, options)


def camera_device(number: int, platform: str = sys.platform) -> tuple[str, str]:
    """FFmpeg's names of a camera and of its interface.

    Raises:
        UsageError: On systems other than Linux and macOS, or if there is no such device.
    """
    if platform == "darwin":
        return str(number), "avfoundation"
    if not platform.startswith("linux"):
        raise UsageError(f"camera {number}: cameras are opened by number on Linux and macOS only")
    device = Path(f"/dev/video{number}")
    if not device.exists():
        there = sorted(Path("/dev").glob("video*"), key=lambda path: natural_key(path.name))
        raise UsageError(
            f"no camera {number}: {device} does not exist; available: {', '.join(map(str, there)) or 'none'}"
        )
    return str(device), "v4l2"
