"""Depth of videos against CUT3R's scorer: its values on a formula and on degenerate sequences."""

import pytest
import torch

from omnistream.data.media import read_depth_png
from omnistream.metrics.depth_alignment import video_alignment
from omnistream.metrics.video_depth import (
    SequenceDepth,
    resize_depth,
    sequence_depth_errors,
)

ORDER = torch.arange(24, dtype=torch.float64).view(2, 3, 4)
BASE = 1 + 0.5 * ORDER
PREDS = 0.3 * BASE + 0.2 + 0.05 * ORDER.sin()
TRUTH = torch.where(ORDER % 7 == 0, 0.0, torch.where(ORDER == 23, 80.0, BASE))


def values(found: SequenceDepth) -> list[float]:
    return [float(value) for value in found.errors]


@pytest.mark.parametrize(
    ("alignment", "maximum", "expected", "scale", "shift"),
    [
        ("metric", 70, [0.655475, 2.942639, 4.920783, 1.075578, 0, 0, 0], 1, 0),
        ("scale", 70, [0.074234, 0.035122, 0.296127, 0.114844, 0.894737, 1, 1], 3.086922, 0),
        ("scale_shift", 70, [0.065394, 0.027769, 0.261718, 0.103655, 0.894737, 1, 1], 3.129881, -0.097472),
        ("median", 70, [0.075143, 0.036049, 0.298082, 0.116186, 0.894737, 1, 1], 3.095237, 0),
        ("scale_shift_l2", 70, [0.023410, 0.003060, 0.113543, 0.032317, 1, 1, 1], 3.341723, -0.679049),
        ("metric", None, [0.670259, 6.414281, 17.677822, 1.246903, 0, 0, 0], 1, 0),
        ("scale", None, [0.115042, 2.914291, 15.179195, 0.437118, 0.85, 0.95, 0.95], 3.103956, 0),
        ("median", None, [0.113826, 2.916158, 15.186749, 0.437357, 0.85, 0.95, 0.95], None, 0),
        ("scale_shift_l2", None, [0.917427, 6.932045, 13.632996, 5.529500, 0.1, 0.25, 0.6], 8.939390, -9.899703),
    ],
)
def test_values_of_the_published_scorer(alignment, maximum, expected, scale, shift):
    found = sequence_depth_errors(PREDS, TRUTH, alignment, maximum)
    assert found.num_valid == (19 if maximum else 20)
    tolerance = 2e-5 if alignment == "scale_shift" else 2e-6  # 1,000 steps in float32; pairs in float32
    assert values(found) == pytest.approx(expected, abs=tolerance)
    assert scale is None or float(found.scale) == pytest.approx(scale, abs=tolerance)
    assert float(found.shift) == pytest.approx(shift, abs=tolerance)


def test_the_exact_fit_beats_every_neighbour():
    valid = (TRUTH > 0) & (TRUTH < 70)
    p, t = PREDS[valid], TRUTH[valid]

    def total(scale, shift):
        return float((scale * p + shift - t).abs().sum())

    scale, shift = video_alignment(p, t, "scale_shift_l1")
    best = total(scale, shift)
    assert best < total(*video_alignment(p, t, "scale_shift_l2"))
    for step in (1e-3, 1e-2, 0.1):
        for ds, dt in [(step, 0), (-step, 0), (0, step), (0, -step), (step, -step), (-step, step)]:
            assert best <= total(scale + ds, shift + dt) + 1e-7


SMALL = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("preds", "alignment", "expected"),
    [
        (2 * SMALL, "metric", {"abs_rel": 1, "sq_rel": 2.5, "rmse": 2.738613, "log_rmse": 0.693147, "delta1": 0}),
        (2 * SMALL, "scale", {"abs_rel": 0, "delta1": 1}),
        (0 * SMALL, "metric", {"abs_rel": 1, "rmse": 2.738613, "log_rmse": 12.318446}),
        (0 * SMALL, "scale_shift_l2", {"abs_rel": 0.572917}),
        (-SMALL, "metric", {"abs_rel": 2, "log_rmse": 12.318446}),
        (-SMALL, "scale", {"abs_rel": 1.001, "sq_rel": 2.505002, "rmse": 2.741352}),
        (5000 * SMALL, "metric", {"abs_rel": 4999}),
        (5000 * SMALL, "scale", {"abs_rel": 4.0, "log_rmse": 1.609438}),
        (5000 * SMALL, "median", {"abs_rel": 0}),
        (SMALL / 1000, "metric", {"abs_rel": 0.999}),
        (SMALL / 1000, "scale", {"abs_rel": 0}),
        (torch.full_like(SMALL, 2.0), "metric", {"abs_rel": 0.458333}),
        (torch.full_like(SMALL, 2.0), "scale", {"abs_rel": 0.572917}),
        (torch.full_like(SMALL, 2.0), "scale_shift_l2", {"abs_rel": 0.572917}),
    ],
)
def test_degenerate_predictions(preds, alignment, expected):
    found = sequence_depth_errors(preds, SMALL, alignment, 70.0).errors
    assert {name: float(getattr(found, name)) for name in expected} == pytest.approx(expected, abs=2e-6)


