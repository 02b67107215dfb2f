"""Which frames of a video its clips are made of, as V-JEPA 2 chooses them for action recognition."""

import numpy as np
from jaxtyping import Int64


def segment_positions(
    total: int, num_frames: int, stride: int, num_segments: int, rng: np.random.Generator | None = None
) -> Int64[np.ndarray, "S T"]:
    """Positions of the frames of several clips, spread evenly over a video.

    With P = total // num_segments frames for each segment and L = num_frames * stride:

    * P > L: segment i is a window of L frames within frames i P to (i + 1) P, from which `num_frames` frames are taken
      at equal distances, both ends included, so that the distance is L / (num_frames - 1) rather than `stride`. The
      window is at a random place, or in the middle if `rng` is None.
    * Otherwise all segments have the same pattern: frames at equal distances from 0 to L - 1 (to the end of a shorter
      video), the last of them repeated; segment i starts i (total - L) // (num_segments - 1) later. Segments of a
      video of up to L frames are identical. Nothing is random.

    Args:
        total: Frames of the video.
        num_frames: Frames of a segment.
        stride: Nominal distance between them.
        num_segments: Segments.
        rng: Places the windows; None for windows in the middle.

    Raises:
        ValueError: If an argument is not positive.

    Source: facebookresearch/vjepa2 src/datasets/video_dataset.py, which draws random windows in evaluation, too.
    """
    if min(total, num_frames, stride, num_segments) < 1:
        raise ValueError(
            "a video's length, num_frames, stride and num_segments must be at least 1; "
            f"got {total}, {num_frames}, {stride} and {num_segments}"
        )
    length, part = num_frames * stride, total // num_segments
    if part > length:
        return _windows(part, length, num_frames, num_segments, rng)
    last = min(length, total) - 1
    steps = np.linspace(0, last, last // stride)
    pattern = np.concatenate([steps, np.full(num_frames - len(steps), last)])
    pattern = np.clip(pattern, 0, max(last - 1, 0)).astype(np.int64)
    shift = (total - length) // (num_segments - 1) if total > length else 0
    return pattern + shift * np.arange(num_segments)[:, None]


def _windows(
    part: int, length: int, num_frames: int, num_segments: int, rng: np.random.Generator | None
) -> Int64[np.ndarray, "S T"]:
    """One window of `length` frames in each of the parts."""
    spare = part - length
    starts = np.full(num_segments, spare // 2) if rng is None else rng.integers(spare, size=num_segments)
    starts = starts[:, None]
    positions = np.linspace(starts[:, 0], starts[:, 0] + length, num_frames, axis=1)
    inside = np.clip(positions, starts, starts + length - 1).astype(np.int64)
    return inside + part * np.arange(num_segments)[:, None]
