"""Resizing of images, shared by the video readers, scenes and streams."""

import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor


def resize_images(images: UInt8[Tensor, "*N 3 H W"], size: tuple[int, int]) -> UInt8[Tensor, "*N 3 h w"]:
    """Bicubic resize to (height, width), with antialiasing."""
    if tuple(images.shape[-2:]) == size:
        return images
    flat = images.reshape(-1, *images.shape[-3:])
    resized = F.interpolate(flat, size=size, mode="bicubic", antialias=True)
    return resized.reshape(*images.shape[:-2], *size)


def short_side_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Height and width after scaling the shorter side to `short_side`; unchanged for None."""
    if short_side is None:
        return height, width
    scale = short_side / min(height, width)
    return max(short_side, round(height * scale)), max(short_side, round(width * scale))
