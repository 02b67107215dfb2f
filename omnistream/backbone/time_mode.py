"""The time coordinate of a frame, in frames: this library's, and the release's for comparison.

- `absolute` (default): the frame's index in its stream, so that streaming equals the full forward for every length.
- `official`: what the released code does. The times of a whole clip of more than 16 frames are scaled down to those
  of 16; those of a stream are not, so beyond 16 frames a stream differs from its own full forward. With a window W,
  every frame from W on has time W, in streams and (so that the two agree) in clips: the order of the remembered frames
  is lost.

Source: Go2Heart/OmniStream: model/layers/rope3d.py and the wrapper around it.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from omnistream.backbone.rope import FRAMES_PER_UNIT

TimeMode = Literal["absolute", "official"]


def check_time_mode(mode: str) -> None:
    """Check a time mode.

    Raises:
        ValueError: If the mode is unknown.
    """
    if mode not in get_args(TimeMode):
        raise ValueError(f"time_mode must be one of {get_args(TimeMode)}, got {mode!r}")


def stream_times(frame_indices: Int[Tensor, "*rows T"], window: int | None, mode: TimeMode) -> Float[Tensor, "*rows T"]:
    """Times of consecutive frames of a stream, in frames, float64."""
    times = frame_indices.double()
    return times if mode == "absolute" or window is None else times.clamp(max=window)


def clip_times(num_frames: int, window: int | None, mode: TimeMode, device: torch.device) -> Float[Tensor, " T"]:
    """Time of the frames of a whole clip, in frames, float64."""
    times = stream_times(torch.arange(num_frames, device=device), window, mode)
    if mode == "official" and window is None and num_frames > FRAMES_PER_UNIT:
        times = times * (FRAMES_PER_UNIT / num_frames)
    return times
