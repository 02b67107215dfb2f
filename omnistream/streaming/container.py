"""What a container states about its video: frame rate and length."""

from fractions import Fraction
from itertools import islice

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from omnistream.data.media import VideoInfo, probe_video
from omnistream.data.media.codecs import unit_reader
from omnistream.data.media.video_decode import open_video
from omnistream.streaming.frames import HIGHEST_RATE, USUAL_FPS

_COUNTING = frozenset({"mov"})
"""Containers that list every packet."""

_TIMED = frozenset({"avi", "matroska", "flv", "asf"})
"""Containers whose header states a duration; in others FFmpeg estimates it from the packets."""

_PEEKED = 1000
"""Number of packets that are searched for single fields."""


def stated_rate(stream: VideoStream) -> float:
    """Frames per second; `USUAL_FPS` if no rate is stated."""
    rate: Fraction | None = stream.average_rate or stream.guessed_rate
    # For streams without a rate, FFmpeg guesses that of their clock, such as 90,000.
    return float(rate) if rate and rate <= HIGHEST_RATE else USUAL_FPS


def field_coded(path: str) -> VideoInfo | None:
    """Information about a file in which packets are single fields; None for all others.

    Interlaced H.264 may store the two fields of a frame as two packets, which MP4 and AVI count as two frames: the rate
    that they state is then up to twice that of the frames. Only such files are read completely beforehand.

    Raises:
        VideoReadError: If the file cannot be opened or has no video stream.
    """
    with open_video(path) as (container, stream):
        if stream.codec_context.codec.canonical_name != "h264" or not _has_second_fields(container, stream):
            return None
        stated = stated_rate(stream)
    found = probe_video(path)
    # A damaged packet also looks like a field, but does not change the rate much.
    return found if abs(found.fps - stated) > 0.05 * stated else None


def _has_second_fields(container: InputContainer, stream: VideoStream) -> bool:
    reader = unit_reader("h264", stream.codec_context.extradata or b"")
    if reader is None:
        return False
    try:
        packets = (packet for packet in container.demux(stream) if packet.size)
        return any(reader(bytes(packet), packet.is_keyframe).shows == 0 for packet in islice(packets, _PEEKED))
    except (av.FFmpegError, IndexError, KeyError):  # damage is reported when the file is read
        return False


def end_of(packet: Packet) -> float:
    """End of a packet's display time in seconds; 0 without a timestamp."""
    stamp = packet.dts if packet.pts is None else packet.pts
    if stamp is None or packet.time_base is None:
        return 0.0
    return float((stamp + (packet.duration or 0)) * packet.time_base)


def shortfall(container: InputContainer, stream: VideoStream, num_packets: int, end: float) -> str | None:
    """Message that a file is shorter than its container states, as a truncated one is; None if it is not.

    Args:
        container: The file, read to its end.
        stream: Its video stream.
        num_packets: Number of video packets found.
        end: End of the last packet of any stream in seconds: audio may be longer than the video.
    """
    formats = set(container.format.name.split(","))
    if formats & _COUNTING:
        if num_packets >= stream.frames:
            return None
        return f"truncated: the header promises {stream.frames} frames, the file holds {num_packets}"
    promised = (container.duration or 0) / av.time_base
    if "avi" in formats and stream.average_rate:  # FFmpeg's duration covers only the packets that exist
        promised = max(promised, float(stream.frames / stream.average_rate))
    if not formats & _TIMED or promised - end <= max(0.25, 0.02 * promised):
        return None
    return f"truncated: the header promises {promised:.1f} s, the file ends after {end:.1f} s"
