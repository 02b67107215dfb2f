"""Probing of video files: frames, rate and orientation, and which reader to use.

decord seeks by the container's key flags and timestamps, and numbers frames by their place in the file. Where these are
misleading (open groups of pictures, recovery points, transport streams, fields, edit lists), it returns wrong frames
without an error, and it hides damage inside packets. It is therefore used only for a few kinds of video that were
verified frame by frame, and only for files that have been decoded completely once.
"""

import logging
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from omnistream.data.media.errors import VideoReadError
from omnistream.data.media.orientation import UPRIGHT, Orientation, frame_orientation
from omnistream.data.media.packet_scan import PacketScan, scan_packets
from omnistream.data.media.video_cache import load_record, store_record
from omnistream.data.media.video_decode import Cursor, open_video, video_stream
from omnistream.data.media.video_index import VideoIndex, make_index
from omnistream.data.media.video_info import VideoInfo, VideoRecord

logger = logging.getLogger(__name__)

MAX_FRAME_PIXELS = 64 * 1024 * 1024
"""Videos with larger frames are refused before decoding (8K is 33 million pixels)."""

_DECORD_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "mpeg4"})
_DECORD_CONTAINERS = frozenset({"mov", "matroska"})


def probe_video(path: str | Path) -> VideoInfo:
    """Number of frames, size, rate and other properties of a video.

    The packets of the file are read once, and only the first frame is decoded. Videos whose packets do not say which
    frames they show (raw streams, AVI with B-frames, rare codecs) are decoded once. The result is cached on disk (see
    `video_cache`) until the file changes.

    Raises:
        VideoReadError: If the file is missing, or has no video stream, no decodable frame, or too large frames.
    """
    return probe_record(path).info


def probe_record(path: str | Path) -> VideoRecord:
    """Like `probe_video`, with the index of the frames."""
    record = load_record(path)
    if record is None:
        record = store_record(_probe(str(path)))
        if record.info.promised_frames is not None:
            logger.warning("%s: %s", path, truncation(record.info.promised_frames, record.info.num_frames))
    return record


def truncation(promised: int, found: int) -> str:
    """Message for a file that holds less than its header promises."""
    return f"truncated: the header promises {promised} frames, the file holds {found}"


def _probe(path: str, *, decode: bool = False) -> VideoRecord:
    if Path(path).stat().st_size == 0:
        raise VideoReadError(path, "the file is empty")
    with open_video(path) as (container, stream):
        _check_size(path, stream.codec_context.width, stream.codec_context.height)
        _, num_streams = video_stream(path, container)
        scan = scan_packets(path, container, stream)
        order = None if decode else scan.display_order()
        counted = 0
        if order is None:
            order, counted = _decoded_order(path, scan)
        index = make_index(scan, order)
        return VideoRecord(_describe(path, stream, num_streams, scan, index, counted or len(order)), index)


def reprobe(record: VideoRecord) -> VideoRecord:
    """The record of a file whose packets are misleading, from decoding it completely."""
    return store_record(_probe(record.info.path, decode=True))


def mark_whole(record: VideoRecord) -> VideoRecord:
    """Store that all frames decode."""
    return record if record.info.whole else store_record(replace(record, info=replace(record.info, whole=True)))


def forget_starts(record: VideoRecord) -> VideoRecord:
    """Store that the file can only be decoded from its start."""
    return store_record(replace(record, index=record.index.from_the_start_only()))


def _decoded_order(path: str, scan: PacketScan) -> tuple[np.ndarray, int]:
    """The packet of every frame in decoding order (empty if the decoder does not report it), and their number."""
    with open_video(path) as (container, stream):
        cursor = Cursor(container, stream, np.array(scan.checksums, dtype=np.uint32))
        numbers = [decoded.number for decoded in cursor.decode() if decoded.frame is not None]
    if not numbers:
        raise VideoReadError(path, "contains no decodable frame")
    named = len(set(numbers)) == len(numbers) and min(numbers) >= 0
    return np.array(numbers if named else [], dtype=np.int32), len(numbers)


