"""Depth metrics: Abs Rel, RMSE and threshold accuracy, with an optional alignment of every clip to the truth."""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric

Alignment = Literal["none", "median", "scale", "scale_shift"]
Average = Literal["pixel", "clip"]


def align_depth(
    preds: Float[Tensor, " B *S"], target: Float[Tensor, " B *S"], valid: Bool[Tensor, " B *S"], alignment: Alignment
) -> Float[Tensor, " B *S"]:
    """Predictions aligned to the truth, each row (a frame or a clip) on its own.

    Args:
        preds: Depth.
        target: True depth.
        valid: Pixels that determine the alignment.
        alignment: `median` multiplies by the ratio of the medians (the lower one of an even number of pixels), `scale`
            by the least-squares factor, `scale_shift` also adds the least-squares offset, `none` changes nothing.

    Raises:
        ValueError: If there is no such alignment.
    """
    if alignment == "none":
        return preds
    p, t, m = preds.flatten(1), target.flatten(1), valid.flatten(1)
    shift = torch.zeros_like(p[:, :1])
    if alignment == "median":
        middle = [x.masked_fill(~m, torch.nan).nanmedian(1, keepdim=True).values for x in (p, t)]
        scale = middle[1] / middle[0]
    elif alignment == "scale":
        p0, t0 = p.masked_fill(~m, 0), t.masked_fill(~m, 0)
        scale = (p0 * t0).sum(1, keepdim=True) / p0.square().sum(1, keepdim=True)
    elif alignment == "scale_shift":
        count = m.sum(1, keepdim=True)
        p_mean, t_mean = (x.masked_fill(~m, 0).sum(1, keepdim=True) / count for x in (p, t))
        p0, t0 = (p - p_mean).masked_fill(~m, 0), (t - t_mean).masked_fill(~m, 0)
        scale = (p0 * t0).sum(1, keepdim=True) / p0.square().sum(1, keepdim=True)
        shift = t_mean - scale * p_mean
    else:
        raise ValueError(f"alignment must be none, median, scale or scale_shift, got {alignment!r}")
    return (p * scale + shift).reshape(preds.shape)


