"""Images of where a probe looks."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

_MOST = 8
"""Frames that are shown."""
_DARKEST = 0.15
"""Brightness where there is no attention."""


def draw_attention(
    images: UInt8[Tensor, "F 3 H W"], attention: Float[Tensor, " N"], grid: tuple[int, int]
) -> dict[str, UInt8[Tensor, "3 h w"]]:
    """Some frames of a clip in a row, as they are and lit by attention: the brightest place of all has most of it.

    Args:
        images: All frames.
        attention: Of all tokens, in the order time, row, column; a time step may stand for several frames.
        grid: Rows and columns of tokens of a frame.
    """
    maps = rearrange(attention, "(T h w) -> T 1 h w", h=grid[0], w=grid[1])
    steps = torch.linspace(0, len(maps) - 1, min(_MOST, len(maps))).round().long()
    frames = images[steps.to(images.device) * (len(images) // len(maps))].float()
    light = F.interpolate((maps / maps.max())[steps.to(maps.device)], size=images.shape[-2:], mode="bilinear")
    lit = frames * (_DARKEST + (1 - _DARKEST) * light)
    return {
        "frames": rearrange(frames, "F C H W -> C H (F W)").to(torch.uint8),
        "attention of the query": rearrange(lit, "F C H W -> C H (F W)").to(torch.uint8),
    }
