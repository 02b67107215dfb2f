"""Depth of whole videos: one alignment per sequence and the errors after it, as CUT3R reports them (paper Table 3).

Everything is computed in float64 over the valid pixels of a sequence. A prediction with a value that is not finite is a
failure of the model: its errors are NaN and so is every mean that they enter.

Source: CUT3R/CUT3R eval/video_depth/tools.py, whose loops over frames of NumPy and PyTorch code this replaces.
"""

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

VideoAlignment = Literal["metric", "scale", "scale_shift", "scale_shift_l2", "scale_shift_l1", "median"]
"""How a sequence is brought to the scale of the truth; see `video_alignment`."""

MIN_SCALE = 1e-3
"""Smallest scale of the alignment `scale`."""
MIN_LOG_DEPTH = 1e-5
"""Predictions are not smaller than this in logarithms and ratios."""
_IRLS_STEPS = 10
_ADAM_STEPS, _ADAM_RATE, _ADAM_TOLERANCE = 1000, 1e-4, 1e-6


class DepthErrors(NamedTuple):
    """Errors of one sequence, float64 scalars. Lower is better, but for the deltas."""

    abs_rel: Tensor
    """Mean of |p - t| / t."""
    sq_rel: Tensor
    """Mean of (p - t)^2 / t, in the unit of depth."""
    rmse: Tensor
    """Root mean square error, in the unit of depth."""
    log_rmse: Tensor
    """Root mean square error of natural logarithms."""
    delta1: Tensor
    """Share of pixels with max(p / t, t / p) < 1.25."""
    delta2: Tensor
    """The same below 1.25^2."""
    delta3: Tensor
    """The same below 1.25^3."""


class SequenceDepth(NamedTuple):
    """What `sequence_depth_errors` found."""

    errors: DepthErrors
    scale: Tensor
    """Of the alignment."""
    shift: Tensor
    """Of the alignment, in the unit of the truth."""
    num_valid: int
    """Pixels that were compared."""


def resize_depth(preds: Float[Tensor, "T h w"], size: tuple[int, int]) -> Float64[Tensor, "T H W"]:
    """Depth maps at the size of the truth, by cubic interpolation without antialiasing (OpenCV's INTER_CUBIC).

    Args:
        preds: Depth maps.
        size: Height and width of the truth.
    """
    maps = preds.double()
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps[:, None], size, mode="bicubic", align_corners=False)[:, 0]


def video_alignment(
    preds: Float64[Tensor, " N"], target: Float64[Tensor, " N"], alignment: VideoAlignment
) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """Scale and shift that bring all valid pixels of a sequence to the truth: `scale * preds + shift`.

    Args:
        preds: Predicted depth.
        target: True depth.
        alignment: `metric` changes nothing. `scale` is the factor with the smallest sum of absolute errors, by ten
            steps of iteratively reweighted least squares from the ratio of the means: near the optimum, and the rule of
            the published tables. `scale_shift` is the release's: at most 1,000 steps of Adam from the ratio of the
            medians, which move either number by about 0.1 at most. `scale_shift_l1` is the optimum of that sum, and
            `scale_shift_l2` the least-squares fit. `median` is the ratio of the medians, the lower ones of an even
            number of pixels.

    Raises:
        ValueError: If there is no such alignment.
    """
    zero = target.new_zeros(())
    if alignment == "metric":
        return zero + 1, zero
    if alignment == "scale":
        return _irls_scale(preds, target), zero
    if alignment == "median":
        return target.median() / preds.median(), zero
    if alignment == "scale_shift":
        return _adam_scale_shift(preds, target)
    if alignment == "scale_shift_l2":
        return _weighted_fit(preds, target, torch.ones_like(preds))
    if alignment == "scale_shift_l1":
        return _l1_scale_shift(preds, target)
    raise ValueError(f"alignment must be one of {', '.join(get_args(VideoAlignment))}, got {alignment!r}")


def _irls_scale(preds: Tensor, target: Tensor) -> Tensor:
    scale = target.mean() / preds.mean()
    for _ in range(_IRLS_STEPS):
        weight = 1 / ((scale * preds - target).abs() + 1e-8)
        scale = (weight * preds * target).sum() / (weight * preds.square()).sum()
    return scale.clamp_min(MIN_SCALE)


