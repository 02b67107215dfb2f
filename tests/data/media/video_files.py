"""Synthetic videos whose frames carry their own number, in any container, codec and structure that PyAV can write."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

NUM_FRAMES = 48
RATE = 24
BLOCK = 16


def numbered_image(number: int, height: int = 64, width: int = 64) -> np.ndarray:
    """Six blocks of 16x16 at the top left that show the bits of the number in black and white, on grey."""
    image = np.full((height, width, 3), 128, np.uint8)
    for bit in range(6):
        row, column = divmod(bit, 3)
        image[BLOCK * row : BLOCK * (row + 1), BLOCK * column : BLOCK * (column + 1)] = 255 * (number >> bit & 1)
    return image


def read_numbers(frames: torch.Tensor) -> list[int]:
    """The numbers shown by upright images [T, 3, H, W]."""
    centres = [(BLOCK * (bit // 3) + 8, BLOCK * (bit % 3) + 8) for bit in range(6)]
    means = frames.float().mean(1)
    return [sum(int(m[y, x] > 128) << bit for bit, (y, x) in enumerate(centres)) for m in means]


@dataclass(frozen=True)
class Recipe:
    """How to make one video."""

    suffix: str
    """Suffix of the file, which selects the container."""
    codec: str
    """FFmpeg's encoder."""
    options: dict[str, str] = field(default_factory=dict, hash=False)
    pix_fmt: str = "yuv420p"
    width: int = 64
    height: int = 64
    stamps: tuple[int, ...] | None = None
    """Timestamp of each frame in ticks of 1/240 s; 10 apart by default."""
    matrix: tuple[int, ...] | None = None
    """Display matrix."""
    num_frames: int = NUM_FRAMES


def write_video(path: Path, recipe: Recipe) -> Path:
    """Encode the numbered images; skips the test where this build of FFmpeg lacks the encoder."""
    try:
        av.Codec(recipe.codec, "w")
    except (av.codec.codec.UnknownCodecError, ValueError):
        pytest.skip(f"this PyAV has no encoder {recipe.codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(recipe.codec, rate=Fraction(RATE), options=recipe.options)
        stream.width, stream.height, stream.pix_fmt = recipe.width, recipe.height, recipe.pix_fmt
        if recipe.codec.startswith(("libvpx", "libx265")):
            # Threads of libvpx can deadlock; those of libx265 change what it writes from run to run.
            stream.codec_context.thread_count = 1
        if recipe.stamps is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 240)
        if recipe.matrix is not None:
            stream.set_display_matrix(recipe.matrix)
        for number in range(recipe.num_frames):
            image = numbered_image(number, recipe.height, recipe.width)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if recipe.stamps is not None:
                frame.pts, frame.time_base = recipe.stamps[number], Fraction(1, 240)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def sequential(path: Path, positions: Sequence[int] | None = None) -> torch.Tensor:
    """The slow, obvious version of `read_frames`: decode everything with PyAV, without applying the orientation."""
    with av.open(str(path)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return frames if positions is None else frames[list(positions)]
