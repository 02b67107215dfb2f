"""`omnistream stream --compile` gives the same results."""

import numpy as np
import pytest
import torch
from processes import run_python
from stream_runs import stream, summary

from omnistream.backbone import StaticStep


def assert_same_features(a, b):
    with np.load(a / "features.npz", allow_pickle=False) as mine, np.load(b / "features.npz") as theirs:
        assert mine.files == theirs.files
        for name in mine.files:
            # The order of summation differs, over four blocks.
            np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-4, atol=1e-4)


def test_a_compiled_step_gives_the_same(trained, make_video, tmp_path, monkeypatch):
    """With the compiling session but without the compiler, which cannot trace the shape checks of the tests."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda step, **_: compiled.append(step) or step)
    video, given = make_video("clip.mp4", 11), ["--checkpoint", trained, "--size", 32, "--window", 3, "--chunk", 3]
    given += ["--features", "last,cls,1"]
    stream(video, "--out", tmp_path / "plain", *given)
    assert compiled == []
    stream(video, "--out", tmp_path / "compiled", *given, "--compile")
    assert [type(step) for step in compiled] == [StaticStep]
    assert compiled[0].frame.tolist() == [11]
    assert_same_features(tmp_path / "compiled", tmp_path / "plain")
    for name in ("depth.mp4", "points.ply"):
        assert (tmp_path / "compiled" / name).stat().st_size > 0
    # 1e-3: positions in units of a scene a few units wide, which a small head reads off the features.
    poses = (np.loadtxt(tmp_path / name / "poses.txt", ndmin=2) for name in ("compiled", "plain"))
    np.testing.assert_allclose(*poses, atol=1e-3)
    assert [summary(tmp_path / name)["options"]["compiled"] for name in ("compiled", "plain")] == [True, False]


@pytest.mark.slow
def test_compiling_for_real(trained, make_video, tmp_path):
    video = make_video("clip.mp4", 6)
    given = ["--checkpoint", trained, "--size", 32, "--window", 2, "--features", "cls"]
    stream(video, "--out", tmp_path / "plain", *given)
    arguments = [str(argument) for argument in (video, "--out", tmp_path / "compiled", *given, "--compile")]
    run_python(["-m", "omnistream", "stream", *arguments], cwd=tmp_path, timeout=900)
    assert_same_features(tmp_path / "compiled", tmp_path / "plain")
