"""From the outcomes of single videos to the numbers of a benchmark."""

import math
from collections.abc import Sequence

from omnistream.evaluation.results import MetricValue
from omnistream.tasks.reconstruction.outcome import SequenceOutcome

IN_MEANS = ("scored", "not finite")
"""Status of the videos that enter the means."""
HIGHER = ("delta", "precision", "recall", "f_score")
"""Beginnings of the names of metrics of which more is better."""


def summarize(outcomes: Sequence[SequenceOutcome]) -> dict[str, MetricValue]:
    """Weighted means over the videos with their standard errors; a NaN makes the mean NaN.

    The standard error of a weighted mean is sqrt(n / (n - 1) * sum(w² (x - mean)²)) / sum(w), which for equal weights
    is the usual one.

    Args:
        outcomes: Of all videos, all with the same metrics.

    Raises:
        ValueError: If none enters the means, or two have different metrics.
    """
    counted = [one for one in outcomes if one.status in IN_MEANS]
    if not counted:
        reasons = "; ".join(f"{one.name}: {one.status}, {one.reason}" for one in outcomes[:3])
        raise ValueError(f"none of {len(outcomes)} videos could be scored{': ' if reasons else ''}{reasons}")
    for one in counted:
        if one.values.keys() != counted[0].values.keys():
            differing = ", ".join(sorted(one.values.keys() ^ counted[0].values.keys()))
            raise ValueError(f"{one.name} and {counted[0].name} have different metrics: {differing}")
    return {name: _mean(name, counted) for name in counted[0].values}


def _mean(name: str, outcomes: Sequence[SequenceOutcome]) -> MetricValue:
    weights, values = [one.weight for one in outcomes], [one.values[name] for one in outcomes]
    total, count = math.fsum(weights), len(values)
    mean = math.fsum(w * x for w, x in zip(weights, values, strict=True)) / total
    squares = math.fsum((w * (x - mean)) ** 2 for w, x in zip(weights, values, strict=True))
    stderr = math.sqrt(count / (count - 1) * squares) / total if count > 1 and math.isfinite(squares) else None
    return MetricValue(value=mean, higher_is_better=name.rpartition("/")[2].startswith(HIGHER), stderr=stderr)
