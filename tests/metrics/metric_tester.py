"""What every metric of the library must do, checked from one description of it: see `MetricCase`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

Inputs = tuple[Any, ...]


@dataclass(frozen=True)
class MetricCase:
    """One metric; a new one needs one more row in `metric_cases.py`."""

    metric: type[Metric]
    function: Callable[..., Tensor]
    """The functional twin, called with the same inputs and options."""
    make: Callable[[int], Inputs]
    """Inputs of this number of samples, as tensors or sequences of that length."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of metric and twin alike."""
    state_options: dict[str, Any] = field(default_factory=dict)
    """Of the metric alone."""
    broken: Callable[[Inputs], Inputs] | None = None
    """Makes one prediction NaN; None if predictions cannot be."""
    tolerance: float = 1e-6
    """Absolute, between metric and twin."""

    def __str__(self) -> str:
        options = ",".join(f"{value}" for value in self.options.values())
        return self.metric.__name__ + (f"[{options}]" if options else "")

    def new(self) -> Metric:
        """A fresh metric."""
        return self.metric(**self.options, **self.state_options)

    def expected(self, inputs: Inputs) -> Tensor:
        """The twin's value."""
        return self.function(*inputs, **self.options)


def rows(inputs: Inputs, chosen: Sequence[int]) -> Inputs:
    """These samples of the inputs."""
    return tuple(x[list(chosen)] if isinstance(x, Tensor) else [x[i] for i in chosen] for x in inputs)


def updated(metric: Metric, inputs: Inputs, batches: Sequence[Sequence[int]]) -> Metric:
    """The metric after these batches of the samples."""
    for batch in batches:
        metric.update(*rows(inputs, batch))
    return metric


def assert_equal(case: MetricCase, actual: Tensor, expected: Tensor) -> None:
    """Equal to the case's tolerance; NaN equals NaN."""
    torch.testing.assert_close(actual.double(), expected.double(), atol=case.tolerance, rtol=0, equal_nan=True)
