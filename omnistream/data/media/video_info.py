"""Information about a video file that is kept, so that the file is not read again."""

from dataclasses import dataclass
from typing import Literal

from omnistream.data.media.orientation import Orientation
from omnistream.data.media.video_index import VideoIndex


@dataclass(frozen=True)
class VideoInfo:
    """Information about a video, from its packets."""

    path: str
    """The file."""
    codec: str
    """FFmpeg's name of the codec, such as `h264` or `av1`."""
    width: int
    """Width of an upright frame in pixels."""
    height: int
    """Height of an upright frame in pixels."""
    orientation: Orientation
    """Operations that make a stored frame upright."""
    num_frames: int
    """Number of frames shown. A damaged file may decode to fewer."""
    fps: float
    """Average frames per second; 0 if unknown."""
    promised_frames: int | None
    """Number of frames that the header promises, if the file holds fewer; approximate if it states a duration."""
    corrupt: bool
    """Whether the demuxer found damaged data."""
    doubts: tuple[str, ...]
    """Reasons why decord's frames may differ from those of sequential decoding."""
    whole: bool = False
    """Whether all frames have been decoded once, without damage."""

    @property
    def duration(self) -> float:
        """Duration in seconds; 0 if the rate is unknown."""
        return self.num_frames / self.fps if self.fps else 0.0

    @property
    def backend(self) -> Literal["decord", "pyav"]:
        """The reader that `read_frames` uses."""
        return "pyav" if self.reason else "decord"

    @property
    def reason(self) -> str:
        """Why decord is not used; empty if it is."""
        return "; ".join(self.doubts) or ("" if self.whole else "not decoded completely yet")


@dataclass(frozen=True, eq=False)
class VideoRecord:
    """Cached information about a file."""

    info: VideoInfo
    index: VideoIndex
