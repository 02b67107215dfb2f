"""Depth of videos: metrics of a test against what is known of the prediction."""

import math

import pytest
import torch
from listed_videos import Knows, Listed, data, evaluated, three, video

from omnistream.data import EvaluationDataModule, GeometryVideos, ModelImages
from omnistream.tasks.reconstruction import VideoDepth
from omnistream.tasks.reconstruction.video_depth import ALIGNMENTS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ERRORS = ("abs_rel", "sq_rel", "rmse", "log_rmse")
DELTAS = ("delta1", "delta2", "delta3")


def name(alignment, metric, first="scale"):
    return metric if alignment == first else f"{alignment}/{metric}"


def values(result):
    return {key: metric.value for key, metric in result.metrics.items()}


@pytest.mark.parametrize(
    ("change", "exact"),
    [
        (lambda depth, index: depth, ALIGNMENTS),
        (lambda depth, index: 3 * depth, ("scale", "scale_shift_l2", "median", "frame_median")),
        (lambda depth, index: 2 * depth + 1, ("scale_shift_l2",)),
        (lambda depth, index: (1 + index) * depth, ("frame_median",)),
    ],
)
def test_a_perfect_model_has_no_error_up_to_its_alignment(tmp_path, change, exact):
    scenes = three()
    found = values(evaluated(VideoDepth(Knows(scenes, change)), data(scenes), tmp_path))
    assert set(found) == {name(a, m) for a in ALIGNMENTS for m in (*ERRORS, *DELTAS)} | {"abs_rel_constant"}
    for alignment in ALIGNMENTS:
        errors = [found[name(alignment, metric)] for metric in ERRORS]
        if alignment in exact:
            assert max(errors) < 1e-5
            assert [found[name(alignment, metric)] for metric in DELTAS] == [1, 1, 1]
        else:
            assert min(errors) > 0.01
    assert 0.2 < found["abs_rel_constant"] < 1


def columns(depth, index):
    """Half as much again in every eighth column: the factor of all others is the best one for the whole."""
    depth[:, ::8] *= 1.5
    return depth


@pytest.mark.parametrize("alignment", ["scale", "metric"])
def test_known_errors_come_out(tmp_path, alignment):
    scenes = three()
    module = VideoDepth(Knows(scenes, columns), alignments=(alignment,))
    result = evaluated(module, data(scenes), tmp_path)
    truth = [torch.stack([frame.depth for frame in frames]) for _, frames in sorted(scenes.items())]
    wrong = [depth[:, :, ::8][depth[:, :, ::8] > 0].double() for depth in truth]
    counts = torch.tensor([int((depth > 0).sum()) for depth in truth], dtype=torch.float64)
    assert counts.tolist() == [row["weight"] for row in result.settings["sequences"]]
    shares = torch.tensor([len(part) for part in wrong]) / counts
    squares = torch.stack([(0.5 * part).square().sum() for part in wrong]) / counts
    expected = {
        "abs_rel": 0.5 * shares,
        "sq_rel": torch.stack([(0.25 * part).sum() for part in wrong]) / counts,
        "rmse": squares.sqrt(),
        "log_rmse": shares.sqrt() * math.log(1.5),
        "delta1": 1 - shares,
        "delta2": torch.ones(3),
        "delta3": torch.ones(3),
    }
    close = 2e-6 if alignment == "metric" else 1e-4  # the scale is found in ten steps
    for metric, per_video in expected.items():
        mean = float((counts * per_video).sum() / counts.sum())
        assert result.metrics[metric].value == pytest.approx(mean, abs=close), metric
        spread = (counts * (per_video - mean)).square().sum()
        stderr = float((1.5 * spread).sqrt() / counts.sum())
        assert result.metrics[metric].stderr == pytest.approx(stderr, abs=close), metric
        assert result.metrics[metric].higher_is_better is metric.startswith("delta")


def test_limits_of_the_truth_and_of_the_prediction(tmp_path):
    """Sintel: true depth from 70 on is not compared, and predictions are cut there."""
    scenes = {"a": video(0, 3)}
    for frame in scenes["a"]:
        frame.depth[5] = 69.0
        frame.depth[6] = 70.0
        frame.depth[7] = 1e10

    def far(depth, index):
        depth[5] = 1000.0
        return depth

    alone = {"alignments": ("metric",), "max_depth": 70.0}
    cut = evaluated(VideoDepth(Knows(scenes, far), clip_to=70.0, **alone), data(scenes), tmp_path / "cut")
    share = 3 * 16 / cut.settings["sequences"][0]["weight"]
    assert cut.settings["sequences"][0]["weight"] == 3 * 12 * 16 - (1 + 2 + 1) * 16 - 3 * 2 * 16
    assert cut.metrics["abs_rel"].value == pytest.approx(share / 69)
    whole = evaluated(VideoDepth(Knows(scenes, far), **alone), data(scenes), tmp_path / "whole")
    assert whole.metrics["abs_rel"].value == pytest.approx(share * 931 / 69)
    assert {key: whole.settings[key] for key in ("max_depth", "clip_to")} == {"max_depth": 70.0, "clip_to": None}


