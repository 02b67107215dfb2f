"""Depth metrics: relative, squared and logarithmic errors, with an optional alignment of every clip to the truth."""

import math
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric

Alignment = Literal["none", "median", "scale", "scale_shift"]
Average = Literal["pixel", "clip"]
Depth: TypeAlias = Float[Tensor, " B *S"]
"""Depth maps: rows are frames [H, W] or clips [T, H, W]."""
Valid: TypeAlias = Bool[Tensor, " B *S"]
"""Which of their pixels count."""


def align_depth(preds: Depth, target: Depth, valid: Valid, alignment: Alignment) -> Depth:
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


def _log_error(preds: Tensor, target: Tensor) -> Tensor:
    """Difference ln t - ln p; not a number or infinite where the prediction is not positive."""
    return target.log() - preds.log()


def _silog(mean: Tensor, mean_square: Tensor) -> Tensor:
    return 100 * (mean_square - mean.square()).clamp_min(0).sqrt()  # of rounding


def _row_sums(error: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the error over the valid pixels of every row, and their number; float64, for millions of pixels."""
    error = error.double().masked_fill(~valid, 0)
    return error.flatten(1).sum(1), valid.flatten(1).sum(1)


def _mean(error: Tensor, valid: Tensor) -> Tensor:
    total, count = _row_sums(error, valid)
    return total.sum() / count.sum()


def abs_rel(preds: Depth, target: Depth, valid: Valid, alignment: Alignment = "none") -> Float[Tensor, ""]:
    """Mean of |p - t| / t over all valid pixels; NaN if there are none. Lower is better."""
    return _mean(relative_depth_error(align_depth(preds, target, valid, alignment), target), valid)


def sq_rel(preds: Depth, target: Depth, valid: Valid, alignment: Alignment = "none") -> Float[Tensor, ""]:
    """Mean of (p - t)^2 / t over all valid pixels, in the unit of depth. Lower is better."""
    return _mean(_squared_error(align_depth(preds, target, valid, alignment), target) / target, valid)


def depth_rmse(preds: Depth, target: Depth, valid: Valid, alignment: Alignment = "none") -> Float[Tensor, ""]:
    """Root of the mean squared error over all valid pixels, in the unit of depth. Lower is better."""
    return _mean(_squared_error(align_depth(preds, target, valid, alignment), target), valid).sqrt()


def log_rmse(preds: Depth, target: Depth, valid: Valid, alignment: Alignment = "none") -> Float[Tensor, ""]:
    """Root of the mean squared error of ln p over all valid pixels. Lower is better."""
    return _mean(_log_error(align_depth(preds, target, valid, alignment), target).square(), valid).sqrt()


def log10_error(preds: Depth, target: Depth, valid: Valid, alignment: Alignment = "none") -> Float[Tensor, ""]:
    """Mean of |log10 p - log10 t| over all valid pixels. Lower is better."""
    return _mean(_log_error(align_depth(preds, target, valid, alignment), target).abs(), valid) / math.log(10)


def silog(preds: Depth, target: Depth, valid: Valid, alignment: Alignment = "none") -> Float[Tensor, ""]:
    """100 times the standard deviation of ln t - ln p over all valid pixels; a common scale is free. Lower is better.

    Source: Eigen et al. 2014, as facebookresearch/dinov3 dinov3/eval/depth/metrics.py.
    """
    error = _log_error(align_depth(preds, target, valid, alignment), target)
    return _silog(_mean(error, valid), _mean(error.square(), valid))


def delta_accuracy(
    preds: Depth, target: Depth, valid: Valid, alignment: Alignment = "none", threshold: float = 1.25
) -> Float[Tensor, ""]:
    """Share of the valid pixels with max(p / t, t / p) < threshold, in [0, 1]. Higher is better."""
    return _mean(_within_ratio(align_depth(preds, target, valid, alignment), target, threshold), valid)


def constant_abs_rel(target: Depth, valid: Valid) -> Float[Tensor, ""]:
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
            pixels. After `compute`, `standard_error` is then the standard error of that mean.
        options: For torchmetrics.

    The result is NaN if no pixel was valid. Pixels whose truth is not finite or not positive are never valid; a
    prediction that is not a number makes the result NaN.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False
    num_errors = 1
    """Means that make the value."""
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, alignment: Alignment = "none", average: Average = "pixel", **options: Any) -> None:
        super().__init__(**options)
        if alignment not in ("none", "median", "scale", "scale_shift"):
            raise ValueError(f"alignment must be none, median, scale or scale_shift, got {alignment!r}")
        if average not in ("pixel", "clip"):
            raise ValueError(f"average must be pixel or clip, got {average!r}")
        self.alignment, self.average = alignment, average
        size = self.num_errors if average == "pixel" else 1
        self.add_state("total", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.standard_error: Tensor | None = None

    def update(self, preds: Depth, target: Depth, valid: Valid | None = None) -> None:
        """Add a batch of depth maps; one row is a frame [H, W] or a clip [T, H, W]. By default all truth is valid."""
        valid = _usable(target, valid)
        errors = self._errors(align_depth(preds, target, valid, self.alignment), target)
        sums, counts = zip(*(_row_sums(error, valid) for error in errors), strict=True)
        totals, count = torch.stack(sums), counts[0]
        if self.average == "clip":  # of every row that has any valid pixel
            used = count > 0
            values = self._value(totals[:, used] / count[used])
            totals, count = values[None], used
            self.squares = self.squares + values.square().sum()
        self.total = self.total + totals.sum(1)
        self.count = self.count + count.sum()

    def compute(self) -> Float[Tensor, ""]:
        """The value so far."""
        mean = self.total / self.count
        if self.average == "pixel":
            return self._value(mean)
        variance = (self.squares / self.count - mean[0].square()).clamp_min(0)  # of rounding
        self.standard_error = (variance / (self.count - 1)).sqrt() if self.count > 1 else None
        return mean[0]

    def _errors(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Errors of every pixel, whose means make the value."""
        raise NotImplementedError

    def _value(self, means: Tensor) -> Tensor:
        """The value of means [num_errors, ...]; by default the only one."""
        return means[0]


def _usable(target: Tensor, valid: Tensor | None) -> Tensor:
    known = torch.isfinite(target) & (target > 0)
    return known if valid is None else valid & known


class AbsRel(_DepthMetric):
    """Mean of |p - t| / t; range [0, inf), lower is better. See `abs_rel` and the arguments of the base class."""

    def _errors(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (relative_depth_error(preds, target),)


class SqRel(_DepthMetric):
    """Mean of (p - t)^2 / t in the unit of depth, lower is better. See `sq_rel`."""

    def _errors(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (_squared_error(preds, target) / target,)


class DepthRMSE(_DepthMetric):
    """Root mean squared error in the unit of depth, lower is better; `average="clip"` means over the rows' RMSE."""

    def _errors(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (_squared_error(preds, target),)

    def _value(self, means: Tensor) -> Tensor:
        return means[0].sqrt()


class LogRMSE(_DepthMetric):
    """Root mean squared error of ln p, lower is better. See `log_rmse`."""

    def _errors(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (_log_error(preds, target).square(),)

    def _value(self, means: Tensor) -> Tensor:
        return means[0].sqrt()


class Log10Error(_DepthMetric):
    """Mean of |log10 p - log10 t|, lower is better. See `log10_error`."""

    def _errors(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (_log_error(preds, target).abs() / math.log(10),)


class SILog(_DepthMetric):
    """100 times the standard deviation of ln t - ln p, lower is better. See `silog`."""

    num_errors = 2

    def _errors(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        error = _log_error(preds, target).double()
        return error, error.square()

    def _value(self, means: Tensor) -> Tensor:
        return _silog(means[0], means[1])


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

    def _errors(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (_within_ratio(preds, target, self.threshold),)


def constant_depth_rmse(preds: Depth, target: Depth, valid: Valid | None = None) -> Float[Tensor, ""]:
    """Smallest mean over rows of the RMSE that one constant depth reaches; NaN without any valid pixel.

    Args:
        preds: Depth, which is not used.
        target: True depth.
        valid: Pixels that count; by default all with a depth.
    """
    return _constant_rmse(_row_moments(target, _usable(target, valid))).to(target.dtype)


def _row_moments(target: Tensor, valid: Tensor) -> Float[Tensor, "N 2"]:
    """Mean and variance of the true depth of every row that has any."""
    (total, count), (squares, _) = (_row_sums(values, valid) for values in (target, target.double().square()))
    used = count > 0
    mean = total[used] / count[used]
    return torch.stack([mean, (squares[used] / count[used] - mean.square()).clamp_min(0)], dim=1)


def _constant_rmse(moments: Float[Tensor, "N 2"]) -> Float[Tensor, ""]:
    """Minimum over c of the mean of sqrt((c - mean)^2 + variance), convex in c, by golden-section search."""
    mean, variance = moments.double().unbind(1)
    if not len(mean):
        return mean.new_tensor(torch.nan)

    def error(constant: Tensor) -> Tensor:
        return ((constant - mean).square() + variance).sqrt().mean()

    low, high, ratio = mean.min(), mean.max(), (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if error(left) < error(right):
            high = right
        else:
            low = left
    return error((low + high) / 2)


class ConstantDepthRMSE(Metric):
    """Smallest mean over rows of the RMSE that one constant depth reaches, lower is better: a baseline.

    See `constant_depth_rmse`. The state is two numbers per row.

    Args:
        options: For torchmetrics.
    """

    higher_is_better = False
    full_state_update = False
    is_differentiable = False
    moments: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("moments", [], dist_reduce_fx="cat")

    def update(self, preds: Depth, target: Depth, valid: Valid | None = None) -> None:
        """Add predictions, which are not used, and true depth maps."""
        # Flat float32: that is what torchmetrics takes a process without samples to have.
        self.moments.append(_row_moments(target, _usable(target, valid)).flatten().float())

    def compute(self) -> Float[Tensor, ""]:
        """The value so far; NaN before any valid pixel."""
        found = (
            self.moments
            if isinstance(self.moments, Tensor)
            else torch.cat([torch.empty(0, device=self.device), *self.moments])
        )
        return _constant_rmse(found.view(-1, 2)).float()


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

    def update(self, target: Depth, valid: Valid) -> None:
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
