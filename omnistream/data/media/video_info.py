"""What is known of a video file without reading it again."""

from dataclasses import dataclass
from typing import Literal

from omnistream.data.media.orientation import Orientation
from omnistream.data.media.video_index import VideoIndex


@dataclass(frozen=True)
class VideoInfo:
    """What the packets of a video file say."""

    path: str
    """The file."""
    codec: str
    """FFmpeg's name of the format, such as `h264` or `av1`."""
    width: int
    """Of an upright frame, in pixels."""
    height: int
    """Of an upright frame, in pixels."""
    orientation: Orientation
    """What makes a stored frame upright."""
    num_frames: int
    """Frames shown. A damaged file may decode to fewer."""
    fps: float
    """Average frames per second; 0 if unknown."""
    promised_frames: int | None
    """Frames that the header promises (about, if it states a duration), where the file holds fewer."""
    corrupt: bool
    """The demuxer met damaged data."""
    doubts: tuple[str, ...]
    """Why decord's frames may be others than those of sequential decoding."""
    whole: bool = False
    """All frames have been decoded once, without damage."""

    @property
    def duration(self) -> float:
        """Seconds; 0 if the rate is unknown."""
        return self.num_frames / self.fps if self.fps else 0.0

    @property
    def backend(self) -> Literal["decord", "pyav"]:
        """The reader that `read_frames` takes."""
        return "pyav" if self.reason else "decord"

    @property
    def reason(self) -> str:
        """Why not decord; empty otherwise."""
        return "; ".join(self.doubts) or ("" if self.whole else "not decoded completely yet")


@dataclass(frozen=True, eq=False)
class VideoRecord:
    """What is remembered of a file."""

    info: VideoInfo
    index: VideoIndex
