"""Values that change over training, as functions of the step.

Source: facebookresearch/dinov3: dinov3/train/cosine_lr_scheduler.py.
"""

import math


def linear(step: int, first: float, final: float, length: int) -> float:
    """Linear from `first` at index 0 to `final` at index `length`, then constant; a length of 0 is always `final`."""
    return first + (final - first) * step / length if step < length else final


def cosine(step: int, first: float, final: float, length: int) -> float:
    """Half a cosine from `first` at index 0 to `final` at index `length`, then constant."""
    return final + 0.5 * (first - final) * (1 + math.cos(math.pi * step / length)) if step < length else final
