"""What a video file is, found without decoding it, and which reader can be trusted with it.

decord numbers key frames by their place in the file but hands frames out in display order; where the two differ (open
groups of pictures, the default of x265) it returns wrong frames without an error. Files cut by an edit list shift its
numbering as well. Both show in the packets, so reading those is enough to know.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from omnistream.data.media.errors import VideoReadError

MAX_FRAME_PIXELS = 64 * 1024 * 1024
"""Videos with larger frames are refused before decoding (8K is 33 million pixels)."""

_DECORD_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "mpeg4"})
"""Codecs for which decord's frames were checked against sequential decoding; it has no AV1 decoder."""

_NO_DISPLAY_STAMPS = frozenset({"avi"})
"""Containers that store one stamp per packet, in file order: they cannot show an open group of pictures."""


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
    rotation: int
    """Degrees counter-clockwise (0, 90, 180, 270) that turn a stored frame upright."""
    num_frames: int
    """Packets that give a shown frame. A damaged file may decode to fewer."""
    fps: float
    """Average frames per second."""
    open_gop: bool
    """Some key frame has another place in the file than in display order."""
    edit_list: bool
    """The file hides some of its frames."""
    corrupt: bool
    """The demuxer met damaged data."""
    backend: Literal["decord", "pyav"]
    """The reader that gives the right frames; decord still needs to be installed and able to open the file."""
    reason: str
    """Why not decord; empty otherwise."""


class _Packet(NamedTuple):
    pts: int | None
    is_key: bool
    is_discard: bool
    is_corrupt: bool


def probe_video(path: str | Path) -> VideoInfo:
    """What kind of video this is; cached until the file changes.

    All packets of the first real video stream are read and none decoded, except for the first frame, which is where
    PyAV tells the rotation.

    Raises:
        VideoReadError: If the file is missing, has no video stream, no frame that decodes, or frames that are too
            large.

    Source: the exact test for open groups of pictures (place of every key packet in the file == rank of its stamp) and
        the list of files decord gets wrong were measured with decord 0.6.0.
    """
    try:
        status = Path(path).stat()
    except OSError as error:
        raise VideoReadError(path, error.strerror or str(error)) from None
    return _probe(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4096)
def _probe(path: str, modified: int, size: int) -> VideoInfo:
    if size == 0:
        raise VideoReadError(path, "the file is empty")
    try:
        with av.open(path) as container:
            stream, num_streams = video_stream(path, container)
            _check_size(path, stream.codec_context.width, stream.codec_context.height)
            packets, damaged = _packets(container, stream)
            width, height, rotation = _first_frame(path, stream.index)
            return _describe(
                path, container.format.name, stream, num_streams, packets, damaged, width, height, rotation
            )
    except av.FFmpegError as error:
        raise VideoReadError(path, f"cannot be opened as a video ({error.strerror})") from error


def video_stream(path: str, container: InputContainer) -> tuple[VideoStream, int]:
    """The first video stream that is not a cover picture, and how many video streams there are with cover pictures.

    Raises:
        VideoReadError: If there is none.
    """
    streams = container.streams.video
    for stream in streams:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream, len(streams)
    raise VideoReadError(path, "has no video stream")


