"""Writing an MP4 file frame by frame."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from jaxtyping import UInt8

CODECS = ("libx264", "mpeg4")
"""In order of preference; some builds of FFmpeg lack the first."""


class Mp4File:
    """Frames of one size as a video with a constant frame rate.

    Args:
        path: File to write.
        fps: Frames per second.
        codecs: FFmpeg's names; the first available one is used.

    Raises:
        RuntimeError: If FFmpeg has none of the codecs.
    """

    def __init__(self, path: Path, fps: float, codecs: tuple[str, ...] = CODECS) -> None:
        self.path, self.codec = path, _first_available(codecs)
        self.rate = max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001))  # keeps 30000/1001 exact
        self.num_frames = 0
        self._container = av.open(str(path), "w", format="mp4")
        self._stream: VideoStream | None = None

    def add(self, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Append a frame; odd sides are padded by one row or column, because chroma is stored at half resolution."""
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._open(*image.shape[:2])
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = self.num_frames, 1 / self.rate
        self._container.mux(self._stream.encode(frame))
        self.num_frames += 1

    def close(self) -> None:
        """Write the encoder's remaining frames and the index."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def _open(self, height: int, width: int) -> VideoStream:
        options = {"crf": "18", "preset": "veryfast"} if self.codec == "libx264" else {"q:v": "3"}
        stream = self._container.add_stream(self.codec, rate=self.rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.thread_count = 1  # more threads can deadlock with torch's
        return stream


def _first_available(codecs: tuple[str, ...]) -> str:
    for name in codecs:
        try:
            av.codec.Codec(name, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        return name
    raise RuntimeError(f"FFmpeg has no encoder for MP4 videos; tried {', '.join(codecs)}")
