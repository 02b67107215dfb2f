"""Values that change over training, as functions of the step."""

import math


def warmup_then_cosine(
    step: int, start: float, peak: float, end: float, warmup: int, total: int, cosine: int | None = None
) -> float:
    """Linear from `start` to `peak` at index `warmup`, a half cosine with both ends included, then constant `end`.

    With `start == peak` and a short cosine this is a cosine warm-up to `end`.

    Args:
        step: Index, from 0.
        start: Value at index 0 (if there is a warm-up).
        peak: Value at index `warmup`.
        end: Value at the last index of the cosine and after it.
        warmup: Steps of the linear part.
        total: Length of the schedule.
        cosine: Steps of the cosine; None for all that remain.

    Source: facebookresearch/dinov3: dinov3/train/cosine_lr_scheduler.py (linear_warmup_cosine_decay).
    """
    if step < warmup:
        return start + (peak - start) * step / warmup
    length = total - warmup if cosine is None else cosine
    position = step - warmup
    if position >= length:
        return end
    return end + 0.5 * (peak - end) * (1 + math.cos(math.pi * position / max(length - 1, 1)))


def inclusive_warmup_cosine(
    step: int, base: float, final: float, total: int, warmup: int = 0, warmup_start: float = 0.0
) -> float:
    """Linear warm-up that reaches `base` at index `warmup - 1`, a half cosine from there, `final` from `total` on.

    Args:
        step: Index, from 0.
        base: Value where the cosine starts.
        final: Value at index `total` and after it.
        total: Length of the schedule.
        warmup: Steps of the linear part.
        warmup_start: Value at index 0 (if there is a warm-up).

    Source: facebookresearch/dinov3: dinov3/train/cosine_lr_scheduler.py (CosineScheduler).
    """
    if step >= total:
        return final
    if step < warmup:
        return warmup_start + (base - warmup_start) * step / max(warmup - 1, 1)
    return final + 0.5 * (base - final) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
