"""Accuracy of a classification: is the true class among the most likely ones?"""

from typing import Any

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from omnistream.metrics.mean import SampleMean


def _is_found(preds: Float[Tensor, "B C"], target: Int64[Tensor, " B"], k: int) -> Bool[Tensor, " B"]:
    """Whether fewer than k classes score at least as much as the true one; a score that is NaN is never found."""
    own = preds.gather(1, target[:, None])
    return ((preds >= own).sum(1) - 1 < k) & ~own[:, 0].isnan()


def top_k_accuracy(preds: Float[Tensor, "B C"], target: Int64[Tensor, " B"], k: int = 1) -> Float[Tensor, ""]:
    """Share of samples whose true class is among the k highest scores; in [0, 1], higher is better.

    A class that ties with the true one is counted before it, so equal scores for all classes are never right.

    Args:
        preds: Scores of every class.
        target: The true class.
        k: How many classes may be named.
    """
    return _is_found(preds, target, k).float().mean()


class TopKAccuracy(SampleMean):
    """Share of samples whose true class is among the k highest scores. In [0, 1], higher is better.

    See `top_k_accuracy`.

    Args:
        k: How many classes may be named.
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
