"""Scale and shift that bring the depth of a whole video to the truth, found in passes over pairs of any number.

A solver is a generator: it yields the sums that it needs over all pairs, and goes on when it is sent their totals.
Hence several alignments share each pass, and no pass holds more than a chunk of pairs in memory.
"""

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float64
from torch import Tensor

SequenceAlignment = Literal["metric", "scale", "scale_shift", "scale_shift_l2", "scale_shift_l1", "median"]
"""How a sequence is brought to the scale of the truth; see `fit_alignments`."""

MIN_SCALE = 1e-3
"""Smallest scale of the alignment `scale`."""
_IRLS_STEPS = 10
_L1_STEPS = 100
_ADAM_STEPS, _ADAM_RATE, _ADAM_TOLERANCE = 1000, 1e-4, 1e-6
_ADAM_DECAY, _ADAM_EPSILON = (0.9, 0.999), 1e-8


class ScaleShift(NamedTuple):
    """Aligned depth is `scale * depth + shift`; float64 scalars."""

    scale: Tensor
    shift: Tensor
    """In the unit of the truth."""


Sum = Callable[[Tensor, Tensor], Tensor]
"""Of a chunk of predicted and true depth, float64 [N] each; those of all chunks are added up."""
Sums = Callable[[Tensor, Tensor], list[Tensor]]
"""Several of them at once."""
Solver = Generator[Sum, Tensor, ScaleShift]


def fit_alignments(
    totals: Callable[[Sums], list[Tensor]], alignments: Sequence[SequenceAlignment]
) -> dict[SequenceAlignment, ScaleShift]:
    """Scale and shift of each alignment, over all pairs.

    `metric` changes nothing. `scale` is the factor with the smallest sum of absolute errors, by ten steps of
    iteratively reweighted least squares from the ratio of the means: near the optimum, and the rule of the published
    tables. `scale_shift` is the release's: at most 1,000 steps of Adam on that sum from the ratio of the medians, which
    move either number by about 0.1 at most. `scale_shift_l1` is the optimum of that sum, and `scale_shift_l2` the
    least-squares fit. `median` is the ratio of the medians, the lower ones of an even number of pixels.

    Passes over the pairs: none, 11, up to 1,002, 102, 2 and 2.

    Args:
        totals: Makes one pass: returns the totals of what a function returns for each chunk of predicted and true
            depth; there is at least one pair. Medians are those of the numbers as float32.
        alignments: Which ones.

    Raises:
        ValueError: If there is no such alignment.
    """
    found: dict[SequenceAlignment, ScaleShift] = {}
    solvers = {name: _solver(name) for name in alignments}
    wanted: dict[SequenceAlignment, Sum] = {}

    def advance(name: SequenceAlignment, total: Tensor | None) -> None:
        try:
            wanted[name] = solvers[name].send(total)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as end:
            found[name] = end.value
            wanted.pop(name, None)

    for name in solvers:
        advance(name, None)
    while wanted:
        asked = dict(wanted)
        found_totals = totals(lambda p, t, asked=asked: [one(p, t) for one in asked.values()])  # type: ignore[misc]
        for name, total in zip(asked, found_totals, strict=True):
            advance(name, total)
    return {name: found[name] for name in solvers}


def video_alignment(
    preds: Float64[Tensor, " N"], target: Float64[Tensor, " N"], alignment: SequenceAlignment
) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """Scale and shift that bring all valid pixels of a sequence to the truth: `scale * preds + shift`.

    Args:
        preds: Predicted depth.
        target: True depth.
        alignment: See `fit_alignments`.

    Raises:
        ValueError: If there is no such alignment.
    """
    return fit_alignments(lambda sums: sums(preds, target), [alignment])[alignment]


def _solver(alignment: SequenceAlignment) -> Solver:
    solvers = {
        "metric": _identity,
        "scale": _irls_scale,
        "scale_shift": _adam_scale_shift,
        "scale_shift_l2": _l2_scale_shift,
        "scale_shift_l1": _l1_scale_shift,
        "median": _median_scale,
    }
    if alignment not in solvers:
        raise ValueError(f"alignment must be one of {', '.join(get_args(SequenceAlignment))}, got {alignment!r}")
    return solvers[alignment]()


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _identity() -> Solver:
    return ScaleShift(_number(1), _number(0))
    yield  # a generator, as the others


def _irls_scale() -> Solver:
    p_sum, t_sum = yield lambda p, t: torch.stack((p.sum(), t.sum()))
    scale = t_sum / p_sum
    for _ in range(_IRLS_STEPS):
        products, squares = yield partial(_irls_sums, scale)
        scale = products / squares
    return ScaleShift(scale.clamp_min(MIN_SCALE), torch.zeros_like(scale))


def _irls_sums(scale: Tensor, p: Tensor, t: Tensor) -> Tensor:
    error = torch.sub(t, p, alpha=float(scale)).abs_().add_(1e-8)
    weighted = torch.div(p, error, out=error)
    return torch.stack(((weighted * t).sum(), weighted.mul_(p).sum()))


def _median_scale() -> Solver:
    scale = yield from _ratio_of_medians()
    return ScaleShift(scale, torch.zeros_like(scale))


