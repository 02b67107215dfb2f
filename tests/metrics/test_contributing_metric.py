"""The metric that CONTRIBUTING.md shows how to write passes what every metric must pass."""

import re

import pytest
import torch
from metric_cases import depth, nan_at_the_end
from metric_tester import MetricCase
from processes import REPOSITORY
from test_every_metric import TestEveryMetric as EveryMetric


@pytest.fixture
def toy_metric():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "class DepthMAE" in code]
    assert (
        "from omnistream.metrics import" not in code
    )  # omnistream.metrics imports the file before it has all its names
    names: dict = {"__name__": "__main__"}
    exec(compile(code, "toy_metric.py", "exec"), names)
    return names


@pytest.mark.parametrize(
    "check",
    ["test_batches_in_any_order_are_the_whole", "test_reset_starts_afresh", "test_nothing_is_nan",
     "test_a_broken_prediction_is_noticed"],
)  # fmt: skip
def test_it_passes_the_checks_of_every_metric(toy_metric, check):
    case = MetricCase(
        toy_metric["DepthMAE"], toy_metric["depth_mae"], lambda n: depth(n)[:2], broken=nan_at_the_end, tolerance=1e-5
    )
    getattr(EveryMetric(), check)(case)


def test_closed_form(toy_metric):
    target = torch.ones(2, 3, 4)
    assert toy_metric["depth_mae"](target + torch.tensor([1.0, 2.0])[:, None, None], target) == 1.5