def _adam_scale_shift(preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """In float32, as the release; more precision changes the fifth digit."""
    p, t = preds.float(), target.float()
    with torch.enable_grad():
        scale = (t.median() / p.median()).detach().requires_grad_()
        shift = torch.zeros_like(scale, requires_grad=True)
        optimizer, before = torch.optim.Adam([scale, shift], lr=_ADAM_RATE), float("inf")
        for _ in range(_ADAM_STEPS):
            optimizer.zero_grad()
            loss = (scale * p + shift - t).abs().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if abs(before - (now := loss.item())) < _ADAM_TOLERANCE:
                break
            before = now
    return scale.detach().double(), shift.detach().double()


def _weighted_fit(preds: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted least squares in scale and shift; a constant prediction gets scale 0."""
    total = weight.sum()
    p_mean, t_mean = (weight * preds).sum() / total, (weight * target).sum() / total
    spread = (weight * (preds - p_mean).square()).sum()
    scale = (weight * (preds - p_mean) * (target - t_mean)).sum() / spread
    scale = torch.where(spread > 0, scale, torch.zeros_like(scale))
    return scale, t_mean - scale * p_mean


def _l1_scale_shift(preds: Tensor, target: Tensor, steps: int = 100) -> tuple[Tensor, Tensor]:
    """Iteratively reweighted least squares with a floor under the errors that sinks from step to step."""
    scale, shift = _weighted_fit(preds, target, torch.ones_like(preds))
    floor = (scale * preds + shift - target).abs().mean()
    for _ in range(steps):
        floor = (floor * 0.8).clamp_min(1e-10)
        weight = 1 / (scale * preds + shift - target).abs().clamp_min(floor)
        scale, shift = _weighted_fit(preds, target, weight)
    return scale, shift


def sequence_depth_errors(
    preds: Float[Tensor, "T h w"],
    target: Float[Tensor, "T H W"],
    alignment: VideoAlignment = "scale",
    max_depth: float | None = None,
    clip_to: float | None = None,
) -> SequenceDepth:
    """Errors of the depth of one sequence, after one alignment over all its frames.

    Args:
        preds: Depth along the optical axis, at any size.
        target: True depth; pixels that are not positive, not finite, or not below `max_depth` are not compared.
        alignment: See `video_alignment`.
        max_depth: 70 for Sintel and BONN, None for KITTI.
        clip_to: Largest aligned depth; 70 for Sintel, None for the others.

    Returns:
        Errors of 0 and no valid pixels if nothing can be compared; NaN if a compared prediction is not finite.

    Raises:
        ValueError: If the numbers of frames differ.
    """
    if len(preds) != len(target):
        raise ValueError(f"there are {len(preds)} predicted depth maps for {len(target)} frames")
    truth = target.double()
    valid = (truth > 0) & truth.isfinite() & (truth < (torch.inf if max_depth is None else max_depth))
    p, t = resize_depth(preds, (target.shape[-2], target.shape[-1]))[valid], truth[valid]
    zero = t.new_zeros(())
    if not len(t):
        return SequenceDepth(DepthErrors(*[zero] * 7), zero + 1, zero, 0)
    if not p.isfinite().all():
        nan = zero + torch.nan
        return SequenceDepth(DepthErrors(*[nan] * 7), nan, nan, len(t))
    scale, shift = video_alignment(p, t, alignment)
    aligned = scale * p + shift
    return SequenceDepth(_errors(aligned if clip_to is None else aligned.clamp_max(clip_to), t), scale, shift, len(t))


def _errors(p: Tensor, t: Tensor) -> DepthErrors:
    error = p - t
    positive = p.clamp_min(MIN_LOG_DEPTH)
    ratio = torch.maximum(positive / t, t / positive)
    return DepthErrors(
        abs_rel=(error.abs() / t).mean(),
        sq_rel=(error.square() / t).mean(),
        rmse=error.square().mean().sqrt(),
        log_rmse=(positive.log() - t.log()).square().mean().sqrt(),
        delta1=(ratio < 1.25).double().mean(),
        delta2=(ratio < 1.25**2).double().mean(),
        delta3=(ratio < 1.25**3).double().mean(),
    )
