import json
from pathlib import Path

import pytest
from multitask_evaluation_runs import evaluate
from processes import run_python

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    return evaluate(tmp_path_factory.mktemp("one"))


def test_every_objective_is_evaluated(one_process):
    for stage, metrics in one_process.items():
        for name in ("ssl/image", "ssl/video", "geometry", "captioning"):
            assert f"{stage}/{name}/loss" in metrics
        assert f"{stage}/geometry/abs_rel_median" in metrics


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_give_the_metrics_of_one(one_process, tmp_path, strategy):
    """Odd sets, some with a single batch. No sample is repeated, and no process waits for another within a step."""
    run_python([str(HERE / "multitask_evaluation_runs.py"), str(tmp_path), strategy, "2"], cwd=HERE, timeout=200)
    two = json.loads((tmp_path / "metrics.json").read_text())
    for stage, metrics in one_process.items():
        assert two[stage].keys() == metrics.keys()
        for name, value in metrics.items():
            # The batches are the same, bit for bit; sums over them are taken in another order, the metrics' in float32.
            assert two[stage][name] == pytest.approx(value, rel=1e-5, nan_ok=True), name