def _check_size(path: str, width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise VideoReadError(path, "has a video stream without a frame size")
    if width * height > MAX_FRAME_PIXELS:
        raise VideoReadError(path, f"frames of {width}x{height} are over the limit of {MAX_FRAME_PIXELS} pixels")


def _first_frame(path: str) -> tuple[int, int, Orientation]:
    """Stored height and width, and orientation, of the first frame that decodes."""
    with open_video(path) as (container, stream):
        try:
            frame = next(iter(container.decode(stream)), None)
        except av.FFmpegError as error:
            raise VideoReadError(path, f"contains no decodable frame ({error.strerror})") from error
    if frame is None:
        raise VideoReadError(path, "contains no decodable frame")
    _check_size(path, frame.width, frame.height)
    try:
        return frame.height, frame.width, frame_orientation(frame)
    except ValueError as error:
        raise VideoReadError(path, str(error)) from error


def _describe(
    path: str, stream: VideoStream, num_streams: int, scan: PacketScan, index: VideoIndex, num_frames: int
) -> VideoInfo:
    stored_height, stored_width, orientation = _first_frame(path)
    height, width = orientation.size(stored_height, stored_width)
    doubts = _decord_doubts(stream, num_streams, scan, index, orientation)
    if decord_breaks_width(width):
        doubts.append(f"decord breaks at width {width}")
    fps = _frames_per_second(stream, scan, index)
    return VideoInfo(
        path=path,
        codec=stream.codec_context.codec.canonical_name,
        width=width,
        height=height,
        orientation=orientation,
        num_frames=num_frames,
        fps=fps,
        promised_frames=_promised_frames(scan, num_frames, fps),
        corrupt=scan.damaged,
        doubts=tuple(doubts),
    )


def _decord_doubts(
    stream: VideoStream, num_streams: int, scan: PacketScan, index: VideoIndex, orientation: Orientation
) -> list[str]:
    codec = stream.codec_context.codec.canonical_name
    stamps = [scan.pts[number] for number in index.order.tolist()]
    known = [stamp for stamp in stamps if stamp is not None]
    field_order = getattr(stream.codec_context, "field_order", None)  # PyAV 18 and newer
    doubts = {
        f"{codec} was not verified with decord": codec not in _DECORD_CODECS,
        "container was not verified with decord": not _DECORD_CONTAINERS & scan.formats,
        "packets are not single frames": len(index.order) != len(scan.checksums) or not scan.countable,
        "edit list": any(scan.hidden) or min(known, default=-1) < 0,
        "timestamps out of order": len(known) < len(stamps) or known != sorted(set(known)),
        "key frames that are not start points": [n for n, key in enumerate(scan.keys) if key] != index.starts.tolist(),
        "open group of pictures": any(index.rank[index.starts] != index.starts),
        "damaged packets": scan.damaged,
        "truncated": _is_truncated(scan),
        "several video streams": num_streams > 1,
        "more than 8 bits per channel": _bits_per_channel(stream) > 8,
        "interlaced": field_order not in (0, 1, None),
        "field order unknown": field_order is None,
        "mirrored": orientation.is_mirrored,
        "rotated by the container": orientation != UPRIGHT and "mov" not in scan.formats,
        "odd frame size": bool(stream.codec_context.width % 2 or stream.codec_context.height % 2),
    }
    return [*(text for text, applies in doubts.items() if applies), *sorted(scan.notes)]


def decord_breaks_width(width: int) -> bool:
    """Whether decord copies rows of this width with a wrong stride.

    Rows are padded to a multiple of 32 pixels in decord 0.6.0 and of 64 in decord2; when three padded rows divide
    evenly into the width, the frame comes back with a wrong number of channels.
    """

    def breaks(align: int) -> bool:
        return width % align != 0 and 3 * (-(-width // align) * align) % width == 0

    return breaks(32) or breaks(64)


def _bits_per_channel(stream: VideoStream) -> int:
    """Bits of the deepest channel. Above 8, decord upsamples chroma with another filter, so colours differ at edges."""
    pixel_format = stream.codec_context.format
    return max((component.bits for component in pixel_format.components), default=8) if pixel_format else 8


def _is_truncated(scan: PacketScan) -> bool:
    return scan.promised_packets is not None or scan.promised_seconds is not None


def _promised_frames(scan: PacketScan, num_frames: int, fps: float) -> int | None:
    """For a truncated file; a missing packet is assumed to show as many frames as an existing one."""
    if scan.promised_packets is not None:
        return round(scan.promised_packets * num_frames / len(scan.checksums))
    return None if scan.promised_seconds is None else max(num_frames + 1, round(scan.promised_seconds * fps))


def _frames_per_second(stream: VideoStream, scan: PacketScan, index: VideoIndex) -> float:
    """The stated rate that is nearest to that of the frames' timestamps, or the latter if none is near.

    The rate that a container states may be that of fields or of clock ticks, count one frame too many, or be a guess.
    """
    rates = (stream.codec_context.framerate, stream.average_rate, stream.guessed_rate)
    stated = [float(rate) for rate in rates if rate]
    stamps = _frame_stamps(scan, index)
    if not stamps or stream.time_base is None:
        return stated[0] if stated else 0.0
    span = stamps[-1] - stamps[0]
    measured = (len(stamps) - 1) / float(span * stream.time_base)
    nearest = min(stated, key=lambda rate: abs(rate - measured), default=measured)
    error = abs(nearest - measured) / measured
    step_error = abs(1 / float(nearest * stream.time_base) - float(np.median(np.diff(stamps))))
    # Timestamps are rounded to whole ticks, a step may be missing, and many are near the end of a truncated file.
    if error <= 0.01 + 1 / span or (error <= 0.05 and step_error <= 1) or _is_truncated(scan):
        return nearest
    return _round_rate(measured, 1 / span)


def _round_rate(rate: float, error: float) -> float:
    """The nearest whole or NTSC rate (24000/1001 and the like) within this relative error; else the rate itself."""
    usual = (round(rate), round(rate * 1.001) / 1.001)
    return next((near for near in usual if abs(near - rate) <= error * rate), rate)


def _frame_stamps(scan: PacketScan, index: VideoIndex) -> list[int]:
    """Increasing timestamps of all frames, of presentation or else of decoding; empty if there are fewer than two."""
    display = [scan.pts[number] for number in index.order.tolist()]
    decoding = scan.dts if index.counts_only else [scan.dts[number] for number in sorted(index.order.tolist())]
    for stamps in (display, decoding):
        known = [stamp for stamp in stamps if stamp is not None]
        if 1 < len(known) == len(stamps) and known == sorted(set(known)):
            return known
    return []
