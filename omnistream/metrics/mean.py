"""The bases of metrics that are a mean over samples, or over sequences that count by their size."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric


class SampleMean(Metric):
    """Mean of one value per sample, exact over batches of any size and over processes; NaN before any sample.

    A subclass computes the values in `update` and hands them to `add`. After `compute`, `standard_error` holds the
    standard error of that mean over all processes: NaN with fewer than two samples.

    Args:
        options: For torchmetrics.
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in ("total", "squares", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.standard_error: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """Add the values of some samples, any shape; one that is NaN makes the mean NaN."""
        values = values.detach().double()
        self.total = self.total + values.sum()
        self.squares = self.squares + values.square().sum()
        self.count = self.count + values.numel()

    def compute(self) -> Float[Tensor, ""]:
        """The mean so far."""
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp_min(0)  # of rounding
        self.standard_error = (
            (variance / (self.count - 1)).sqrt().float() if self.count > 1 else mean.new_tensor(torch.nan)
        )
        return mean.float()


class WeightedMean(Metric):
    """Mean of one value per sequence, each weighted; exact over batches and processes, NaN before any sequence.

    A sequence of weight 0 does not enter, unless its value is NaN. After `compute`, over all processes, `num_sequences`
    is the number of those that entered, and `standard_error` that of the mean, taken as a ratio of two sums over
    sequences drawn at random:

        sqrt(n / (n - 1) * sum(w_i^2 (x_i - mean)^2)) / sum(w_i)

    With equal weights it is the usual one; NaN with fewer than two sequences.

    Args:
        options: For torchmetrics.

    Source: Cochran, "Sampling Techniques", 1977, sec. 6.4; Gatz and Smith, Atmospheric Environment 29, 1995, compare
    the formula to the bootstrap.
    """

    is_differentiable = False
    full_state_update = False
    weights: Tensor
    total: Tensor
    count: Tensor
    squares: Tensor
    """Sums of w^2, w^2 x and w^2 x^2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, shape in {"weights": (), "total": (), "count": (), "squares": (3,)}.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.standard_error: Tensor | None = None
        self.num_sequences = 0

    def update(self, values: Float[Tensor, " K"], weights: Float[Tensor, " K"]) -> None:
        """Add sequences.

        Args:
            values: Of each; one that is NaN makes the mean NaN.
            weights: Of each, such as its number of valid pixels, or 1; not negative.
        """
        x, w = values.detach().double(), weights.detach().double()
        self.weights = self.weights + w.sum()
        self.total = self.total + (w * x).sum()
        self.count = self.count + (w > 0).sum()
        powers = torch.stack([torch.ones_like(x), x, x.square()])
        self.squares = self.squares + (w.square() * powers).sum(1)

    def compute(self) -> Float[Tensor, ""]:
        """The mean so far."""
        self.num_sequences = int(self.count)
        mean = self.total / self.weights
        if self.num_sequences < 2:
            self.standard_error = mean.new_tensor(torch.nan).float()
        else:
            none, first, second = self.squares
            variance = (second - 2 * mean * first + mean.square() * none).clamp_min(0)  # of rounding
            self.standard_error = ((variance * self.count / (self.count - 1)).sqrt() / self.weights).float()
        return mean.float()
