"""Means over the sequences of a benchmark of what was computed for each, such as depth errors weighted by pixels."""

from jaxtyping import Float
from torch import Tensor

from omnistream.metrics.mean import WeightedMean


def weighted_mean(values: Float[Tensor, " K"], weights: Float[Tensor, " K"]) -> Float[Tensor, ""]:
    """Mean over sequences, each weighted; NaN if all weights are 0."""
    values, weights = values.double(), weights.double()
    return ((weights * values).sum() / weights.sum()).float()


class SequenceError(WeightedMean):
    """Weighted mean over sequences of an error, lower is better; see `weighted_mean`."""

    higher_is_better = False


class SequenceAccuracy(WeightedMean):
    """Weighted mean over sequences of an accuracy, higher is better; see `weighted_mean`."""

    higher_is_better = True
