"""The time coordinate of a frame, in frames: ours, and the release's for comparison.

- `absolute` (default): the frame's index in its stream, so that streaming equals the full forward for every length.
- `official`: what the released code does. A whole clip of more than 16 frames is squeezed into the time of 16; a stream
  does not squeeze, so beyond 16 frames it differs from its own full forward. With a window W every frame from W on
  stands at time W, in streams and (so that the two agree) in clips: the order of the remembered frames is lost.

Source: Go2Heart/OmniStream: model/layers/rope3d.py and the wrapper around it.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from omnistream.backbone.rope import FRAMES_PER_UNIT

TimeMode = Literal["absolute", "official"]


def check_time_mode(mode: str) -> None:
    """Refuse an unknown mode.

    Raises:
        ValueError: See above.
    """
    if mode not in get_args(TimeMode):
        raise ValueError(f"time_mode must be one of {get_args(TimeMode)}, got {mode!r}")


def stream_times(frame_indices: Int[Tensor, "*rows T"], window: int | None, mode: TimeMode) -> Float[Tensor, "*rows T"]:
    """Time of frames that come one after the other, in frames, float64."""
    times = frame_indices.double()
    return times if mode == "absolute" or window is None else times.clamp(max=window)


def clip_times(num_frames: int, window: int | None, mode: TimeMode, device: torch.device) -> Float[Tensor, " T"]:
    """Time of the frames of a whole clip, in frames, float64."""
    times = stream_times(torch.arange(num_frames, device=device), window, mode)
    if mode == "official" and window is None and num_frames > FRAMES_PER_UNIT:
        times = times * (FRAMES_PER_UNIT / num_frames)
    return times
