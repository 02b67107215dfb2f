"""Writing the predicted depth of a stream as 16-bit PNG files or float32 arrays."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt16
from PIL import Image
from torch import Tensor

from omnistream.streaming.arrays import CHUNK_BYTES, ArrayFiles
from omnistream.streaming.writer import Step

DepthFormat = Literal["png", "npz"]

UNIT = "scene units"
"""Unit of depth and camera positions: training rescales every scene, so it is not the metre."""
LARGEST = 2**16 - 1
"""Largest value in a PNG."""
HEADROOM = 4
"""A PNG can hold this many times the largest depth of the first frame, unless a scale is given."""


class DepthImages:
    """Writes 16-bit greyscale files `depth/NNNNNNNN.png`, where N is the index of the frame.

    Values are `round(scale * depth)`, and 0 where there is no depth. All files have the same scale. By default it is a
    round number for which four times the largest depth of the first frame with any depth fits. Larger depths are stored
    as 65535 and counted.

    Args:
        folder: Output folder, in which the folder `depth` is created.
        scale: Value per unit of depth, such as 5000 in the files of TUM RGB-D; None for the default.
    """

    def __init__(self, folder: Path, scale: float | None = None) -> None:
        self.path, self.scale = folder / "depth", scale
        self.num_frames = self.num_clipped = 0

    def write(self, step: Step) -> None:
        """Write a file per frame."""
        self.path.mkdir(exist_ok=True)
        for frame, depth in zip(step.frames, step.output.heads["geometry"].depth[0].float().cpu(), strict=True):
            Image.fromarray(self._encode(depth)).save(self.path / f"{frame.index:08d}.png")
            self.num_frames += 1

    def _encode(self, depth: Float[Tensor, "H W"]) -> UInt16[np.ndarray, "H W"]:
        usable = depth.isfinite() & (depth > 0)
        if not usable.any():
            return np.zeros(depth.shape, np.uint16)
        if self.scale is None:
            self.scale = _round_down(LARGEST / (HEADROOM * float(depth[usable].max())))
        numbers = torch.where(usable, depth.double() * self.scale, 0).round()
        self.num_clipped += int((numbers > LARGEST).sum())
        return numbers.clamp(max=LARGEST).numpy().astype(np.uint16)

    def close(self) -> None:
        """All files are complete already."""

    def summary(self) -> dict[str, object]:
        """The scale, and the number of pixels whose depth was too large."""
        if not self.num_frames:
            return {}
        meaning = f"depth = value / scale, in {UNIT}; 0: no depth; {LARGEST}: this depth or more"
        facts = {"frames": self.num_frames, "scale": self.scale, "meaning": meaning, "clipped_pixels": self.num_clipped}
        return {"depth": facts}


def _round_down(number: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not larger than the number."""
    power = 10.0 ** math.floor(math.log10(number))
    return next(power * digit for digit in (5, 2, 1) if power * digit <= number * (1 + 1e-12))


class DepthArrays(ArrayFiles):
    """Writes `depth.npz`: `depth` and `confidence` [S, H, W] in float32, as predicted by the heads.

    Args:
        folder: Output folder.
        chunk_bytes: Size of a chunk.
    """

    def __init__(self, folder: Path, chunk_bytes: int = CHUNK_BYTES) -> None:
        super().__init__(folder / "depth.npz", chunk_bytes)

    def _arrays(self, step: Step) -> dict[str, Tensor]:
        geometry = step.output.heads["geometry"]
        maps = {"depth": geometry.depth, "confidence": geometry.depth_confidence}
        return {name: value[0].to("cpu", torch.float32, copy=True) for name, value in maps.items()}

    def _facts(self) -> dict[str, object]:
        return {"arrays": ["depth", "confidence"], "dtype": "float32", "unit": UNIT}
