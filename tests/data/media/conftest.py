"""Synthetic videos whose frames carry their own number."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

NUM_FRAMES = 48


def numbered_picture(number: int, height: int = 64, width: int = 64) -> np.ndarray:
    """Six blocks of 16x16 that show the bits of the number in black and white, on grey."""
    picture = np.full((height, width, 3), 128, np.uint8)
    for bit in range(6):
        row, column = divmod(bit, 3)
        picture[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 255 * (number >> bit & 1)
    return picture


@pytest.fixture(scope="session")
def read_numbers() -> Callable[[torch.Tensor], list[int]]:
    """Gives the numbers shown by upright pictures [T, 3, H, W]."""
    centres = [(16 * (bit // 3) + 8, 16 * (bit % 3) + 8) for bit in range(6)]

    def read(frames: torch.Tensor) -> list[int]:
        means = frames.float().mean(1)
        return [sum(int(m[y, x] > 128) << bit for bit, (y, x) in enumerate(centres)) for m in means]

    return read


def write_video(
    path: Path,
    codec: str,
    options: dict[str, str],
    *,
    num_frames: int = NUM_FRAMES,
    width: int = 64,
    height: int = 64,
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
) -> Path:
    """Encode the numbered pictures; skips the test where this build of FFmpeg lacks the encoder."""
    try:
        av.Codec(codec, "w")
    except (av.codec.codec.UnknownCodecError, ValueError):
        pytest.skip(f"this PyAV has no encoder {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(24), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number, height, width), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


X264_OPEN = "open-gop=1:bframes=3:keyint=12:min-keyint=12:scenecut=0:b-adapt=0"


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes, once, the synthetic video of this name."""
    folder = tmp_path_factory.mktemp("videos")
    recipes: dict[str, tuple[str, str, dict[str, str], dict[str, object]]] = {
        "closed": ("closed.mp4", "libx264", {"g": "5", "crf": "10"}, {}),
        "open_gop": ("open.mp4", "libx264", {"x264-params": X264_OPEN, "crf": "10"}, {}),
        "x265": ("x265.mp4", "libx265", {"x265-params": "keyint=12:log-level=none", "crf": "10"}, {}),
        "vp9": ("vp9.webm", "libvpx-vp9", {"g": "6", "crf": "10", "b": "0"}, {"width": 128}),
        "av1": ("av1.mkv", "libsvtav1", {"crf": "20"}, {}),
        "mpeg4_avi": ("mpeg4.avi", "mpeg4", {"g": "8", "qscale": "2"}, {}),
        "narrow": ("narrow.mp4", "libx264", {"g": "5", "crf": "10"}, {"width": 48}),
        "deep": ("deep.mp4", "libx264", {"g": "5", "crf": "10"}, {"pix_fmt": "yuv420p10le"}),
        "turned": ("turned.mp4", "libx264", {"g": "5", "crf": "10"}, {"width": 128, "rotation": 90}),
    }

    def make(name: str) -> Path:
        if name == "edit_list":
            return _trimmed(make("closed"), folder / "trimmed.mp4")
        file, codec, options, more = recipes[name]
        path = folder / file
        return path if path.exists() else write_video(path, codec, options, **more)

    return make


def _trimmed(source: Path, path: Path) -> Path:
    """The same packets with stamps 3 frames earlier: mp4 hides what lies before 0 by an edit list."""
    if path.exists():
        return path
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.size:
                shift = round(3 / 24 / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copy
                new.mux(packet)
    return path