def test_one_wrong_sign_counts_with_the_smallest_depth_in_logarithms():
    preds = SMALL.clone()
    preds[0, 0, 0] = -0.5
    found = sequence_depth_errors(preds, SMALL, "metric", 70.0).errors
    assert [float(x) for x in found[:5]] == pytest.approx([0.375, 0.5625, 0.75, 5.756463, 0.75], abs=1e-6)


def test_a_ratio_of_exactly_the_threshold_does_not_count():
    preds, truth = torch.tensor([[[[1.25, 1, 1.5625, 0.8]]], [[[1, 1.25, 1, 1]]]], dtype=torch.float64)
    found = sequence_depth_errors(preds, truth, "metric").errors
    assert [float(x) for x in found[4:]] == [0, 0.75, 1]
    assert [float(found.abs_rel), float(found.rmse)] == pytest.approx([0.303125, 0.346917], abs=1e-6)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_makes_every_error_nan(bad):
    preds = SMALL.clone()
    preds[0, 1, 1] = bad
    found = sequence_depth_errors(preds, SMALL, "scale")
    assert all(value.isnan() for value in found.errors)
    assert found.num_valid == 4
    truth = SMALL.clone()
    truth[0, 1, 1] = torch.nan  # where nothing is compared, it does not matter
    assert values(sequence_depth_errors(preds, truth, "scale")) == pytest.approx([0, 0, 0, 0, 1, 1, 1], abs=1e-12)


def test_nothing_to_compare():
    found = sequence_depth_errors(SMALL, torch.zeros_like(SMALL), "scale")
    assert (values(found), found.num_valid) == ([0.0] * 7, 0)


def test_resized_as_opencv_does():
    resized = resize_depth(torch.tensor([[[1.0, 2, 4], [8, 16, 32]]]), (4, 5))[0]
    assert resized[0].tolist() == pytest.approx([0.236594, 0.325578, 0.523438, 0.862625, 1.097125], abs=1e-6)
    assert resized[-1].tolist() == pytest.approx([7.899404, 10.870423, 17.476562, 28.801380, 36.630867], abs=1e-5)


def test_bounds_are_strict_and_clips_come_after_the_alignment():
    truth = torch.tensor([[[10.0, 70.0, 69.0]]])
    assert sequence_depth_errors(truth, truth, "metric", 70.0).num_valid == 2
    preds = torch.tensor([[[10.0, 1.0, 100.0]]])
    assert float(sequence_depth_errors(preds, truth, "metric", 70.0, 70.0).errors.rmse) == pytest.approx(0.5**0.5)


def test_bad_arguments(no_type_checks):
    with pytest.raises(ValueError, match="2 predicted depth maps for 1 frames"):
        sequence_depth_errors(SMALL.expand(2, 2, 2), SMALL)
    with pytest.raises(ValueError, match="alignment must be one of metric, scale,"):
        sequence_depth_errors(SMALL, SMALL, "affine")


@pytest.mark.parametrize(
    ("alignment", "expected", "scale"),
    [
        ("metric", [0.519280, 0.564570, 1.104330, 2.832841, 0.007911, 0.022293, 0.245724], 1),
        ("scale", [0.088545, 0.129409, 0.539819, 2.752884, 0.901526, 0.929780, 0.948402], 1.998839),
        ("median", [0.094309, 0.130437, 0.541399, 2.752932, 0.901824, 0.928841, 0.948459], 2.021528),
        ("scale_shift_l2", [0.173881, 0.093950, 0.426252, 0.264651, 0.757123, 0.925580, 0.962621], None),
    ],
)
def test_real_depth(sample_data, alignment, expected, scale):
    folder = sample_data / "rgbd" / "tsdf_fusion_python" / "data"

    def depth(*numbers):
        return torch.stack([read_depth_png(folder / f"frame-{n:06d}.depth.png", scale=0.001) for n in numbers])

    found = sequence_depth_errors(0.5 * depth(0, 10, 20), depth(10, 20, 30), alignment, 70.0)
    assert found.num_valid == 822129
    # Depths of whole millimetres hit the truth exactly, which gives a pixel a weight of up to 1e8: the steps of `scale`
    # depend on the rounding of single pixels, by 5e-4 of the scale between float32 and float64, as do ratios of 1.25.
    assert values(found) == pytest.approx(expected, abs=1e-4 if alignment == "scale" else 2e-5)
    assert scale is None or float(found.scale) == pytest.approx(scale, abs=1e-3 if alignment == "scale" else 1e-6)
