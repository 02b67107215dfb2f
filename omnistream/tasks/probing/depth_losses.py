"""Losses of depth over the pixels whose depth is known.

Source: facebookresearch/dinov3 dinov3/eval/depth/loss.py; the scale-invariant loss is that of AdaBins and BinsFormer.
"""

from jaxtyping import Bool, Float
from torch import Tensor

_EPS = 0.001
"""Metres, added to both depths before the logarithm."""
_STRIDES = (1, 2, 4, 6)


def sig_loss(
    preds: Float[Tensor, "*S"], target: Float[Tensor, "*S"], valid: Bool[Tensor, "*S"], warmup: bool = False
) -> Float[Tensor, ""]:
    """Scale-invariant loss sqrt(Var(g) + 0.15 Mean(g)^2) with g = ln p - ln t over all valid pixels of the batch.

    Args:
        preds: Depth.
        target: True depth.
        valid: Pixels that count; 0 is returned if there are fewer than two.
        warmup: Leave out the variance, which is the unbiased one.
    """
    log_ratio = (preds[valid] + _EPS).log() - (target[valid] + _EPS).log()
    if log_ratio.numel() < 2:
        return preds.sum() * 0
    inside = 0.15 * log_ratio.mean().square()
    if not warmup:
        inside = inside + log_ratio.var()
    return inside.sqrt() if inside > 0 else inside.abs()


def l1_loss(preds: Float[Tensor, "*S"], target: Float[Tensor, "*S"], valid: Bool[Tensor, "*S"]) -> Float[Tensor, ""]:
    """Mean of |p - t| over the valid pixels, in metres; 0 if there are none."""
    return ((preds - target).abs() * valid).sum() / (valid.sum() + 1e-7)


def gradient_loss(
    preds: Float[Tensor, "B H W"], target: Float[Tensor, "B H W"], valid: Bool[Tensor, "B H W"], log: bool = True
) -> Float[Tensor, ""]:
    """|e(y) - e(y + 2)| and the same in x, over four strided copies, for the error e of depth or of its logarithm.

    The sum over pairs of valid pixels is divided by the number of valid pixels of a copy; a copy without any adds 0.

    Args:
        preds: Depth.
        target: True depth.
        valid: Pixels that count.
        log: e = ln p - ln t, otherwise p - t.
    """
    error = (preds + _EPS).log() - (target + _EPS).log() if log else preds - target
    error, total = error * valid, preds.sum() * 0
    for stride in _STRIDES:
        e, known = error[:, ::stride, ::stride], valid[:, ::stride, ::stride]
        down = (e[:, :-2] - e[:, 2:]).abs() * (known[:, :-2] & known[:, 2:])
        across = (e[:, :, :-2] - e[:, :, 2:]).abs() * (known[:, :, :-2] & known[:, :, 2:])
        total = total + (down.sum() + across.sum()) / known.sum().clamp_min(1)
    return total


def depth_loss(
    name: str, preds: Float[Tensor, "B H W"], target: Float[Tensor, "B H W"], warmup: bool = False
) -> Float[Tensor, ""]:
    """One of the losses by name: sig, gradient_log, gradient or l1; pixels of depth 0 are not valid.

    Raises:
        ValueError: If there is no such loss.
    """
    valid = target > 0
    if name == "sig":
        return sig_loss(preds, target, valid, warmup)
    if name in ("gradient_log", "gradient"):
        return gradient_loss(preds, target, valid, log=name == "gradient_log")
    if name == "l1":
        return l1_loss(preds, target, valid)
    raise ValueError(f"losses are sig, gradient_log, gradient and l1; got {name!r}")
