"""The source meant by what a user writes: a video file, a camera, a network address or a folder of images."""

import re
import sys
from pathlib import Path

from omnistream.errors import UsageError
from omnistream.streaming.folder_source import FolderSource, find_images, natural_key
from omnistream.streaming.frames import DEFAULT_SOURCE, Source, SourceOptions, public_name
from omnistream.streaming.problems import Problems
from omnistream.streaming.video_source import VideoSource

ADDRESSES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")
"""Schemes of network addresses; what else FFmpeg understands (`concat:`, `data:`) is refused."""


def open_source(text: str, problems: Problems, options: SourceOptions = DEFAULT_SOURCE) -> Source:
    """The source meant by what a user writes.

    Args:
        text: A number is a camera; `scheme://...` an address; a folder, or a pattern such as `folder/*.color.png`,
            images; anything else, and whatever is the name of a file, a video file. A file called `0` is `./0`.
        problems: Gets broken frames as they come.
        options: How it is read.

    Raises:
        UsageError: If the address has an unknown scheme, this system has no camera support, a folder holds colour
            images and depth maps, or `frame_rate` or `timeout` is given and would have no effect.
        FileNotFoundError: If there is no such file or folder, or no image in it.
        VideoReadError: If a video or camera cannot be opened.
    """
    scheme = re.match(r"([a-zA-Z][\w+.-]*)://", text)
    path = Path(text)
    is_camera = re.fullmatch(r"\d+", text) is not None
    # Brackets and similar characters are allowed in the name of a file, so a pattern is what names none.
    is_pattern = re.search(r"[*?\[]", path.name) is not None and not path.is_file()
    is_folder = not is_camera and not scheme and (path.is_dir() or is_pattern)
    if options.frame_rate is not None and not is_folder:
        raise UsageError(f"frame_rate is for folders of images; {public_name(text)} has its own time stamps")
    if options.timeout is not None and not scheme:
        raise UsageError(f"timeout is for network addresses; {text} is not one")
    if is_camera:
        device, interface = camera_device(int(text))
        return VideoSource(device, problems, options, container_format=interface, live=True)
    if scheme:
        if scheme[1].lower() not in ADDRESSES:
            raise UsageError(
                f"cannot stream from {public_name(text)}: the address starts with one of {', '.join(ADDRESSES)}"
            )
        return VideoSource(text, problems, options, live=not scheme[1].lower().startswith("http"))
    if is_folder:
        return FolderSource(find_images(path), text, problems, options)
    if not path.is_file():
        raise FileNotFoundError(f"no file, folder, camera or address {text!r}")
    return VideoSource(text, problems, options)


def camera_device(number: int, platform: str = sys.platform) -> tuple[str, str]:
    """FFmpeg's name of a camera, and of the interface that opens it.

    Raises:
        UsageError: On systems where cameras have no number, or if there is no such device.
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