def _check_size(path: str, width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise VideoReadError(path, "has a video stream without a frame size")
    if width * height > MAX_FRAME_PIXELS:
        raise VideoReadError(path, f"frames of {width}x{height} are over the limit of {MAX_FRAME_PIXELS} pixels")


def _packets(container: InputContainer, stream: VideoStream) -> tuple[list[_Packet], bool]:
    """The packets in file order, and whether demuxing broke off."""
    packets: list[_Packet] = []
    try:
        for packet in container.demux(stream):
            if packet.size:  # demuxing ends with an empty packet that flushes the decoder
                packets.append(_Packet(packet.pts, packet.is_keyframe, packet.is_discard, packet.is_corrupt))
    except av.FFmpegError:
        return packets, True
    return packets, False


def _first_frame(path: str, index: int) -> tuple[int, int, int]:
    """Stored width and height of the first frame, and the degrees counter-clockwise that turn it upright."""
    with av.open(path) as container:
        stream = container.streams[index]
        assert isinstance(stream, VideoStream)
        stream.codec_context.thread_count = 1
        frame = next(iter(container.decode(stream)), None)
    if frame is None:
        raise VideoReadError(path, "holds no frame that decodes")
    _check_size(path, frame.width, frame.height)
    rotation = round(frame.rotation) % 360
    if rotation % 90:
        raise VideoReadError(path, f"is to be shown turned by {rotation} degrees; only multiples of 90 are read")
    return frame.width, frame.height, rotation


def _describe(
    path: str,
    container_format: str,
    stream: VideoStream,
    num_streams: int,
    packets: list[_Packet],
    damaged: bool,
    width: int,
    height: int,
    rotation: int,
) -> VideoInfo:
    if rotation % 180:
        width, height = height, width
    stamps = [packet.pts for packet in packets if packet.pts is not None]
    edit_list = any(packet.is_discard for packet in packets) or (bool(stamps) and min(stamps) < 0)
    corrupt = damaged or any(packet.is_corrupt for packet in packets)
    open_gop = keys_out_of_order((packet.pts, packet.is_key) for packet in packets)
    several_groups = 1 < sum(packet.is_key for packet in packets) < len(packets)
    codec = stream.codec_context.codec.canonical_name
    reasons = {
        f"{codec} was not checked with decord": codec not in _DECORD_CODECS,
        "open group of pictures": open_gop,
        "edit list": edit_list,
        "damaged packets": corrupt,
        "several video streams": num_streams > 1,
        f"decord breaks at width {width}": decord_breaks_width(width),
        "more than 8 bits a channel": _bits_per_channel(stream) > 8,
        "no display stamps": several_groups and bool(_NO_DISPLAY_STAMPS & set(container_format.split(","))),
    }
    reason = "; ".join(text for text, applies in reasons.items() if applies)
    num_frames = sum(not packet.is_discard for packet in packets)
    return VideoInfo(
        path=path,
        codec=codec,
        width=width,
        height=height,
        rotation=rotation,
        num_frames=num_frames,
        fps=_frames_per_second(stream, stamps),
        open_gop=open_gop,
        edit_list=edit_list,
        corrupt=corrupt,
        backend="pyav" if reason else "decord",
        reason=reason,
    )


def keys_out_of_order(packets: Iterable[tuple[int | None, bool]]) -> bool:
    """Whether some key packet's place in the file differs from its place in display order.

    Args:
        packets: Display stamp and key flag of every packet in file order. Without all stamps, or with equal ones,
            display order is unknown and the answer is True.
    """
    known = list(packets)
    stamps = sorted(pts for pts, _ in known if pts is not None)
    rank = {pts: position for position, pts in enumerate(stamps)}
    if len(rank) < len(known):
        return True
    return any(is_key and pts is not None and rank[pts] != position for position, (pts, is_key) in enumerate(known))


def decord_breaks_width(width: int) -> bool:
    """Whether decord copies rows of this width with a wrong stride.

    Rows are padded to a multiple of 32 pixels in decord 0.6.0 and of 64 in decord2; when three padded rows divide
    evenly into the width, the frame comes back with a wrong number of channels.
    """

    def breaks(align: int) -> bool:
        return width % align != 0 and 3 * (-(-width // align) * align) % width == 0

    return breaks(32) or breaks(64)


def _bits_per_channel(stream: VideoStream) -> int:
    """Bits of the deepest channel; past 8, decord widens the chroma with another filter and colours differ at edges."""
    pixel_format = stream.codec_context.format
    return max((component.bits for component in pixel_format.components), default=8) if pixel_format else 8


def _frames_per_second(stream: VideoStream, stamps: list[int]) -> float:
    rate: Fraction | None = stream.average_rate or stream.guessed_rate
    if rate:
        return float(rate)
    if stream.time_base is not None and len(stamps) > 1 and max(stamps) > min(stamps):
        return (len(stamps) - 1) / float((max(stamps) - min(stamps)) * stream.time_base)
    return 0.0