def test_predictions_are_resized_to_the_truth(tmp_path):
    """Constant depth is the same at any size; a model that sees smaller images keeps its own size."""
    scenes = {"a": video(0, 3)}
    for frame in scenes["a"]:
        frame.depth[:] = 2.0
    found = evaluated(VideoDepth(Knows(scenes, lambda depth, index: torch.full((3, 5), 4.0))), data(scenes), tmp_path)
    assert found.metrics["abs_rel"].value < 1e-6
    assert found.metrics["metric/abs_rel"].value == pytest.approx(1)
    assert found.settings["sequences"][0]["details"]["alignments"]["scale"]["scale"] == pytest.approx(0.5)


def test_bad_alignments_are_refused():
    for alignments in ((), ("scale", "scale")):
        with pytest.raises(ValueError, match="alignments must be different ones, at least one"):
            VideoDepth(Knows(three()), alignments=alignments)


@pytest.mark.parametrize("alignments", [("scale",), ("metric",), ("scale_shift_l2", "median")])
def test_the_baseline_is_the_best_constant_of_each_video(tmp_path, alignments):
    """The median weighted by 1 / t: that of equal weights is far from it where near and far pixels mix."""
    scenes = {"a": video(0, 3), "b": video(1, 4)}
    for name, factor in (("a", 1.0), ("b", 30.0)):
        for index, frame in enumerate(scenes[name]):
            frame.depth.mul_(factor)
            frame.depth[:, 6:] *= 8 + index
    module = VideoDepth(Knows(scenes), alignments=alignments, max_depth=200.0)
    found = evaluated(module, data(scenes), tmp_path)
    total, count = 0.0, 0
    for frames in scenes.values():
        truth = torch.stack([frame.depth for frame in frames]).double()
        valid = truth[(truth > 0) & (truth < 200)]
        candidates = valid.unique()
        total += float(((candidates[:, None] - valid).abs() / valid).mean(1).min()) * len(valid)
        count += len(valid)
    assert found.metrics["abs_rel_constant"].value == pytest.approx(total / count, abs=1e-3)


def test_cropped_images_are_refused_before_the_model_runs(tmp_path):
    scenes = three()
    for fit, refused in (("crop", True), ("resize", False)):
        images, model = ModelImages(long_side=16, multiple=4, fit=fit), Knows(scenes)
        source = EvaluationDataModule(test=GeometryVideos(Listed(scenes), images=images), batch_size=1)
        if refused:
            with pytest.raises(ValueError, match=r"images\.fit crop .* set data\.images\.fit to resize"):
                evaluated(VideoDepth(model), source, tmp_path / fit)
            assert model.calls == []
        else:
            assert evaluated(VideoDepth(model), source, tmp_path / fit).metrics["abs_rel"].value < 1e-5


def test_the_status_is_that_of_the_main_alignment(tmp_path):
    """A prediction that is 0 in most pixels has no median to divide by, but a scale."""

    def mostly_zero(depth, index):
        depth[:, 4:] = 0
        return depth

    scenes = {"a": video(0, 3)}
    result = evaluated(VideoDepth(Knows(scenes, mostly_zero)), data(scenes), tmp_path / "scale")
    (row,) = result.settings["sequences"]
    assert (row["status"], row["reason"]) == ("scored", "")
    assert math.isfinite(result.metrics["abs_rel"].value)
    assert math.isnan(result.metrics["median/abs_rel"].value)
    assert row["details"]["note"] == "alignments without a solution: median, frame_median"
    assert set(row["details"]["alignments"]) == {"scale", "scale_shift_l2", "metric"}
    module = VideoDepth(Knows(scenes, mostly_zero), alignments=("median", "scale"))
    (row,) = evaluated(module, data(scenes), tmp_path / "median").settings["sequences"]
    assert (row["status"], row["reason"]) == ("not finite", "the alignment median has no solution")
    assert set(row["details"]["alignments"]) == {"scale"}
