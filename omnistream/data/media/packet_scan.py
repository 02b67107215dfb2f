"""One pass over all packets of a video file, without decoding."""

import zlib
from dataclasses import dataclass, field

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from omnistream.data.media.access_unit import AccessUnit, UnitReader
from omnistream.data.media.codecs import unit_reader
from omnistream.data.media.errors import VideoReadError

_TRUE_STAMPS = frozenset({"mov", "matroska", "mpegts", "flv"})
"""Containers whose presentation timestamps give the display order; others store one timestamp per packet, or guess."""

_PROMISING = frozenset({"matroska", "avi", "flv"})
"""Containers whose header states a duration; in others FFmpeg derives it from the packets. MP4 lists its packets."""


@dataclass
class PacketScan:
    """The packets of the first video stream that is not a cover image, in file order."""

    formats: frozenset[str]
    """FFmpeg's names of the container format."""
    reorders: bool = True
    """Whether the display order of frames may differ from the order of their packets."""
    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    """Key flags of the container."""
    hidden: list[bool] = field(default_factory=list)
    """Whether an edit list leaves the packet's frames out."""
    units: list[AccessUnit] | None = field(default_factory=list)
    """Contents of the packets; None if they cannot be read."""
    countable: bool = True
    """Whether the packets say which frames they show; otherwise the file has to be decoded."""
    notes: set[str] = field(default_factory=set)
    """Features of the stream that other readers may ignore."""
    damaged: bool = False
    """Whether the demuxer failed, or found damaged data."""
    seconds: float = 0.0
    """From the first timestamp of this stream to the end of its last packet; 0 without timestamps."""
    promised_packets: int | None = None
    """Number of packets that the header lists, if there are fewer."""
    promised_seconds: float | None = None
    """Duration that the header states, if the file is shorter."""

    def display_order(self) -> np.ndarray | None:
        """The packet of every shown frame, in display order; None if the file has to be decoded to find it."""
        if not self.countable or not self.units or any(unit.shows > 1 for unit in self.units):
            return None
        shown = np.array([number for number, unit in enumerate(self.units) if unit.shows], dtype=np.int32)
        if len(shown) == 0 or shown[0] != 0:
            return None
        if self.reorders:
            ranked = self._sorted(shown)
            if ranked is None or not self.units[0].starts:
                return None
            shown = ranked
        return None if shown[0] != 0 else shown[~np.array(self.hidden)[shown]]

    def _sorted(self, shown: np.ndarray) -> np.ndarray | None:
        """The packets sorted by the order in the stream and by timestamps, which must agree if both are known."""
        assert self.units is not None
        by_stream = _ranking([self.units[number].order for number in shown])
        stamps = [self.pts[number] for number in shown]
        by_stamp = _ranking(stamps) if _TRUE_STAMPS & self.formats else None
        if by_stream is not None and by_stamp is not None and not np.array_equal(by_stream, by_stamp):
            return None
        ranking = by_stamp if by_stream is None else by_stream
        return None if ranking is None else shown[ranking]


def _ranking(keys: list[int | None]) -> np.ndarray | None:
    """Indices that sort the keys; None if a key is missing or they are not all different."""
    known = [key for key in keys if key is not None]
    if len(known) < len(keys) or len(set(known)) < len(keys):
        return None
    return np.argsort(np.array(known, dtype=np.int64), kind="stable")


def scan_packets(path: str, container: InputContainer, stream: VideoStream) -> PacketScan:
    """Read all packets.

    Raises:
        VideoReadError: If the stream has none.
    """
    scan = PacketScan(frozenset(container.format.name.split(",")))
    reader = unit_reader(stream.codec_context.codec.canonical_name, stream.codec_context.extradata or b"")
    if reader is None:
        scan.units = None
    else:
        scan.reorders = reader.reorders
    ends: dict[int, float] = {}
    try:
        for packet in container.demux():
            _note_end(packet, ends)
            if packet.stream_index != stream.index or not packet.size:
                continue
            data = bytes(packet)
            _note_packet(scan, packet, data)
            if scan.units is not None and reader is not None:
                _note_unit(scan, reader, data, packet.is_keyframe)
    except av.FFmpegError:
        scan.damaged = True
    if not scan.checksums:
        raise VideoReadError(path, "contains no video packets")
    if reader is not None:
        scan.countable = scan.countable and reader.finish()
        scan.notes = reader.notes
    _note_length(scan, container, stream, ends)
    return scan


def _note_unit(scan: PacketScan, reader: UnitReader, data: bytes, is_key: bool) -> None:
    """Add the contents of a packet. If it cannot be read, later ones still can, unless the reader has state."""
    assert scan.units is not None
    try:
        scan.units.append(reader(data, is_key))
    except (IndexError, KeyError):
        scan.countable = False
        scan.units = None if reader.has_state else [*scan.units, AccessUnit(False, 1)]


def _note_packet(scan: PacketScan, packet: Packet, data: bytes) -> None:
    scan.pts.append(packet.pts)
    scan.dts.append(packet.dts)
    scan.checksums.append(zlib.crc32(data))
    scan.keys.append(packet.is_keyframe)
    scan.hidden.append(packet.is_discard)
    scan.damaged = scan.damaged or packet.is_corrupt


def _note_end(packet: Packet, ends: dict[int, float]) -> None:
    stamp = packet.dts if packet.pts is None else packet.pts
    if stamp is not None and packet.time_base is not None:
        end = float((stamp + (packet.duration or 0)) * packet.time_base)
        ends[packet.stream_index] = max(ends.get(packet.stream_index, end), end)


def _note_length(scan: PacketScan, container: InputContainer, stream: VideoStream, ends: dict[int, float]) -> None:
    """Add the length of the stream, and the one that the header promises if that is clearly more.

    The index of an MP4 file lists every packet. A stated duration counts if all streams end more than 2 % (at least a
    quarter of a second) before it, because audio may be longer than video.
    """
    stamps = [stamp for stamp in (scan.pts if any(p is not None for p in scan.pts) else scan.dts) if stamp is not None]
    if stamps and stream.time_base is not None:
        scan.seconds = ends[stream.index] - float(min(stamps) * stream.time_base)
    if "mov" in scan.formats:
        listed = len(stream.index_entries)
        scan.promised_packets = listed if listed > len(scan.checksums) else None
    elif ends and _PROMISING & scan.formats and scan.seconds > 0:
        promised, end = _stated_seconds(container, stream, scan), max(ends.values())
        held = max(end, end - (container.start_time or 0) / av.time_base)  # durations count from 0 or from the start
        if promised - held > max(0.25, 0.02 * promised):
            scan.promised_seconds = scan.seconds + promised - held


def _stated_seconds(container: InputContainer, stream: VideoStream, scan: PacketScan) -> float:
    """The duration in the header; 0 if there is none."""
    seconds = (container.duration or 0) / av.time_base
    if "avi" in scan.formats and stream.average_rate:  # FFmpeg's duration covers only the packets that exist
        return max(seconds, float(stream.frames / stream.average_rate))
    return seconds
