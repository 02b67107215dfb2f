import math

import numpy as np
import pytest
import torch
from PIL import Image
from published_depth import depth_maps

from omnistream.metrics import (
    AbsRel,
    ConstantAbsRel,
    ConstantDepthRMSE,
    DeltaAccuracy,
    DepthRMSE,
    Log10Error,
    LogRMSE,
    SILog,
    SqRel,
    abs_rel,
    align_depth,
    constant_abs_rel,
    constant_depth_rmse,
    delta_accuracy,
    depth_rmse,
    log10_error,
    log_rmse,
    silog,
    sq_rel,
)


def make(batch: int = 3, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(batch, 2, 6, 7, generator=generator) * 5 + 0.5
    preds = target * (0.7 + 0.6 * torch.rand(target.shape, generator=generator))
    return preds, target, torch.rand(target.shape, generator=generator) > 0.3


def test_closed_forms():
    target = torch.tensor([[1.0, 2.0, 4.0, 9.0]])
    preds = torch.tensor([[1.2, 2.0, 3.0, 100.0]])
    valid = torch.tensor([[True, True, True, False]])
    assert abs_rel(preds, target, valid) == pytest.approx((0.2 + 0 + 0.25) / 3)
    assert depth_rmse(preds, target, valid) == pytest.approx(math.sqrt((0.04 + 0 + 1) / 3))
    assert delta_accuracy(preds, target, valid) == pytest.approx(2 / 3)
    assert delta_accuracy(preds, target, valid, threshold=1.25**2) == 1


def test_delta_counts_no_negative_prediction():
    assert delta_accuracy(torch.tensor([[-1.0, 0.0]]), torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool)) == 0


@pytest.mark.parametrize("alignment", ["median", "scale", "scale_shift"])
def test_alignment_undoes_what_it_models(alignment):
    preds, target, valid = make()
    target = preds * torch.tensor([0.5, 1.0, 3.0])[:, None, None, None]
    if alignment == "scale_shift":
        target = target + torch.tensor([0.1, 0.0, 2.0])[:, None, None, None]
    torch.testing.assert_close(align_depth(preds, target, valid, alignment), target)


def test_least_squares_agrees_with_numpy():
    preds, target, valid = make(batch=1)
    p, t = preds[valid].double().numpy(), target[valid].double().numpy()
    (scale, shift), *_ = np.linalg.lstsq(np.stack([p, np.ones_like(p)], 1), t, rcond=None)
    torch.testing.assert_close(
        align_depth(preds, target, valid, "scale_shift"), preds * scale + shift, check_dtype=False
    )
    (factor,), *_ = np.linalg.lstsq(p[:, None], t, rcond=None)
    torch.testing.assert_close(align_depth(preds, target, valid, "scale"), preds * factor, check_dtype=False)


