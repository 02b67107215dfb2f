"""Two processes give the results of one: each sample once and the same metrics, even if one has no samples."""

import json
from pathlib import Path

import pytest
import torch
from evaluation_runs import evaluate
from processes import run_python

from omnistream import distributed

HERE = Path(__file__).parent


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    one = evaluate(tmp_path, 1)
    run_python([str(HERE / "evaluation_runs.py"), str(tmp_path), "2"], cwd=HERE, timeout=120)
    two = json.loads((tmp_path / "results.json").read_text())
    assert two == one  # exactly: sums of small whole numbers
    assert one["val"]["seen"] == sorted(["one/0", *(f"five/{i}" for i in range(5)), "two/0", "two/1"])
    assert one["val"]["metrics"] == {
        "one/mean": 0.0,
        "five/mean": 2.0,
        "two/mean": 0.5,
        "one": 0.0,
        "five": pytest.approx((1 + 3 + 4) / 3),
        "two": 0.5,
    }
    assert len(one["test"]["seen"]) == 1 + 7 + 3


def test_means_are_reset_and_kept_per_name():
    means = distributed.Means()
    assert means.compute() == {}
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(5, dtype=torch.int64)})
    means.add({"a": torch.tensor(2.0)})
    assert means.compute() == {"a": 1.5, "b": 5.0}
    means.add({"a": torch.tensor(7.0)})
    assert means.compute() == {"a": 7.0}


def test_a_process_is_alone_only_inside_the_context(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 4)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 3)
    with distributed.alone():
        with distributed.alone():
            pass
        assert (distributed.rank(), distributed.world_size(), distributed.is_distributed()) == (0, 1, False)
        assert distributed.all_reduce(torch.tensor(2.0)) == 2.0
    assert (distributed.rank(), distributed.world_size(), distributed.is_distributed()) == (3, 4, True)
    with pytest.raises(KeyError), distributed.alone():
        raise KeyError
    assert distributed.world_size() == 4