def relative_depth_error(preds: Float[Tensor, "*S"], target: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """|p - t| / t of every pixel; meaningless where the truth is not positive."""
    return (preds - target).abs() / target


def _squared_error(preds: Tensor, target: Tensor) -> Tensor:
    return (preds - target).square()


def _within_ratio(preds: Tensor, target: Tensor, threshold: float) -> Tensor:
    """1 where max(p / t, t / p) < threshold; a prediction of 0 or below never counts."""
    within = (preds < threshold * target) & (target < threshold * preds)
    return torch.where(torch.isnan(preds), preds, within.to(preds.dtype))


def _row_sums(error: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the error over the valid pixels of every row, and their number; float64, for millions of pixels."""
    error = error.masked_fill(~valid, 0).double()
    return error.flatten(1).sum(1), valid.flatten(1).sum(1)


def _mean(error: Tensor, valid: Tensor) -> Tensor:
    total, count = _row_sums(error, valid)
    return total.sum() / count.sum()


def abs_rel(
    preds: Float[Tensor, " B *S"],
    target: Float[Tensor, " B *S"],
    valid: Bool[Tensor, " B *S"],
    alignment: Alignment = "none",
) -> Float[Tensor, ""]:
    """Mean of |p - t| / t over all valid pixels; NaN if there are none. Lower is better."""
    return _mean(relative_depth_error(align_depth(preds, target, valid, alignment), target), valid)


def depth_rmse(
    preds: Float[Tensor, " B *S"],
    target: Float[Tensor, " B *S"],
    valid: Bool[Tensor, " B *S"],
    alignment: Alignment = "none",
) -> Float[Tensor, ""]:
    """Root of the mean squared error over all valid pixels, in the unit of depth. Lower is better."""
    return _mean(_squared_error(align_depth(preds, target, valid, alignment), target), valid).sqrt()


def delta_accuracy(
    preds: Float[Tensor, " B *S"],
    target: Float[Tensor, " B *S"],
    valid: Bool[Tensor, " B *S"],
    alignment: Alignment = "none",
    threshold: float = 1.25,
) -> Float[Tensor, ""]:
    """Share of the valid pixels with max(p / t, t / p) < threshold, in [0, 1]. Higher is better."""
    return _mean(_within_ratio(align_depth(preds, target, valid, alignment), target, threshold), valid)


def constant_abs_rel(target: Float[Tensor, " B *S"], valid: Bool[Tensor, " B *S"]) -> Float[Tensor, ""]:
    """Smallest Abs Rel that one constant depth reaches over all valid pixels; NaN if there are none.

    That constant is the median of the true depths weighted by 1 / t. A depth estimator has to do better.

    Example:
        >>> constant_abs_rel(torch.tensor([[1.0, 2.0, 2.0]]), torch.ones(1, 3, dtype=torch.bool))
        tensor(0.3333)
    """
    depth = target[valid].double().sort().values
    if len(depth) == 0:
        return target.new_tensor(torch.nan)
    weight = (1 / depth).cumsum(0)
    constant = depth[int(torch.searchsorted(weight, weight[-1] / 2))]
    return relative_depth_error(constant.expand_as(depth), depth).mean().to(target.dtype)


class _DepthMetric(Metric):
    """A mean over valid pixels that is accumulated over batches and processes.

    Args:
        alignment: Per row of a batch; see `align_depth`. Give clips as [B, T, H, W] to align whole clips, and frames as
            [B*T, H, W] to align each by itself.
        average: `pixel` pools all valid pixels; `clip` averages the rows' values, leaving out rows without valid
            pixels.
        options: For torchmetrics.

    The result is NaN if no pixel was valid. Pixels whose truth is not finite or not positive are never valid; a
    prediction that is not a number makes the result NaN.
    """

    full_state_update = False
    is_differentiable = False
    total: Tensor
    count: Tensor

    def __init__(self, alignment: Alignment = "none", average: Average = "pixel", **options: Any) -> None:
        super().__init__(**options)
        if alignment not in ("none", "median", "scale", "scale_shift"):
            raise ValueError(f"alignment must be none, median, scale or scale_shift, got {alignment!r}")
        if average not in ("pixel", "clip"):
            raise ValueError(f"average must be pixel or clip, got {average!r}")
        self.alignment, self.average = alignment, average
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self, preds: Float[Tensor, " B *S"], target: Float[Tensor, " B *S"], valid: Bool[Tensor, " B *S"]
    ) -> None:
        """Add a batch of depth maps; one row is a frame [H, W] or a clip [T, H, W]."""
        valid = valid & torch.isfinite(target) & (target > 0)
        total, count = _row_sums(self._error(align_depth(preds, target, valid, self.alignment), target), valid)
        total = self._row_value(total, count)
        if self.average == "clip":  # the mean of every row that has any valid pixel
            total, count = total / count.clamp_min(1), count > 0
        self.total = self.total + total.sum()
        self.count = self.count + count.sum()

    def compute(self) -> Float[Tensor, ""]:
        """The mean so far."""
        return self._finish(self.total / self.count)

    def _error(self, preds: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError

    def _row_value(self, total: Tensor, count: Tensor) -> Tensor:
        """Row sums such that dividing by the count gives the row's value."""
        return total

    def _finish(self, mean: Tensor) -> Tensor:
        return mean


class AbsRel(_DepthMetric):
    """Mean of |p - t| / t; range [0, inf), lower is better. See `abs_rel` and the arguments of the base class."""

    higher_is_better = False

    def _error(self, preds: Tensor, target: Tensor) -> Tensor:
        return relative_depth_error(preds, target)


class DepthRMSE(_DepthMetric):
    """Root mean squared error in the unit of depth, lower is better; `average="clip"` means over the rows' RMSE."""

    higher_is_better = False

    def _error(self, preds: Tensor, target: Tensor) -> Tensor:
        return _squared_error(preds, target)

    def _row_value(self, total: Tensor, count: Tensor) -> Tensor:
        return total if self.average == "pixel" else (total * count).sqrt()

    def _finish(self, mean: Tensor) -> Tensor:
        return mean.sqrt() if self.average == "pixel" else mean


class DeltaAccuracy(_DepthMetric):
    """Share of pixels with max(p / t, t / p) below a threshold; range [0, 1], higher is better.

    Args:
        threshold: 1.25, or its square or cube.
        alignment: See the base class.
        average: See the base class.
        options: For torchmetrics.
    """

    higher_is_better = True

    def __init__(
        self,
        threshold: float = 1.25,
        alignment: Alignment = "none",
        average: Average = "pixel",
        **options: Any,
    ) -> None:
        super().__init__(alignment, average, **options)
        if threshold <= 1:
            raise ValueError(f"threshold must be above 1, got {threshold}")
        self.threshold = threshold

    def _error(self, preds: Tensor, target: Tensor) -> Tensor:
        return _within_ratio(preds, target, self.threshold)


class ConstantAbsRel(Metric):
    """Smallest Abs Rel that one constant depth reaches, lower is better: a baseline. See `constant_abs_rel`.

    True depths are counted in 16,384 bins from 1e-6 to 1e6, so the memory is constant; the value is within 0.002
    of the exact one.

    Args:
        options: For torchmetrics.
    """

    higher_is_better = False
    full_state_update = False
    is_differentiable = False
    count: Tensor
    inverse: Tensor
    """Sum of 1 / t in every bin."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in ("count", "inverse"):
            self.add_state(name, torch.zeros(16384, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, target: Float[Tensor, " B *S"], valid: Bool[Tensor, " B *S"]) -> None:
        """Add a batch of true depth maps; pixels that are not finite or not positive are never valid."""
        depth = target[valid & torch.isfinite(target) & (target > 0)].double()
        size = len(self.count)
        bins = ((depth.log10() + 6) / 12 * size).long().clamp(0, size - 1)
        self.count = self.count + torch.bincount(bins, minlength=size)
        self.inverse = self.inverse + torch.bincount(bins, weights=1 / depth, minlength=size)

    def compute(self) -> Float[Tensor, ""]:
        """The value so far; NaN before any valid pixel."""
        used = self.count > 0
        if not used.any():
            return self.count.new_tensor(torch.nan).float()
        count, inverse = self.count[used], self.inverse[used]
        constant = count / inverse  # the harmonic mean of every bin is tried, and stands for the bin
        below = constant * (inverse.cumsum(0) - inverse) - (count.cumsum(0) - count)
        above = (count.sum() - count.cumsum(0)) - constant * (inverse.sum() - inverse.cumsum(0))
        return ((below + above).min() / count.sum()).float()
