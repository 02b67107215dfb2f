"""Overlapping windows over images that are larger than the crops a head was trained on."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor


class Window(NamedTuple):
    """A square window."""

    top: int
    left: int
    size: int

    def of(self, images: Tensor) -> Tensor:
        """What the window shows of images [..., H, W]; a view."""
        return images[..., self.top : self.top + self.size, self.left : self.left + self.size]


def window_starts(length: int, size: int, stride: int) -> list[int]:
    """First pixels of the windows along one side: every `stride`, and the last one ends with the image.

    Args:
        length: Pixels of the side.
        size: Pixels of a window.
        stride: Pixels from one window to the next, at most `size`.

    Raises:
        ValueError: If the side is shorter than a window, or the windows would leave gaps.

    Source: `slide_inference` in dinov3/eval/segmentation/inference.py and in mmsegmentation.
    """
    if not 1 <= stride <= size:
        raise ValueError(f"the stride of sliding windows must be from 1 to their size {size}, got {stride}")
    if length < size:
        raise ValueError(
            f"an image side of {length} pixels is shorter than the sliding window of {size}: resize the shorter side "
            f"to at least {size}, or set a smaller window"
        )
    count = max(length - size + stride - 1, 0) // stride + 1
    return [min(stride * i, length - size) for i in range(count)]


def sliding_windows(height: int, width: int, size: int, stride: int) -> list[Window]:
    """The windows of an image, row by row; see `window_starts`."""
    columns = window_starts(width, size, stride)
    return [Window(top, left, size) for top in window_starts(height, size, stride) for left in columns]


def cut_windows(images: Shaped[Tensor, "B *C H W"], size: int, stride: int) -> Shaped[Tensor, "B N *C size size"]:
    """All windows of every image."""
    height, width = images.shape[-2:]
    return torch.stack([one.of(images) for one in sliding_windows(height, width, size, stride)], dim=1)


def average_windows(
    logits: Callable[[int], Float[Tensor, "B C h w"]], height: int, width: int, size: int, stride: int
) -> Float[Tensor, "B C H W"]:
    """Mean over the windows at every pixel of an image; each is upsampled bilinearly to the pixels of its window.

    Args:
        logits: The logits of the n-th of `sliding_windows`, at any resolution; called once for each.
        height: H of the image.
        width: W of the image.
        size: Pixels of a window.
        stride: Pixels from one window to the next.
    """
    total, count = torch.zeros(()), torch.zeros(height, width)
    for index, window in enumerate(sliding_windows(height, width, size, stride)):
        own = F.interpolate(logits(index).float(), (size, size), mode="bilinear", align_corners=False)
        if index == 0:
            total, count = own.new_zeros(*own.shape[:2], height, width), count.to(own.device)
        window.of(total).add_(own)
        window.of(count).add_(1)
    return total / count
