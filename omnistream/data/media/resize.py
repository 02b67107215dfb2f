"""Sizes of pictures, and resizing that both video readers and the data sets share."""

from typing import Literal

import numpy as np
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

Crop = Literal["none", "center", "random"]
"""What is kept of a resized picture: all of it, the central square, or a square at a random place."""


def resize_images(images: UInt8[Tensor, "*N 3 H W"], size: tuple[int, int]) -> UInt8[Tensor, "*N 3 h w"]:
    """Bicubic resize to (height, width), with a filter that covers every source pixel when shrinking."""
    if tuple(images.shape[-2:]) == size:
        return images
    flat = images.reshape(-1, *images.shape[-3:])
    resized = F.interpolate(flat, size=size, mode="bicubic", antialias=True)
    return resized.reshape(*images.shape[:-2], *size)


def short_side_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Height and width after scaling the shorter side to `short_side`, the other rounded; unchanged for None."""
    if short_side is None:
        return height, width
    scale = short_side / min(height, width)
    return max(short_side, round(height * scale)), max(short_side, round(width * scale))


def crop_square(images: UInt8[Tensor, "*N 3 H W"], crop: Crop, rng: np.random.Generator) -> UInt8[Tensor, "*N 3 h w"]:
    """The largest square at the centre or at a random place, the same for all images; or the images as they are."""
    if crop == "none":
        return images
    height, width = images.shape[-2:]
    side = min(height, width)
    spare = np.array([height - side, width - side])
    top, left = (int(x) for x in (spare // 2 if crop == "center" else rng.integers(spare + 1)))
    return images[..., top : top + side, left : left + side].contiguous()