def test_median_alignment_is_per_row_and_ignores_invalid_pixels():
    preds = torch.tensor([[1.0, 2.0, 3.0, 50.0], [10.0, 10.0, 10.0, 10.0]])
    target = torch.tensor([[2.0, 4.0, 6.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    valid = torch.tensor([[True, True, True, False], [True] * 4])
    aligned = align_depth(preds, target, valid, "median")
    assert aligned.tolist() == [[2, 4, 6, 100], [1, 1, 1, 1]]


@pytest.mark.usefixtures("no_type_checks")
def test_unknown_choices_are_refused():
    preds, target, valid = make()
    with pytest.raises(ValueError, match="alignment"):
        align_depth(preds, target, valid, "mean")
    with pytest.raises(ValueError, match="alignment"):
        AbsRel(alignment="mean")
    with pytest.raises(ValueError, match="average"):
        AbsRel(average="frame")
    with pytest.raises(ValueError, match="threshold"):
        DeltaAccuracy(threshold=1.0)


METRICS = [
    pytest.param(AbsRel, abs_rel, id="abs_rel"),
    pytest.param(DepthRMSE, depth_rmse, id="rmse"),
    pytest.param(DeltaAccuracy, delta_accuracy, id="delta"),
    pytest.param(SqRel, sq_rel, id="sq_rel"),
    pytest.param(LogRMSE, log_rmse, id="log_rmse"),
    pytest.param(Log10Error, log10_error, id="log10"),
    pytest.param(SILog, silog, id="silog"),
]


@pytest.mark.parametrize("alignment", ["none", "median", "scale", "scale_shift"])
@pytest.mark.parametrize(("metric", "function"), METRICS)
class TestModules:
    def test_bad_truth_is_masked(self, metric, function, alignment):
        preds, target, valid = make()
        module = metric(alignment=alignment)
        bad = target.clone()
        bad[0, 0, 0, :4] = torch.tensor([torch.nan, torch.inf, 0.0, -1.0])
        usable = valid.clone()
        usable[0, 0, 0, :4] = False
        module.update(preds, bad, torch.ones_like(valid) & (valid | (bad != target)))
        torch.testing.assert_close(module.compute(), function(preds, target, usable, alignment))

    def test_clip_average(self, metric, function, alignment):
        preds, target, valid = make(batch=3)
        valid[1] = False
        module = metric(alignment=alignment, average="clip")
        module.update(preds, target, valid)
        rows = [function(preds[i : i + 1], target[i : i + 1], valid[i : i + 1], alignment) for i in (0, 2)]
        torch.testing.assert_close(module.compute(), torch.stack(rows).mean())


def test_no_constant_is_better_than_the_best():
    depth = torch.rand(1, 500).double() * 9 + 0.5
    valid = torch.ones_like(depth, dtype=torch.bool)
    best = constant_abs_rel(depth, valid)
    tried = [float(((c - depth).abs() / depth).mean()) for c in torch.linspace(0.3, 10, 2000).double()]
    assert best <= min(tried) + 1e-12
    assert best == pytest.approx(min(tried), abs=1e-3)
    assert constant_abs_rel(torch.tensor([[1.0, 2.0, 2.0]]), valid[:, :3]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_counted_constant_is_close_to_the_exact_one(scale):
    depth = scale * torch.tensor([[0.5, 0.7, 1.0, 1.3, 4.0, 4.01, 20.0, torch.nan, 0.0, torch.inf]])
    valid = torch.ones_like(depth, dtype=torch.bool)
    metric = ConstantAbsRel()
    metric.update(depth, valid)
    assert metric.compute() == pytest.approx(float(constant_abs_rel(depth[:, :7], valid[:, :7])), abs=2e-3)
    metric.reset()
    metric.update(torch.full((2, 3), scale * 2.7), valid[:, :6].reshape(2, 3))
    assert metric.compute() == pytest.approx(0, abs=1e-6)


def stored_maps(folder, names, pattern):
    maps = [np.asarray(Image.open(folder / pattern.format(name))).astype("float32") / 1000 for name in names]
    return torch.from_numpy(np.stack(maps))


@pytest.mark.parametrize(
    ("folder", "pattern", "truth", "other", "count", "rel", "delta"),
    [
        ("tsdf_fusion_python/data", "frame-{:06d}.depth.png", (10, 20, 30), (0, 10, 20), 822129, 0.519280, 0.007911),
        (
            "deep_video_mvs/hololens-dataset/000/depth", "{:05d}.png", (13, 23, 33), (10, 20, 30), 383797, 0.637524,
            0.004099,
        ),
    ],
)  # fmt: skip
def test_real_depth(sample_data, folder, pattern, truth, other, count, rel, delta):
    """Halved depth of an earlier frame against the truth, pooled; numbers recorded when the data were checked in."""
    folder = sample_data / "rgbd" / folder
    target, preds = stored_maps(folder, truth, pattern), stored_maps(folder, other, pattern) * 0.5
    valid = target <= 70
    first, second = AbsRel(), DeltaAccuracy()
    first.update(preds, target, valid)
    second.update(preds, target, valid)
    assert first.count == count
    assert first.compute() == pytest.approx(rel, abs=5e-7)
    assert second.compute() == pytest.approx(delta, abs=5e-7)


PUBLISHED = [
    (abs_rel, 0.064499), (depth_rmse, 0.194625), (log10_error, 0.027475), (log_rmse, 0.071747), (silog, 6.897023),
    (sq_rel, 0.013854), (delta_accuracy, 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("function", "value"), PUBLISHED, ids=lambda one: getattr(one, "__name__", ""))
def test_published_values(function, value):
    preds, target = depth_maps()
    assert int((target > 0).sum()) == 137
    assert float(target.sum()) == pytest.approx(353.4, abs=1e-3)
    assert float(preds.sum()) == pytest.approx(420.041077, abs=1e-3)
    assert function(preds, target, target > 0) == pytest.approx(value, abs=1e-6)


def test_published_mean_over_images():
    preds, target = depth_maps()
    metric = DepthRMSE(average="clip")
    metric.update(preds, target)
    assert metric.compute() == pytest.approx(0.193506, abs=1e-6)
    # Two values a and b: the standard error of their mean is |a - b| / 2.
    assert metric.standard_error == pytest.approx((0.212981 - 0.174031) / 2, abs=1e-6)
    assert depth_rmse(preds[:1], target[:1], target[:1] > 0) == pytest.approx(0.174031, abs=1e-6)


def test_published_alignment():
    preds, target = (maps[:1] for maps in depth_maps())
    aligned = align_depth(preds, target, target > 0, "scale_shift")
    torch.testing.assert_close(aligned, 0.944613 * preds + 0.084620, atol=3e-6, rtol=0)


def test_one_image_has_no_standard_error():
    metric = DepthRMSE(average="clip")
    metric.update(*(maps[:1] for maps in depth_maps()))
    metric.compute()
    assert metric.standard_error is None


def test_silog_ignores_a_common_scale():
    preds, target, valid = make()
    assert silog(3 * preds, target, valid) == pytest.approx(float(silog(preds, target, valid)), rel=1e-5)
    assert silog(2 * target, target, valid) == pytest.approx(0, abs=1e-4)


def test_no_constant_has_a_smaller_rmse_over_images():
    target = (
        torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3, 9, 2])[:, None, None]
    )
    valid = target > 0.2
    best = constant_depth_rmse(torch.zeros_like(target), target, valid)

    def rmse(constant):
        metric = DepthRMSE(average="clip")
        metric.update(torch.full_like(target, constant), target, valid)
        return float(metric.compute())

    tried = [rmse(constant) for constant in np.linspace(0.1, 6, 600)]
    assert best == pytest.approx(min(tried), abs=1e-4)
    assert best <= min(tried) + 1e-6
    metric = ConstantDepthRMSE()
    for row in range(4):
        metric.update(target[row : row + 1] * 0, target[row : row + 1], valid[row : row + 1])
    assert metric.compute() == pytest.approx(float(best), abs=1e-5)


def test_images_without_depth_do_not_count_for_the_constant():
    target = torch.tensor([[2.0, 4.0], [0.0, 0.0]])
    assert constant_depth_rmse(target, target) == pytest.approx(1.0)
    assert constant_depth_rmse(target[1:], target[1:]).isnan()
