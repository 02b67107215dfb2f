"""Decoding of frames by position, bit for bit those of decoding from the start.

From a start point on, the decoder gets exactly the packets, identified by checksum, that it would get when decoding the
whole file, and every frame is returned with the number of its packet. A missing frame, or one out of order, is an
error; another frame is never returned in its place.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from omnistream.data.media.errors import VideoReadError
from omnistream.data.media.mp4_boxes import missing_index
from omnistream.data.media.video_index import NO_STAMP, VideoIndex

_NEAR = 256
"""Up to this many packets are skipped rather than sought; a seek costs about as much."""

_STEP_BACK = 2.0
"""Seconds before a start point to seek to in the last attempt."""


class SeekError(Exception):
    """A packet is not found again, or is not a start point: the file can only be decoded from its start."""


class OrderError(Exception):
    """The decoded frames contradict the packets: only decoding the whole file gives its index."""


class Decoded(NamedTuple):
    """Output of the decoder."""

    number: int
    """Number of the frame's packet, or of the packet that does not decode."""
    frame: VideoFrame | None
    """None if the packet does not decode."""


def video_stream(path: str, container: InputContainer) -> tuple[VideoStream, int]:
    """The first video stream that is not a cover image, and the number of video streams including cover images.

    Raises:
        VideoReadError: If there is none.
    """
    streams = container.streams.video
    for stream in streams:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream, len(streams)
    raise VideoReadError(path, "has no video stream")


@contextmanager
def open_video(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its video stream, to be decoded by one thread.

    Raises:
        VideoReadError: If it cannot be opened or has no video stream.
    """
    try:
        container = av.open(path)
    except (av.FFmpegError, OSError) as error:
        raise VideoReadError(path, f"cannot be opened as a video ({missing_index(path) or error.strerror})") from error
    with container:
        try:
            stream, _ = video_stream(path, container)
        except VideoReadError as error:
            if reason := missing_index(path):
                raise VideoReadError(path, f"cannot be opened as a video ({reason})") from error
            raise
        stream.codec_context.thread_count = 1  # more threads can deadlock with torch's, and there are many workers
        yield container, stream


class Cursor:
    """Decodes an open file in forward direction.

    Args:
        container: The file, at its start.
        stream: The stream to decode.
        checksums: Checksums of its packets, from the scan.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, checksums: np.ndarray) -> None:
        self._container, self._stream, self._checksums = container, stream, checksums
        self.next = 0
        """Number of the next packet to decode."""
        self._packets = self._numbered()

    def decode(self) -> Iterator[Decoded]:
        """Decode from the next packet to the end; to be called again after a jump."""
        codec = self._stream.codec_context
        for number, packet in self._packets:
            packet.pts = packet.dts = number  # the decoder copies it to the frame
            yield from self._frames(number, packet)
            if packet.is_corrupt and self.next == len(self._checksums):
                yield Decoded(number, None)  # the file ends inside it, which not every decoder notices
        try:
            frames = codec.decode(None)
        except av.FFmpegError:
            yield Decoded(self.next - 1, None)
            return
        yield from (Decoded(-1 if frame.pts is None else frame.pts, frame) for frame in frames)

    def _frames(self, number: int, packet: Packet) -> Iterator[Decoded]:
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.FFmpegError:
            yield Decoded(number, None)
            return
        yield from (Decoded(-1 if frame.pts is None else frame.pts, frame) for frame in frames)

    def jump(self, start: int, pts: int, dts: int) -> None:
        """Continue at a later start point.

        Raises:
            SeekError: If the packet is not found.
        """
        if self.next == 0:
            # The first packet may name the encoder; decoders work around bugs of old encoders.
            for _ in self._frames(*next(self._packets)):
                break
        if start - self.next <= _NEAR:
            while self.next < start:
                if next(self._packets, None) is None:
                    raise SeekError
            self._stream.codec_context.flush_buffers()
            return
        if not any(self._seek(start, pts, dts, stamp) for stamp in self._seek_stamps(pts, dts)):
            raise SeekError

    def _seek_stamps(self, pts: int, dts: int) -> list[int]:
        """Timestamps to seek to: containers use those of presentation or of decoding, and some land too late."""
        known = [stamp for stamp in (pts, dts) if stamp != NO_STAMP]
        base = self._stream.time_base
        return list(dict.fromkeys([*known, min(known) - (round(_STEP_BACK / base) if base else 0)]))

    def _seek(self, start: int, pts: int, dts: int, stamp: int) -> bool:
        """Seek to this timestamp and search for the start point from where the demuxer lands."""
        try:
            self._container.seek(stamp, stream=self._stream)
            for packet in self._container.demux(self._stream):
                if not packet.size or _is_past(packet, pts, dts):
                    return False
                is_there = packet.dts == dts if pts == NO_STAMP else packet.pts == pts
                if is_there and zlib.crc32(packet) == self._checksums[start]:
                    self.next, self._packets = start, self._numbered(packet)
                    return True
        except av.FFmpegError:
            return False
        return False

    def _numbered(self, first: Packet | None = None) -> Iterator[tuple[int, Packet]]:
        """The packets with their numbers, each compared with the scan.

        Raises:
            SeekError: If a packet differs.
        """
        if first is not None:
            self.next += 1
            yield self.next - 1, first
        try:
            for packet in self._container.demux(self._stream):
                if not packet.size:
                    continue
                if self.next >= len(self._checksums) or zlib.crc32(packet) != self._checksums[self.next]:
                    raise SeekError
                self.next += 1
                yield self.next - 1, packet
        except av.FFmpegError:
            return  # the scan ended here as well


