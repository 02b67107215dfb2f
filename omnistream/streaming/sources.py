"""Frames from a video file, a camera, a network address or a folder, one at a time and in order."""

import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import IMAGE_SUFFIXES
from omnistream.data.media import ImageReadError, read_image
from omnistream.errors import UsageError
from omnistream.streaming.problems import Problems

ADDRESSES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")
"""Schemes of network addresses; what FFmpeg else understands (`concat:`, `data:`) is refused."""

STAMP_TOLERANCE = 1e-3
"""Seconds; Matroska rounds its stamps to milliseconds."""


USUAL_TIMEOUT = 10.0
"""Seconds."""


@dataclass(frozen=True)
class Frame:
    """One picture of a stream."""

    index: int
    """Position in the source; frames that were left out or broken count (of a video: see `VideoSource`)."""
    time: float
    """Seconds, rising from frame to frame."""
    image: UInt8[Tensor, "3 H W"]
    """Upright RGB."""


@runtime_checkable
class Source(Protocol):
    """Yields frames until it ends; broken ones are told to the `Problems` it was opened with."""

    name: str
    """What the user gave."""
    fps: float
    """Frames per second that it yields, about."""
    total: int | None
    """Frames that it is expected to yield; None where nobody knows."""

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once."""
        ...

    def close(self) -> None:
        """Let go of files and connections; another thread may still wait for a frame."""
        ...


class Subsampler:
    """Thins frames out to a rate by their time stamps.

    Args:
        fps: Wanted rate; None keeps all frames, as does a rate above the source's.

    Raises:
        ValueError: If the rate is no positive number.
    """

    def __init__(self, fps: float | None) -> None:
        if fps is not None and not 0 < fps < math.inf:
            raise ValueError(f"fps must be a positive number, got {fps}")
        self.fps = fps
        self._due: float | None = None

    def take(self, time: float) -> bool:
        """Whether the frame at this time is due; times must rise."""
        if self.fps is None:
            return True
        if self._due is None:
            self._due = time
        late = time - self._due + STAMP_TOLERANCE
        if late < 0:
            return False
        self._due += (int(late * self.fps) + 1) / self.fps
        return True

    def rate(self, source: float) -> float:
        """Rate of what is left of a source."""
        return source if self.fps is None else min(self.fps, source)


def public_name(text: str) -> str:
    """What may be shown and stored of a source: an address without user name and password."""
    # Up to the last @ before the path, as FFmpeg splits it: a password may hold one, or a blank, itself.
    return re.sub(r"://[^/]*@", "://", text)


def natural_key(text: str) -> list[tuple[bool, int, str]]:
    """Sort key that puts `frame2` before `frame10`."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", text)]


class FolderSource:
    """Pictures of a folder in natural order of their names, at a fixed rate.

    Args:
        files: Pictures in order.
        name: What the user gave.
        problems: Gets the pictures that cannot be read.
        frame_rate: Pictures per second; gives the time stamps.
        fps: Thin out to this rate.
    """

    def __init__(
        self,
        files: Iterable[Path],
        name: str,
        problems: Problems,
        *,
        frame_rate: float = 30.0,
        fps: float | None = None,
    ) -> None:
        if not 0 < frame_rate < math.inf:
            raise ValueError(f"frame_rate must be a positive number, got {frame_rate}")
        self.files = list(files)
        if not self.files:
            raise DatasetNotFoundError(f"{name} holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))})")
        self.name, self.problems, self.frame_rate, self.sampler = name, problems, frame_rate, Subsampler(fps)
        self.fps = self.sampler.rate(frame_rate)
        self.total: int | None = round(len(self.files) * self.fps / frame_rate)

    def __iter__(self) -> Iterator[Frame]:
        """The pictures."""
        for index, path in enumerate(self.files):
            time = index / self.frame_rate
            if not self.sampler.take(time):
                continue
            try:
                yield Frame(index, time, read_image(path))
            except ImageReadError as error:
                self.problems.skip(str(error))

    def close(self) -> None:
        """Nothing is open between pictures."""


def open_source(
    text: str,
    problems: Problems,
    *,
    fps: float | None = None,
    frame_rate: float | None = None,
    timeout: float | None = None,
) -> Source:
    """The source meant by what a user writes.

    Args:
        text: A number is a camera; `scheme://...` an address; a folder, or a pattern such as `folder/*.color.png`,
            pictures; anything else, and whatever is the name of a file, a video file. A file called `0` is `./0`.
        problems: Gets broken frames as they come.
        fps: Thin out to this rate by time stamps.
        frame_rate: Rate of a folder of pictures; None for 30.
        timeout: Seconds to wait for an address to answer, and for each piece of data; None for 10. See
            `VideoSource`.

    Raises:
        UsageError: If the address has an unknown scheme, this system has no camera support, or `frame_rate` or
            `timeout` is given and would have no effect.
        FileNotFoundError: If there is no such file, folder or picture.
        VideoReadError: If a video or camera cannot be opened.
    """
    # The video reader imports PyAV; a folder of pictures does without.
    from omnistream.streaming.video_source import VideoSource

    scheme = re.match(r"([a-zA-Z][\w+.-]*)://", text)
    path = Path(text)
    is_camera = re.fullmatch(r"\d+", text) is not None
    # Brackets and the like are allowed in the name of a file, so a pattern is what names none.
    is_pattern = re.search(r"[*?\[]", path.name) is not None and not path.is_file()
    is_folder = not is_camera and not scheme and (path.is_dir() or is_pattern)
    if frame_rate is not None and not is_folder:
        raise UsageError(f"a frame rate is for a folder of pictures; {public_name(text)} has its own times")
    if timeout is not None and not scheme:
        raise UsageError(f"a timeout is for addresses; a camera is waited for, and nothing in a file: {text}")
    timeout = USUAL_TIMEOUT if timeout is None else timeout
    if is_camera:
        device, container_format = camera_device(int(text))
        return VideoSource(device, problems, fps=fps, container_format=container_format, timeout=timeout, live=True)
    if scheme:
        if scheme[1].lower() not in ADDRESSES:
            raise UsageError(
                f"cannot stream from {public_name(text)}: the address starts with one of {', '.join(ADDRESSES)}"
            )
        return VideoSource(text, problems, fps=fps, timeout=timeout, live=not scheme[1].lower().startswith("http"))
    if is_folder:
        found = path.iterdir() if path.is_dir() else path.parent.glob(path.name)
        files = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")]
        files.sort(key=lambda file: natural_key(file.name))
        return FolderSource(files, text, problems, frame_rate=30.0 if frame_rate is None else frame_rate, fps=fps)
    if not path.is_file():
        raise FileNotFoundError(f"no file, folder, camera or address {text!r}")
    return VideoSource(text, problems, fps=fps)


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
            f"no camera {number}: {device} does not exist; there is {', '.join(map(str, there)) or 'none'}"
        )
    return str(device), "v4l2"