def _ratio_of_medians() -> Generator[Sum, Tensor, Tensor]:
    """By counting: first the upper halves of the bits of all numbers, then the lower halves in the median's bucket."""
    counts = (yield partial(_bucket_counts, None)).cumsum(1)  # [2, 2^16]
    rank = (counts[:, -1:] - 1) // 2
    bucket = (counts <= rank).sum(1, keepdim=True)
    below = counts.gather(1, (bucket - 1).clamp_min(0)) * (bucket > 0)
    counts = (yield partial(_bucket_counts, bucket)).cumsum(1)
    lower = (counts <= rank - below).sum(1, keepdim=True)
    p_median, t_median = _from_order((bucket << 16) + lower).double()
    return (t_median / p_median)[0]


def _bucket_counts(bucket: Tensor | None, p: Tensor, t: Tensor) -> Tensor:
    """How often each upper half occurs among predictions and truth, or each lower half of those in their bucket."""
    orders = [_order(x) for x in (p, t)]
    if bucket is None:
        halves = [order >> 16 for order in orders]
    else:
        halves = [order[order >> 16 == own] & 0xFFFF for order, own in zip(orders, bucket, strict=True)]
    return torch.stack([half.bincount(minlength=1 << 16) for half in halves])


def _order(x: Tensor) -> Tensor:
    """Whole numbers from 0 to 2^32 in the order of the float32 ones: negative floats count down in their bits."""
    bits = x.float().view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() + (1 << 31)


def _from_order(order: Tensor) -> Tensor:
    bits = (order - (1 << 31)).int()
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32)


def _adam_scale_shift() -> Solver:
    """In float32, as the release; more precision changes the fifth digit."""
    scale = (yield from _ratio_of_medians()).float()
    fit = torch.stack((scale, torch.zeros_like(scale)))
    mean, square, before = torch.zeros_like(fit), torch.zeros_like(fit), torch.inf
    for step in range(1, _ADAM_STEPS + 1):
        totals = yield partial(_absolute_sums, fit)
        gradient = totals[1:].float()
        mean = mean.lerp(gradient, 1 - _ADAM_DECAY[0])
        square = square.lerp(gradient.square(), 1 - _ADAM_DECAY[1])
        corrections = [1 - decay**step for decay in _ADAM_DECAY]
        fit = fit - _ADAM_RATE / corrections[0] * mean / ((square / corrections[1]).sqrt() + _ADAM_EPSILON)
        if abs(before - (now := float(totals[0].float()))) < _ADAM_TOLERANCE:
            break
        before = now
    return ScaleShift(*fit.double())


def _absolute_sums(fit: Tensor, p: Tensor, t: Tensor) -> Tensor:
    """Sum of the absolute errors, and its derivatives by scale and shift."""
    p32 = p.float()
    error = fit[0] * p32 + fit[1] - t.float()
    sign = error.sign()
    return torch.stack((error.abs().sum(), (sign * p32).sum(), sign.sum())).double()


def _l2_scale_shift() -> Solver:
    centre = yield _moments
    fit = yield from _weighted_fit(centre, None)
    return fit


def _l1_scale_shift() -> Solver:
    """Iteratively reweighted least squares with a floor under the errors that sinks from step to step."""
    centre = yield _moments
    fit = yield from _weighted_fit(centre, None)
    total = yield lambda p, t: (fit.scale * p + fit.shift - t).abs().sum()
    floor = total / centre[0]
    for _ in range(_L1_STEPS):
        floor = (floor * 0.8).clamp_min(1e-10)
        fit = yield from _weighted_fit(centre, (fit, floor))
    return fit


def _moments(p: Tensor, t: Tensor) -> Tensor:
    return torch.stack((_number(len(p)), p.sum(), t.sum()))


def _weighted_fit(moments: Tensor, weights: tuple[ScaleShift, Tensor] | None) -> Solver:
    """Least squares, each pair weighted by the inverse of its error; a constant prediction gets scale 0.

    The sums are taken about the means of all pairs, as the square of a mean is large beside the variance.
    """
    p_centre, t_centre = moments[1:] / moments[0]
    total, p_sum, t_sum, squares, products = yield partial(_fit_sums, p_centre, t_centre, weights)
    spread = squares - p_sum.square() / total
    scale = (products - p_sum * t_sum / total) / spread
    scale = torch.where(spread > 0, scale, torch.zeros_like(scale))
    return ScaleShift(scale, t_centre + t_sum / total - scale * (p_centre + p_sum / total))


def _fit_sums(
    p_centre: Tensor, t_centre: Tensor, weights: tuple[ScaleShift, Tensor] | None, p: Tensor, t: Tensor
) -> Tensor:
    dp, dt = p - p_centre, t - t_centre
    if weights is None:
        weight = torch.ones_like(p)
    else:
        (scale, shift), floor = weights
        weight = (scale * p).add_(shift).sub_(t).abs_().clamp_min_(floor).reciprocal_()
    weighted = weight * dp
    summands = (weight, weighted, weight * dt, weighted * dp, weighted * dt)
    return torch.stack([summand.sum() for summand in summands])
