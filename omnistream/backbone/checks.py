"""Checks of frames and aspect ratios."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def check_frames(frames: Tensor) -> None:
    """Check that the input is a batch of normalised frames.

    Raises:
        ValueError: If the shape is not [B, S, 3, H, W] with S >= 1, or the dtype is an integer type.
    """
    if frames.ndim != 5 or frames.shape[2] != 3:
        raise ValueError(f"frames must have the shape [B, S, 3, H, W], got {tuple(frames.shape)}")
    if frames.shape[1] < 1:
        raise ValueError("at least one frame is needed, got none")
    if not frames.is_floating_point():
        raise ValueError(f"frames must be normalised, got {frames.dtype}; use backbone.normalize(frames)")


def check_camera_token(camera_token: bool) -> None:
    """Check that an aspect ratio is given together with the camera token, to which it is added.

    Raises:
        ValueError: If there is no camera token.
    """
    if not camera_token:
        raise ValueError("aspect_ratio is added to the camera token: pass camera_token=True with it")


def check_aspect_ratio(
    ratio: Float[Tensor, "..."] | Sequence[float], num_streams: int | None = None, *, wait: bool = True
) -> None:
    """Check that there is one aspect ratio per stream. During graph capture only their number is checked.

    Args:
        ratio: Height over width.
        num_streams: B; None while it is not known.
        wait: Also read values on an accelerator, which synchronises with it.

    Raises:
        ValueError: If there is not one value per stream, or one is not finite or not above 0.
    """
    shape = tuple(ratio.shape) if isinstance(ratio, Tensor) else (len(ratio),)
    if len(shape) != 1 or num_streams not in (None, shape[0]):
        number = "" if num_streams is None else f" ({num_streams})"
        raise ValueError(f"aspect_ratio must have one value per stream{number}, got shape {shape}")
    if isinstance(ratio, Tensor):
        if torch.compiler.is_compiling() or not (wait or ratio.device.type == "cpu"):
            return
        ratio = ratio.tolist()
    if bad := [value for value in ratio if not 0 < value < math.inf]:
        raise ValueError(f"aspect_ratio, height over width, must be finite and above 0, got {bad}")
