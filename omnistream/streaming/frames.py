"""Frames of a stream, and the interface of their sources."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

STAMP_TOLERANCE = 1e-3
"""Seconds; Matroska rounds its timestamps to milliseconds."""

USUAL_FPS = 30.0
"""Frames per second of sources that state no rate."""

LOWEST_RATE, HIGHEST_RATE = 0.001, 1000.0
"""Frames per second; the lowest is about one frame per quarter of an hour."""


@dataclass(frozen=True)
class Frame:
    """One image of a stream."""

    index: int
    """Position in the source, counting skipped and broken frames (for videos see `VideoSource`)."""
    time: float
    """Seconds, increasing from frame to frame."""
    image: UInt8[Tensor, "3 H W"]
    """Upright RGB."""


@runtime_checkable
class Source(Protocol):
    """Yields frames until it ends; broken ones are reported to the `Problems` it was opened with."""

    name: str
    """The source as given by the user."""
    fps: float
    """Approximate number of frames per second that it yields."""
    total: int | None
    """Expected number of frames; None if unknown."""

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once."""
        ...

    def close(self) -> None:
        """Close files and connections; another thread may still be waiting for a frame."""
        ...


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How the source is read.

    Raises:
        ValueError: If a value is out of range.
    """

    fps: float | None = None
    """Use only this many frames per second, chosen by timestamp. Default: all frames."""
    frame_rate: float | None = None
    """Images per second of a folder of images. Default: 30."""
    timeout: float | None = None
    """Seconds to wait for a network address to answer, and for each piece of data. Default: 10."""

    def __post_init__(self) -> None:
        for name in ("fps", "frame_rate"):
            rate = getattr(self, name)
            if rate is not None and not LOWEST_RATE <= rate <= HIGHEST_RATE:
                raise ValueError(f"{name} must be from {LOWEST_RATE} to {HIGHEST_RATE} frames per second, got {rate}")
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout must be a positive number of seconds, got {self.timeout}")


DEFAULT_SOURCE = SourceOptions()


class Subsampler:
    """Reduces frames to a rate by their timestamps.

    Args:
        fps: Target rate; None keeps all frames, as does a rate above that of the source.
    """

    def __init__(self, fps: float | None) -> None:
        self.fps = fps
        self._due: float | None = None

    def take(self, time: float) -> bool:
        """Whether to use the frame at this time; times must increase."""
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
        """Resulting rate for a source with this rate."""
        return source if self.fps is None else min(self.fps, source)


def public_name(text: str) -> str:
    """The name of a source as it may be shown and stored: an address without user name and password."""
    # Up to the last @ before the path, as FFmpeg splits it: a password may itself contain @ or spaces.
    return re.sub(r"://[^/]*@", "://", text)
