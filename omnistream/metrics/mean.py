"""The base of metrics that are a mean over samples."""

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
