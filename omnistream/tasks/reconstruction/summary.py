"""From the outcomes of single videos to the numbers of a benchmark."""

import math
from collections.abc import Sequence

import torch

from omnistream.evaluation.results import MetricValue
from omnistream.metrics import SequenceAccuracy, SequenceError
from omnistream.tasks.reconstruction.outcome import SequenceOutcome

IN_MEANS = ("scored", "not finite")
"""Status of the videos that enter the means."""
HIGHER = ("delta", "precision", "recall", "f_score")
"""Beginnings of the names of metrics of which more is better."""


def summarize(outcomes: Sequence[SequenceOutcome]) -> dict[str, MetricValue]:
    """Weighted means over the videos with their standard errors; a NaN makes the mean NaN.

    Mean and standard error are those of `omnistream.metrics.SequenceError`.

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
    higher_is_better = name.rpartition("/")[2].startswith(HIGHER)
    # The outcomes are those of all processes already.
    metric = (SequenceAccuracy if higher_is_better else SequenceError)(sync_on_compute=False)
    values = torch.tensor([one.values[name] for one in outcomes], dtype=torch.float64)
    metric.update(values, torch.tensor([one.weight for one in outcomes], dtype=torch.float64))
    mean = float(metric.compute())
    assert metric.standard_error is not None  # after compute
    error = float(metric.standard_error)
    return MetricValue(value=mean, higher_is_better=higher_is_better, stderr=error if math.isfinite(error) else None)
