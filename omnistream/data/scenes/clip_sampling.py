"""Which frames of a sequence make a clip."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class ClipSampling:
    """How training clips are drawn; the rule of CUT3R/CUT3R: src/dust3r/datasets/base/base_multiview_dataset.py."""

    num_frames: int = 16
    """Frames of a clip."""
    max_interval: int = 4
    """Longest step between neighbouring frames; less where the rest of the sequence is short."""
    video_prob: float = 1.0
    """Probability of a clip in order. A causal model wants video where there is one, so this is 1 (CUT3R: 0.5)."""
    fix_interval_prob: float = 0.5
    """Probability that all steps of an ordered clip are equal."""
    block_shuffle: int | None = None
    """Unordered clips are shuffled within blocks of so many frames; None shuffles the whole clip."""

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.max_interval < 1 or (self.block_shuffle is not None and self.block_shuffle < 1):
            raise ValueError(f"expected num_frames, max_interval and block_shuffle from 1, got {self}")
        if not (0 <= self.video_prob <= 1 and 0 <= self.fix_interval_prob <= 1):
            raise ValueError(f"expected probabilities in [0, 1], got {self}")


def sample_positions(
    total: int, start: int, sampling: ClipSampling, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " T"], bool]:
    """Positions of a clip that begins at `start`, all different, and whether they are in order.

    Steps are drawn from 1 to the smaller of `max_interval` and twice the mean step that would just fit; positions past
    the end are replaced by unused ones after the start. If exactly `num_frames` are left, they are the clip.

    Args:
        total: Frames of the sequence.
        start: First frame that may be used; the first of the clip if it is ordered.
        sampling: The rule.
        rng: Source of all choices.

    Raises:
        ValueError: If fewer than `num_frames` frames follow.
    """
    steps = sampling.num_frames - 1
    remaining = total - 1 - start
    if start < 0 or remaining < steps:
        raise ValueError(f"expected {steps + 1} frames from position {start}, the sequence has {total}")
    if steps == 0 or remaining == steps:
        return np.arange(start, start + steps + 1), True
    cap = min(sampling.max_interval, 2 * remaining // steps)
    is_video = bool(rng.random() < sampling.video_prob)
    if is_video and rng.random() < sampling.fix_interval_prob:
        intervals = np.full(steps, rng.integers(1, min(cap, remaining // steps) + 1))
    else:
        intervals = rng.integers(1, cap + 1, steps)
    positions = _inside(start + np.concatenate([[0], np.cumsum(intervals)]), start, total, rng)
    if is_video:
        return np.sort(positions), True
    return _shuffled(positions, sampling.block_shuffle, rng), False


def _inside(positions: np.ndarray, start: int, total: int, rng: np.random.Generator) -> np.ndarray:
    kept = positions[positions < total]
    unused = np.setdiff1d(np.arange(start, total), kept)
    return np.concatenate([kept, rng.choice(unused, len(positions) - len(kept), replace=False)])


def _shuffled(positions: np.ndarray, block: int | None, rng: np.random.Generator) -> np.ndarray:
    size = block or len(positions)
    return np.concatenate([rng.permutation(positions[i : i + size]) for i in range(0, len(positions), size)])
