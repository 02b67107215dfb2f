"""What sessions check of what they are given: frames, and the streams that start anew."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def check_frames(frames: Tensor) -> None:
    """Refuse what is no batch of normalised frames.

    Raises:
        ValueError: If the shape is not [B, S, 3, H, W] with S >= 1, or the numbers are integers as a camera gives them.
    """
    if frames.ndim != 5 or frames.shape[2] != 3:
        raise ValueError(f"frames must have the shape [B, S, 3, H, W], got {tuple(frames.shape)}")
    if frames.shape[1] < 1:
        raise ValueError("a step needs at least one frame, got none")
    if not frames.is_floating_point():
        raise ValueError(f"frames must be normalised, got {frames.dtype}; use backbone.normalize(frames)")


def chosen_rows(
    rows: Iterable[int] | Int[Tensor, " R"] | Bool[Tensor, " B"] | None, num_streams: int
) -> Int[Tensor, " R"]:
    """Numbers of the streams that start anew, int64 on the CPU.

    Args:
        rows: Numbers of streams, a mask that is True for them, or None for all.
        num_streams: B.

    Raises:
        ValueError: If there is no such stream, or the mask is not one value per stream.
    """
    if rows is None:
        return torch.arange(num_streams)
    chosen = torch.as_tensor(rows if isinstance(rows, Tensor) else list(rows)).cpu()
    if chosen.dtype == torch.bool:
        if chosen.shape != (num_streams,):
            raise ValueError(f"a mask of rows must have one value per stream ({num_streams}), got {chosen.tolist()}")
        return chosen.nonzero()[:, 0]
    if bad := [row for row in chosen.tolist() if row not in range(num_streams)]:
        raise ValueError(f"cannot reset rows {bad}; the session has streams 0 to {num_streams - 1}")
    return chosen.long()