def _is_past(packet: Packet, pts: int, dts: int) -> bool:
    """Whether the key frame searched for must have come before this packet. Matroska guesses decoding timestamps."""
    if pts == NO_STAMP:
        return packet.dts is not None and packet.dts > dts
    return packet.is_keyframe and packet.pts is not None and packet.pts > pts


class ExactReader:
    """Reads frames at given positions of an open file, once.

    Args:
        path: The file.
        index: Its index.
        container: The file, opened.
        stream: The stream to decode.
    """

    def __init__(self, path: str, index: VideoIndex, container: InputContainer, stream: VideoStream) -> None:
        self._path, self._index = path, index
        self._cursor = Cursor(container, stream, index.checksums)
        self._decoded = self._cursor.decode()
        self._floor = self._expected = 0
        self._damage: list[int] = []

    def frames(self, wanted: np.ndarray) -> Iterator[tuple[int, VideoFrame]]:
        """The frames at these increasing positions, each as soon as it and all it depends on have been decoded.

        Raises:
            VideoReadError: If one of them is damaged.
            SeekError: If the file has to be decoded from its start.
            OrderError: If the index is wrong.
        """
        remaining = set(wanted.tolist())
        held: dict[int, VideoFrame] = {}
        for position in wanted.tolist():
            start = self._index.start_for(position)
            if start > self._cursor.next:
                self._jump(start)
            number = self._number(position)
            last = position if number < 0 else int(self._index.reach[number])
            while self._expected <= last:
                decoded = next(self._decoded, None)
                if decoded is None:
                    break
                self._take(decoded, remaining, held)
            self._check(position, number, start, held)
            remaining.discard(position)
            yield position, held.pop(position)

    def _number(self, position: int) -> int:
        return -1 if self._index.counts_only else int(self._index.order[position])

    def _jump(self, start: int) -> None:
        self._cursor.jump(start, *self._index.stamps_of(start))
        self._decoded = self._cursor.decode()
        self._floor = self._expected = self._index.first_position(start)

    def _take(self, decoded: Decoded, remaining: set[int], held: dict[int, VideoFrame]) -> None:
        """Keep a frame that is needed, or record damage."""
        number, frame = decoded
        if frame is None:
            self._damage.append(number)
            return
        position = self._position(number)
        if 0 <= position < self._floor:
            return  # shown before the start point and decoded without its references
        if frame.is_corrupt:
            self._damage.append(number)
        if position == self._floor > 0 and not frame.key_frame:
            raise SeekError
        if position != self._expected and not self._damage:
            raise OrderError
        self._expected = max(self._expected, position + 1)
        if position in remaining:
            held[position] = frame

    def _position(self, number: int) -> int:
        if self._index.counts_only:
            return self._expected
        return int(self._index.rank[number]) if 0 <= number < len(self._index.rank) else -1

    def _check(self, position: int, number: int, start: int, held: dict[int, VideoFrame]) -> None:
        """Check that the frame was decoded, and that nothing it may be predicted from is damaged."""
        for packet in self._damage:
            shown_before = 0 <= self._index.rank[packet] < self._index.first_position(start)
            if number < 0 or (start <= packet <= number and not shown_before):
                raise VideoReadError(self._path, f"frame {position} is damaged (packet {packet} of the video stream)")
        if position not in held:
            if self._damage:
                raise VideoReadError(self._path, f"frame {position} is missing; packet {self._damage[0]} is damaged")
            raise OrderError
