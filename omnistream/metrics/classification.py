"""Accuracy of a classification: is the true class among the most likely ones?"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchmetrics import Metric

from omnistream.metrics.mean import SampleMean


def _is_found(preds: Float[Tensor, "B C"], target: Int64[Tensor, " B"], k: int) -> Bool[Tensor, " B"]:
    """Whether fewer than k other classes score at least as high as the true one; never where that score is NaN."""
    own = preds.gather(1, target[:, None])
    return ((preds >= own).sum(1) - 1 < k) & ~own[:, 0].isnan()


def top_k_accuracy(preds: Float[Tensor, "B C"], target: Int64[Tensor, " B"], k: int = 1) -> Float[Tensor, ""]:
    """Share of samples whose true class is among the k highest scores; in [0, 1], higher is better.

    A class that ties with the true one ranks before it, so equal scores for all classes are never correct.

    Args:
        preds: Scores of every class.
        target: The true class.
        k: Number of highest-scoring classes.
    """
    return _is_found(preds, target, k).float().mean()


class TopKAccuracy(SampleMean):
    """Share of samples whose true class is among the k highest scores. In [0, 1], higher is better.

    See `top_k_accuracy`.

    Args:
        k: Number of highest-scoring classes.
        options: For torchmetrics.

    Raises:
        ValueError: If k is not positive.
    """

    higher_is_better = True

    def __init__(self, k: int = 1, **options: Any) -> None:
        super().__init__(**options)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.k = k

    def update(self, preds: Float[Tensor, "B C"], target: Int64[Tensor, " B"]) -> None:
        """Add scores and true classes."""
        self.add(_is_found(preds, target, self.k))


def _beats_opposite(preds: Float[Tensor, "B C"], target: Int64[Tensor, " B"]) -> Float[Tensor, " B"]:
    """1 where the true class scores higher than its opposite, 1/2 where they are equal, else 0; NaN where one is."""
    own, other = (preds.gather(1, index[:, None])[:, 0] for index in (target, target ^ 1))
    return torch.heaviside((own - other).double(), own.new_tensor(0.5, dtype=torch.float64)) + 0 * (own - other)


def opposite_accuracy(preds: Float[Tensor, "B C"], target: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
    """Share of samples whose true class scores higher than its opposite; in [0, 1], higher is better, chance 1/2.

    Classes 2 i and 2 i + 1 are opposites, such as an action and its reversal. Scores that are equal count half.

    Args:
        preds: Scores of every class, an even number of them.
        target: The true class.
    """
    return _beats_opposite(preds, target).mean().float()


class OppositeAccuracy(SampleMean):
    """Share of samples whose true class scores higher than its opposite. In [0, 1], higher is better, chance 1/2.

    See `opposite_accuracy`.
    """

    higher_is_better = True

    def update(self, preds: Float[Tensor, "B C"], target: Int64[Tensor, " B"]) -> None:
        """Add scores and true classes."""
        self.add(_beats_opposite(preds, target))


def majority_accuracy(preds: Float[Tensor, "B C"], target: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
    """Share of the most frequent true class: the accuracy of always predicting it. At least 1 / C.

    Args:
        preds: Scores; only the number of classes is used.
        target: The true classes.
    """
    counts = torch.bincount(target, minlength=preds.shape[1])
    return (counts.max() / counts.sum()).float()


class MajorityAccuracy(Metric):
    """Accuracy of always predicting the most frequent true class: a baseline. See `majority_accuracy`.

    Args:
        num_classes: Classes.
        options: For torchmetrics.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("counts", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Float[Tensor, "B C"], target: Int64[Tensor, " B"]) -> None:
        """Add scores, which are not used, and true classes."""
        self.counts = self.counts + torch.bincount(target, minlength=len(self.counts))

    def compute(self) -> Float[Tensor, ""]:
        """The share so far; NaN before any sample."""
        return (self.counts.max() / self.counts.sum()).float()
