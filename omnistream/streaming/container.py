"""What a container states about its video: how fast it is, and how much of it there should be."""

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
"""Containers whose header states a duration; in others FFmpeg estimates it from what is there."""

_PEEKED = 1000
"""Packets among which a field is looked for."""


def stated_rate(stream: VideoStream) -> float:
    """Frames per second; the usual rate if none is stated."""
    rate: Fraction | None = stream.average_rate or stream.guessed_rate
    # Streams without a rate are guessed to have that of their clock, such as 90,000.
    return float(rate) if rate and rate <= HIGHEST_RATE else USUAL_FPS


def field_coded(path: str) -> VideoInfo | None:
    """Rate and number of frames of a file in which packets are single fields; None for all others.

    Interlaced H.264 may store the two fields of a frame as two packets, which MP4 and AVI count as two frames: the rate
    that they state is then up to twice that of the frames. Only for these are all packets read beforehand.

    Raises:
        VideoReadError: If the file cannot be opened or has no video stream.
    """
    with open_video(path) as (container, stream):
        if stream.codec_context.codec.canonical_name != "h264" or not _has_second_fields(container, stream):
            return None
        stated = stated_rate(stream)
    found = probe_video(path)
    # A damaged packet looks like a field, too, but does not change the rate much.
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
    """Time at which what a packet holds has been shown, in seconds; 0 without a time stamp."""
    stamp = packet.dts if packet.pts is None else packet.pts
    if stamp is None or packet.time_base is None:
        return 0.0
    return float((stamp + (packet.duration or 0)) * packet.time_base)


def shortfall(container: InputContainer, stream: VideoStream, num_packets: int, end: float) -> str | None:
    """In words, how much less a file holds than its container states, as one that was cut off does; None if nothing.

    Args:
        container: Read to its end.
        stream: The video.
        num_packets: Packets of the video that were there.
        end: When the last packet of any stream ends, in seconds: sound may be longer than the video.
    """
    formats = set(container.format.name.split(","))
    if formats & _COUNTING:
        if num_packets >= stream.frames:
            return None
        return f"truncated: the header promises {stream.frames} frames, the file holds {num_packets}"
    promised = (container.duration or 0) / av.time_base
    if "avi" in formats and stream.average_rate:  # FFmpeg's own duration is that of what is there
        promised = max(promised, float(stream.frames / stream.average_rate))
    if not formats & _TIMED or promised - end <= max(0.25, 0.02 * promised):
        return None
    return f"truncated: the header promises {promised:.1f} s, the file ends after {end:.1f} s"
