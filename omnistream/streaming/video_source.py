"""Sequential decoding with PyAV that survives broken packets: the reader for streams of any length."""

import threading
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import torch
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from jaxtyping import UInt8
from torch import Tensor

from omnistream.data.media import VideoReadError
from omnistream.data.media.video_probe import MAX_FRAME_PIXELS, video_stream
from omnistream.streaming.problems import Problems
from omnistream.streaming.sources import Frame, Subsampler, public_name

USUAL_FPS = 30.0
"""For sources that state no rate."""

HIGHEST_FPS = 1000
"""Streams without a rate are guessed to have that of their clock, such as 90,000."""

MAX_BROKEN_IN_A_ROW = 1000
"""A live source that gives nothing else is left."""

_STAMPS_IN_FILE_ORDER = frozenset({"avi"})
"""Containers whose stamps do not rise in display order."""


class VideoSource:
    """A video file, address or camera.

    Frames are decoded one after the other, so the right one comes whatever the container says about seeking, and
    memory does not depend on the length. A packet that does not decode, or a frame the decoder marks as damaged, is
    told and left out, but counts in the index. A packet is taken for one frame, at the place that its time stamp says,
    or without a stamp (AVI) where it came; what the decoder loses without a word is not counted. Frames that are not
    due are decoded, but not converted to RGB.

    Args:
        address: What FFmpeg opens.
        problems: Gets broken frames.
        fps: Thin out to this rate by time stamps.
        container_format: FFmpeg's interface to a camera.
        timeout: Seconds to wait for an answer and for each piece of data. FFmpeg heeds it for addresses; a camera that
            hangs in its driver is waited for.
        live: Time starts at the first frame instead of being the file's.

    Raises:
        VideoReadError: If it cannot be opened or has no video.
    """

    def __init__(
        self,
        address: str,
        problems: Problems,
        *,
        fps: float | None = None,
        container_format: str | None = None,
        timeout: float | None = None,
        live: bool = False,
    ) -> None:
        self.name, self.problems, self.live, self.sampler = public_name(address), problems, live, Subsampler(fps)
        self._reading = threading.Lock()
        options = {"rtsp_transport": "tcp"} if address.lower().startswith("rtsp") else {}
        try:
            self._container: InputContainer = av.open(
                address, format=container_format, options=options, timeout=timeout
            )
        except (av.FFmpegError, ValueError) as error:
            raise VideoReadError(self.name, f"cannot be opened as a video ({_reason(error)})") from error
        try:
            self._stream, _ = video_stream(self.name, self._container)
        except VideoReadError:
            self.close()
            raise
        self._stream.codec_context.thread_count = 1  # more threads can hang beside torch's
        rate: Fraction | None = self._stream.average_rate or self._stream.guessed_rate
        self.source_fps = float(rate) if rate and rate <= HIGHEST_FPS else USUAL_FPS
        self.fps = self.sampler.rate(self.source_fps)
        announced = 0 if live else self._stream.frames
        self.total: int | None = round(announced * self.fps / self.source_fps) if announced else None
        self._trusts_stamps = not _STAMPS_IN_FILE_ORDER & set(self._container.format.name.split(","))
        self._start: float | None = None
        self._last: tuple[int, float] | None = None  # index and time of the frame before

    def __iter__(self) -> Iterator[Frame]:
        """The frames that are due and whole."""
        frames = self._frames()
        while True:
            with self._reading:
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def close(self) -> None:
        """Close the file or connection, unless another thread waits for data from it: that is left to its end."""
        if self._reading.acquire(blocking=False):
            self._container.close()
            self._reading.release()

    def _frames(self) -> Iterator[Frame]:
        for index, frame in self._decode():
            time = self._time(index, frame)
            if frame.is_corrupt:
                self.problems.skip(f"{self.name}: frame {index} is damaged")
                continue
            if not self.sampler.take(time):
                continue
            try:
                picture = self._picture(frame)
            except av.FFmpegError as error:
                self.problems.skip(f"{self.name}: frame {index} has no RGB picture ({_reason(error)})")
                continue
            yield Frame(index, time, picture)

    def _decode(self) -> Iterator[tuple[int, VideoFrame]]:
        """All frames in display order with their positions; packets that do not decode are left out and counted."""
        index, broken_in_a_row = -1, 0
        broken: list[int | None] = []  # time stamps of packets whose frames have not been due yet
        for packet in self._packets():
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self.problems.skip(f"{self.name}: a packet after frame {index} is broken ({_reason(error)})")
                broken.append(packet.pts if self._trusts_stamps else None)
                broken_in_a_row += 1
                if broken_in_a_row == MAX_BROKEN_IN_A_ROW:
                    self.problems.note(f"{self.name}: {broken_in_a_row} broken packets in a row; given up")
                    return
                continue
            for frame in frames:
                assert isinstance(frame, VideoFrame)
                before = len(broken)
                broken = [pts for pts in broken if pts is not None and frame.pts is not None and pts > frame.pts]
                index += 1 + before - len(broken)
                broken_in_a_row = 0
                yield index, frame

    def _packets(self) -> Iterator[Packet]:
        try:
            yield from self._container.demux(self._stream)
        except av.FFmpegError as error:
            self.problems.note(f"{self.name}: breaks off ({_reason(error)})")

    def _time(self, index: int, frame: VideoFrame) -> float:
        """Seconds; by the rate where the container has no stamp, or one that does not rise."""
        stamp = frame.time if self._trusts_stamps else None
        if stamp is not None and self.live:
            self._start = stamp if self._start is None else self._start
            stamp -= self._start
        time = 0.0 if stamp is None else float(stamp)
        if self._last is not None and (stamp is None or stamp <= self._last[1]):
            time = self._last[1] + (index - self._last[0]) / self.source_fps
        self._last = index, time
        return time

    def _picture(self, frame: VideoFrame) -> UInt8[Tensor, "3 H W"]:
        """Upright RGB.

        Raises:
            VideoReadError: If the frame is too large, or is to be turned by something else than a right angle.
        """
        if frame.width * frame.height > MAX_FRAME_PIXELS:
            raise VideoReadError(
                self.name, f"frames of {frame.width}x{frame.height} are over the limit of {MAX_FRAME_PIXELS} pixels"
            )
        rotation = round(frame.rotation) % 360
        if rotation % 90:
            raise VideoReadError(
                self.name, f"is to be shown turned by {rotation} degrees; only multiples of 90 are read"
            )
        picture = np.rot90(frame.to_ndarray(format="rgb24"), rotation // 90)
        return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
