"""Small videos written and read with PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def shaded_image(index: int, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    """An image whose brightness gives its index: 20 + 5 * index in the middle, darker at the left edge."""
    image = np.full((*size, 3), 20 + 5 * index % 200, np.uint8)
    image[:, : size[1] // 4] //= 2
    return image


def write_video(
    path: Path,
    num_frames: int,
    size=(32, 48),
    codec="mpeg4",
    fps=25,
    times=None,
    b_frames=0,
    container_options=None,
    matrix=None,
) -> Path:
    """Write a video of `shaded_image`s; `times` in seconds make its rate variable."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if b_frames:
            stream.codec_context.max_b_frames = b_frames
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(shaded_image(index, size), format="rgb24")
            seconds = index / fps if times is None else times[index]
            frame.pts, frame.time_base = round(1000 * seconds), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded(path: Path) -> list[np.ndarray]:
    """All frames of a video."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
