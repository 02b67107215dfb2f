"""Compiled sessions equal `StreamSession` and compile each size once; what needs the compiler runs in a program."""

import json
from pathlib import Path

import pytest
import torch
from processes import run_python

PROGRAM = Path(__file__).with_name("compiled_streams.py")
# Slots double from 2. A window of W ends at W + 1 slots, once with a mask and once without.
GRAPHS = {"shortest window": 2, "window": 3, "sink, camera, layers": 3, "growing": 4, "at most 9": 4}
SLOTS = {"shortest window": 2, "window": 3, "sink, camera, layers": 4, "growing": 16, "at most 9": 9}


def results_of(cases, tmp_path, *options, timeout=240):
    output = run_python([str(PROGRAM), *cases, *options], cwd=tmp_path, timeout=timeout)
    results = [json.loads(line) for line in output.splitlines() if line.startswith('{"case"')]
    assert [result["case"] for result in results] == list(cases)
    return results


def check(cases, tmp_path, *options, timeout=240):
    results = results_of(cases, tmp_path, *options, timeout=timeout)
    for result in results:
        case = result["case"]
        assert result["std"] > 0.5, result
        assert result["error"] < 3e-5, result
        assert result["names"] == 0, result
        assert result["graphs"] == GRAPHS[case], result
        assert result["graphs after reset"] == result["graphs of a fork"] == 0, result
        assert result["num_slots"] == SLOTS[case], result
    return results


def test_one_graph_once_the_window_is_full(tmp_path):
    check(["shortest window"], tmp_path)


def check_lives(cases, tmp_path, *options, timeout=240):
    for result in results_of(cases, tmp_path, *options, timeout=timeout):
        assert len(result["errors"]) == 7
        assert max(result["errors"].values()) < 3e-5, result


@pytest.mark.slow
def test_compiled_forks_and_states_go_on(tmp_path):
    check_lives(["official time", "all remembered"], tmp_path, timeout=600)


@pytest.mark.slow
def test_all_kinds(tmp_path):
    check(list(GRAPHS), tmp_path, timeout=600)


@pytest.mark.slow
def test_inductor_on_the_cpu(tmp_path):
    check(["sink, camera, layers"], tmp_path, "--backend", "inductor", "--blocks", "4", timeout=900)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_graphs(tmp_path):
    for result in check(list(GRAPHS), tmp_path, "--backend", "inductor", "--device", "cuda", timeout=900):
        assert result["cudagraph skips"] == 0, result


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_lives_with_cuda_graphs(tmp_path):
    cases = ["official time", "all remembered"]
    check_lives(cases, tmp_path, "--backend", "inductor", "--device", "cuda", timeout=900)


def test_mistakes_are_refused(build):
    model = build()
    with pytest.raises(ValueError, match="sink must be between 0 and the window"):
        model.stream(compiled=True, window=1, sink=2)
    with pytest.raises(ValueError, match="max_frames must be at least 1"):
        model.stream(compiled=True, max_frames=0)
    session = model.stream(compiled=True, window=1, sink=0)
    with pytest.raises(ValueError, match="at least one frame"):
        session.step(torch.rand(1, 0, 3, 16, 16))
    with pytest.raises(ValueError, match="multiples of the patch size"):
        session.step(torch.rand(1, 1, 3, 16, 20))
    session._check(torch.rand(1, 1, 3, 16, 16))  # compiles nothing yet
    with pytest.raises(ValueError, match=r"of its first step \(1 x 3 x 16 x 16, float32, cpu\), got \(2 x 3 x"):
        session.step(torch.rand(2, 1, 3, 16, 16))
    with pytest.raises(ValueError, match=r"cannot reset rows \[5\]; the session has streams 0 to 0"):
        session.reset([5])
    limited = model.stream(compiled=True, max_frames=2)
    limited.reset([5])  # no stream has begun
    assert limited.num_bytes == 0
    with pytest.raises(ValueError, match="reached max_frames=2"):
        limited.step(torch.rand(1, 3, 3, 16, 16))
