"""Sequential decoding with PyAV that continues after broken packets, for streams of any length."""

import threading
from collections.abc import Iterator

import av
import torch
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from jaxtyping import UInt8
from torch import Tensor

from omnistream.data.media import VideoReadError
from omnistream.data.media.mp4_boxes import missing_index
from omnistream.data.media.orientation import upright_image
from omnistream.data.media.video_decode import video_stream
from omnistream.data.media.video_probe import MAX_FRAME_PIXELS
from omnistream.streaming.container import end_of, field_coded, shortfall, stated_rate
from omnistream.streaming.frames import (
    DEFAULT_SOURCE,
    Frame,
    SourceOptions,
    Subsampler,
    public_name,
)
from omnistream.streaming.problems import Problems

USUAL_TIMEOUT = 10.0
"""Seconds."""

MAX_BROKEN_IN_A_ROW = 1000
"""After this many broken packets, reading stops."""

_STAMPS_IN_FILE_ORDER = frozenset({"avi"})
"""Containers whose timestamps do not increase in display order."""


class VideoSource:
    """A video file, network address or camera.

    Frames are decoded sequentially, so they do not depend on what the container says about seeking, and memory does not
    grow with the length. Packets that do not decode and frames that the decoder marks as damaged are reported and left
    out, but counted in `Frame.index`. A broken packet counts as one frame, at the position given by its timestamp, or
    without one (AVI) at its place in the file; frames that the decoder drops silently are not counted. Frames that
    `fps` leaves out are decoded, but not converted to RGB. A file that holds less than its container promises is
    reported.

    Args:
        address: Path, address or device for FFmpeg.
        problems: Receives broken frames.
        options: `fps` and `timeout`; FFmpeg applies the latter to addresses, not to a camera that hangs in its driver.
        container_format: FFmpeg's interface to a camera.
        live: Start time at the first frame instead of using that of the file.

    Raises:
        VideoReadError: If it cannot be opened or has no video.
    """

    def __init__(
        self,
        address: str,
        problems: Problems,
        options: SourceOptions = DEFAULT_SOURCE,
        *,
        container_format: str | None = None,
        live: bool = False,
    ) -> None:
        self.name, self.problems, self.live = public_name(address), problems, live
        self.sampler = Subsampler(options.fps)
        self._reading = threading.Lock()
        protocol = {"rtsp_transport": "tcp"} if address.lower().startswith("rtsp") else {}
        timeout = (options.timeout or USUAL_TIMEOUT) if live or "://" in address else None
        try:
            self._container: InputContainer = av.open(
                address, format=container_format, options=protocol, timeout=timeout
            )
        except (av.FFmpegError, ValueError) as error:
            reason = missing_index(address) or _reason(error)
            raise VideoReadError(self.name, f"cannot be opened as a video ({reason})") from error
        try:
            self._stream, _ = video_stream(self.name, self._container)
        except VideoReadError:
            self.close()
            raise
        self._stream.codec_context.thread_count = 1  # more threads can deadlock with torch's
        of_fields = None if live or "://" in address else field_coded(address)
        self.source_fps = of_fields.fps if of_fields and of_fields.fps else stated_rate(self._stream)
        self.fps = self.sampler.rate(self.source_fps)
        announced = 0 if live else of_fields.num_frames if of_fields else self._stream.frames
        self.total: int | None = round(announced * self.fps / self.source_fps) if announced else None
        self._trusts_stamps = not _STAMPS_IN_FILE_ORDER & set(self._container.format.name.split(","))
        self._start: float | None = None
        self._last: tuple[int, float] | None = None  # index and time of the previous frame

    def __iter__(self) -> Iterator[Frame]:
        """The frames to use that are not damaged."""
        frames = self._frames()
        while True:
            with self._reading:
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def close(self) -> None:
        """Close the file or connection, unless another thread is still waiting for data from it."""
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
                image = self._image(frame)
            except av.FFmpegError as error:
                self.problems.skip(f"{self.name}: frame {index} cannot be converted to RGB ({_reason(error)})")
                continue
            yield Frame(index, time, image)

    def _decode(self) -> Iterator[tuple[int, VideoFrame]]:
        """All frames in display order with their positions; packets that do not decode are left out and counted."""
        index, broken_in_a_row = -1, 0
        broken: list[int | None] = []  # timestamps of broken packets that are not counted yet
        for packet in self._packets():
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self.problems.skip(f"{self.name}: a packet after frame {index} is broken ({_reason(error)})")
                broken.append(packet.pts if self._trusts_stamps else None)
                broken_in_a_row += 1
                if broken_in_a_row == MAX_BROKEN_IN_A_ROW:
                    self.problems.note(f"{self.name}: {broken_in_a_row} broken packets in a row; giving up")
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
        count, end = 0, 0.0
        try:
            for packet in self._container.demux():
                end = max(end, end_of(packet))
                if packet.stream is self._stream:
                    count += packet.size > 0  # demuxing ends with an empty packet that flushes the decoder
                    yield packet
        except av.FFmpegError as error:
            self.problems.note(f"{self.name}: reading stops ({_reason(error)})")
        if not self.live and (text := shortfall(self._container, self._stream, count, end)):
            self.problems.cut_off(f"{self.name}: {text}")

    def _time(self, index: int, frame: VideoFrame) -> float:
        """Time in seconds; from the rate if the container has no timestamp, or one that does not increase."""
        stamp = frame.time if self._trusts_stamps else None
        if stamp is not None and self.live:
            self._start = stamp if self._start is None else self._start
            stamp -= self._start
        time = 0.0 if stamp is None else float(stamp)
        if self._last is not None and (stamp is None or stamp <= self._last[1]):
            time = self._last[1] + (index - self._last[0]) / self.source_fps
        self._last = index, time
        return time

    def _image(self, frame: VideoFrame) -> UInt8[Tensor, "3 H W"]:
        """Upright RGB.

        Raises:
            VideoReadError: If the frame is too large, or its display rotation is not a multiple of 90 degrees.
        """
        if frame.width * frame.height > MAX_FRAME_PIXELS:
            raise VideoReadError(
                self.name, f"frames of {frame.width}x{frame.height} are over the limit of {MAX_FRAME_PIXELS} pixels"
            )
        try:
            image = upright_image(frame)
        except ValueError as error:
            raise VideoReadError(self.name, str(error)) from error
        return torch.from_numpy(image.transpose(2, 0, 1).copy())


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
