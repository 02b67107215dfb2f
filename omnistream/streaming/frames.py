"""Frames of a stream, and what a source of them is."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

STAMP_TOLERANCE = 1e-3
"""Seconds; Matroska rounds its stamps to milliseconds."""

USUAL_FPS = 30.0
"""For sources that state no rate."""

LOWEST_RATE, HIGHEST_RATE = 0.001, 1000.0
"""Frames per second, from one in a quarter of an hour."""


@dataclass(frozen=True)
class Frame:
    """One image of a stream."""

    index: int
    """Position in the source; frames that were left out or broken count (of a video: see `VideoSource`)."""
    time: float
    """Seconds, rising from frame to frame."""
    image: UInt8[Tensor, "3 H W"]
    """Upright RGB."""


@runtime_checkable
class Source(Protocol):
    """Yields frames until it ends; broken ones go to the `Problems` it was opened with."""

    name: str
    """What the user gave."""
    fps: float
    """Frames per second that it yields, approximately."""
    total: int | None
    """Frames that it is expected to yield; None if unknown."""

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once."""
        ...

    def close(self) -> None:
        """Close files and connections; another thread may still wait for a frame."""
        ...


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How the source is read.

    Raises:
        ValueError: If a value is out of range.
    """

    fps: float | None = None
    """Thin out to this many frames per second, by time stamps. Default: all frames."""
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
    """Thins frames out to a rate by their time stamps.

    Args:
        fps: Wanted rate; None keeps all frames, as does a rate above the source's.
    """

    def __init__(self, fps: float | None) -> None:
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
