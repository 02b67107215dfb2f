import math
from dataclasses import fields, replace

import pytest
import torch

from omnistream.tasks.geometry import GeometryLossConfig, GeometryPrediction, geometry_loss, geometry_targets
from omnistream.tasks.geometry.losses import (
    below_quantile,
    camera_loss,
    depth_gradient,
    depth_loss,
    masked_l1,
    ray_loss,
)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


PRED = tensor([[1, 1.5, 2, 2.5], [1, 1, 2, 3], [2, 2, 2, 2], [0.5, 1, 1.5, 2]])
TRUTH = tensor([[1, 1, 2, 2], [1, 1.5, 2, 2], [2, 2.5, 2, 0], [1, 1, 1, 1]])
CONFIDENCE = tensor([[1.5, 2, 1, 3], [1, 1.2, 2, 1], [2, 1, 1, 5], [1, 1.1, 1.3, 1.7]])
VALID = TRUTH > 0
LITERAL = GeometryLossConfig()


def close(value, expected):
    # 2e-6: counts are averaged in float32, and the recorded numbers have six digits.
    assert value.item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("anchor", "expected"), [("right_bottom", 1.237945), ("left_top", 1.371278)])
def test_depth_loss(anchor, expected):
    close(depth_loss(PRED, CONFIDENCE, TRUTH, VALID, GeometryLossConfig(gradient_anchor=anchor)), expected)


def test_depth_loss_by_hand():
    """The sums behind the published number, with plain loops over pixels and pairs."""
    total = 0.0
    for i in range(4):
        for j in range(4):
            if not VALID[i, j]:
                continue
            c = CONFIDENCE[i, j].item()
            total += c * abs(PRED[i, j] - TRUTH[i, j]).item() - 0.2 * math.log(c)
            for k, m in ((i + 1, j), (i, j + 1)):
                if k < 4 and m < 4 and VALID[k, m]:
                    change = (PRED - TRUTH)[k, m] - (PRED - TRUTH)[i, j]
                    total += CONFIDENCE[k, m].item() * change.abs().item()
    assert total == pytest.approx(18.569171, abs=1e-6)
    close(depth_loss(PRED, CONFIDENCE, TRUTH, VALID, LITERAL), total / 15)


def test_confidence_term_without_gradient():
    close(depth_loss(PRED, CONFIDENCE, TRUTH, VALID, GeometryLossConfig(gradient_weight=0)), 0.434611)


@pytest.mark.parametrize(("scales", "expected"), [(1, 0.6), (4, 0.15)])
def test_gradient_without_confidence(scales, expected):
    close(depth_gradient(PRED - TRUTH, VALID, scales=scales), expected)


@pytest.mark.parametrize(("anchor", "expected"), [("right_bottom", 8.65 + 3.40), ("left_top", 8.55 + 5.50)])
def test_gradient_with_confidence(anchor, expected):
    close(depth_gradient(PRED - TRUTH, VALID, CONFIDENCE, anchor=anchor), expected / 15)


@pytest.mark.parametrize(
    ("row_invalid", "per_scale"), [(False, [0.2625, 0.45, 0.6, 0.0]), (True, [0.246429, 0.45, 0.6, 0.0])]
)
def test_gradient_of_a_ramp(row_invalid, per_scale):
    error = 0.1 * torch.arange(8).double()[:, None] + 0.2 * torch.arange(8).double()
    valid = torch.ones(8, 8, dtype=torch.bool)
    if row_invalid:
        valid[3] = False
    for scales in range(1, 5):
        close(depth_gradient(error, valid, scales=scales), sum(per_scale[:scales]) / scales)


def test_camera_loss():
    pose = tensor([0.1, 0.2, 0.3, 0, 0, 0, 1, 0.7, 0.8]).expand(1, 2, 9)
    truth = tensor([0, 0, 0, 0.1, 0, 0, 0.9, 0.75, 0.85]).expand(1, 2, 9)
    frames = torch.tensor([[True, False]])
    close(camera_loss(pose, truth, frames, LITERAL), 0.9)
    close(camera_loss(pose, truth, frames, GeometryLossConfig(camera_weights="vggt")), 5 * 0.275)
    close(camera_loss(pose, truth, torch.zeros(1, 2, dtype=torch.bool), LITERAL), 0)


def test_opposite_quaternions():
    pose = tensor([0, 0, 0, 0.6, 0, 0, -0.8, 1, 1]).expand(1, 1, 9)
    truth = tensor([0, 0, 0, -0.6, 0, 0, 0.8, 1, 1]).expand(1, 1, 9)
    frames = torch.ones(1, 1, dtype=torch.bool)
    close(camera_loss(pose, truth, frames, LITERAL), 2.8)
    close(camera_loss(pose, truth, frames, GeometryLossConfig(sign_invariant_quaternion=True)), 0)


def test_quantile_filter():
    values, valid = torch.arange(2000).double() / 100, torch.ones(2000, dtype=torch.bool)
    kept = below_quantile(values, valid, 0.98)
    assert (kept.sum(), values[kept].max().item()) == (1959, 19.58)
    assert below_quantile((10 * values).clamp(max=100), valid, 0.98).all()  # half would go: too few are left
    assert below_quantile(values[:1000], valid[:1000], 0.98).all()
    valid[::2] = False
    kept = below_quantile(values, valid, 0.98, least=100)
    assert torch.equal(kept, valid & (values < values[valid][979]))  # of 1000 valid ones; the others do not count


def test_quantile_filter_in_the_depth_loss():
    error = torch.arange(2000).double().reshape(40, 50) / 100
    one, valid = torch.ones(40, 50).double(), torch.ones(40, 50, dtype=torch.bool)
    config = GeometryLossConfig(valid_quantile=0.98, gradient_weight=0)
    close(depth_loss(error, one, 0 * one, valid, config), sum(range(1959)) / 100 / 1959)
    close(depth_loss(error, one, 0 * one, valid, replace(config, valid_quantile=None)), 19.99 / 2)


@pytest.mark.parametrize(("error", "best", "loss"), [(0.01, 20, -0.399146), (0.05, 4, -0.077259), (0.5, 1, 0.5)])
def test_best_confidence(error, best, loss):
    valid, truth = torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 1).double()

    def value(confidence):
        return depth_loss(truth + error, truth * confidence, truth, valid, LITERAL).item()

    assert value(best) == pytest.approx(loss, abs=1e-6)
    for other in (best * 1.05, best * 2, max(1, best * 0.95), max(1, best / 2)):
        assert value(other) >= value(best) - 1e-12


def test_rays_are_summed_over_channels_and_averaged_over_pixels():
    truth = torch.zeros(2, 2, 3, 4, 6)
    rays = truth.clone()
    rays[0, 0, ..., 0], rays[0, 1, 0, 0] = 1.0, 9.0  # the second frame does not count
    frames = torch.tensor([[True, False], [True, True]])
    confidence = torch.full(truth.shape[:-1], 2.0)
    close(ray_loss(rays, confidence, truth, frames, LITERAL), 1 / 3)
    weighted = ray_loss(rays, confidence, truth, frames, GeometryLossConfig(ray_confidence=True))
    close(weighted, 2 / 3 - 0.2 * math.log(2))


def test_errors_are_limited_but_not_a_number_is_noticed():
    prediction, mask = torch.tensor([[1e30, 0.0], [torch.inf, 0.0]]), torch.tensor([True, True])
    close(masked_l1(prediction, torch.zeros(2, 2), mask), 100)
    prediction[0, 0] = torch.nan
    assert torch.isnan(masked_l1(prediction, torch.zeros(2, 2), mask))


@pytest.fixture
def perfect(clip):
    targets = geometry_targets(clip)
    parts = dict(depth=targets.depth, rays=targets.rays, pose=targets.pose)
    one = torch.ones_like(targets.depth)
    return GeometryPrediction(**parts, depth_confidence=one, ray_confidence=one), targets


def test_truth_has_no_loss(perfect):
    total, terms = geometry_loss(*perfect, LITERAL)
    assert total.item() == pytest.approx(0, abs=1e-12)
    assert set(terms) == {"depth", "ray", "points", "camera", "depth_l1", "depth_gradient", "confidence"}
    assert terms["confidence"] == pytest.approx(1)


def spoilt(perfect):
    prediction, targets = perfect
    noisy = {f.name: getattr(prediction, f.name) * 1.1 + 0.1 for f in fields(prediction)}
    return GeometryPrediction(**{k: v.requires_grad_() for k, v in noisy.items()}), targets


def test_weights_and_frame_reduction(perfect):
    prediction, targets = spoilt(perfect)
    total, terms = geometry_loss(prediction, targets, LITERAL)
    four = ("depth", "ray", "points", "camera")
    torch.testing.assert_close(total.detach(), sum(terms[name] for name in four))
    weights = dict(depth_weight=1.0, ray_weight=2.0, points_weight=0.0, camera_weight=5.0)
    weighted, same = geometry_loss(prediction, targets, GeometryLossConfig(**weights))
    torch.testing.assert_close(
        weighted.detach(), terms["depth"] + 2 * terms["ray"] + 5 * terms["camera"], rtol=1e-6, atol=0
    )
    torch.testing.assert_close(same["points"], terms["points"])
    summed, _ = geometry_loss(prediction, targets, GeometryLossConfig(frame_reduction="sum"))
    torch.testing.assert_close(summed, 3 * total)


def test_invalid_pixels_and_frames_have_no_gradient(perfect):
    prediction, targets = spoilt(perfect)
    targets.valid[0, 1, :4], targets.ray_valid[1, 2], targets.pose_valid[0, 0] = False, False, False
    total, _ = geometry_loss(prediction, targets, GeometryLossConfig(points_weight=0.0, gradient_weight=0.0))
    total.backward()
    assert not prediction.depth.grad[~targets.valid].any()
    assert prediction.depth.grad[targets.valid].all()
    assert not prediction.rays.grad[~targets.ray_valid].any()
    assert not prediction.pose.grad[~targets.pose_valid].any()
    assert prediction.pose.grad[targets.pose_valid].all()


def test_too_few_pixels_train_nothing_but_keep_the_graph(perfect):
    prediction, targets = spoilt(perfect)
    targets.valid[:] = False
    targets.valid[0, 0, 0, :20] = True
    config = GeometryLossConfig(ray_weight=0.0, camera_weight=0.0)
    total, _ = geometry_loss(prediction, targets, config)
    total.backward()
    assert total == 0
    for field in fields(prediction):
        grad = getattr(prediction, field.name).grad
        assert field.name == "ray_confidence" or (grad is not None and not grad.any())
    assert geometry_loss(prediction, targets, replace(config, min_valid_pixels=20))[0] > 0


class Ranks:
    """Collectives of processes that run one after the other: what each would contribute is recorded first."""

    def __init__(self, monkeypatch, count):
        self.sent = [[] for _ in range(count)]
        self.rank, self.replay = 0, None
        monkeypatch.setattr("omnistream.distributed.all_reduce", self.all_reduce)
        monkeypatch.setattr("omnistream.tasks.geometry.losses.all_reduce", self.all_reduce)
        monkeypatch.setattr("omnistream.distributed.world_size", lambda: count)

    def all_reduce(self, value, op="sum"):
        if self.replay is None:
            self.sent[self.rank].append(value.detach().clone())
            return value.detach().clone()
        return next(self.replay)

    def run(self, function):
        for rank in range(len(self.sent)):
            self.rank = rank
            function(rank)
        totals = [torch.stack(values).sum(0) for values in zip(*self.sent, strict=True)]
        results = []
        for rank in range(len(self.sent)):
            self.replay = iter(totals)
            results.append(function(rank))
        return results


@pytest.mark.parametrize(
    "config",
    [
        LITERAL,
        GeometryLossConfig(grad_scales=4, frame_reduction="sum", camera_weights="vggt", ray_confidence=True),
        GeometryLossConfig(min_valid_pixels=500),  # reached by both processes together, by neither alone
    ],
)
def test_uneven_processes_equal_one(make_scene_clip, monkeypatch, config):
    targets = geometry_targets(make_scene_clip(batch=3, dtype=torch.float64))
    targets.valid &= torch.rand(targets.valid.shape) < torch.tensor([0.1, 0.3, 0.05])[:, None, None, None]
    targets.ray_valid[0, 1], targets.pose_valid[2] = False, False
    one = torch.ones_like(targets.depth)
    perfect = dict(depth=targets.depth, rays=targets.rays, pose=targets.pose)
    perfect |= dict(depth_confidence=one, ray_confidence=one)
    whole = {k: (v * 1.1 + 0.1).requires_grad_() for k, v in perfect.items()}
    expected, terms = geometry_loss(GeometryPrediction(**whole), targets, config)
    grads = torch.autograd.grad(expected, list(whole.values()), allow_unused=True)

    def local(rank):
        rows = slice(0, 1) if rank == 0 else slice(1, 3)
        part = type(targets)(**{f.name: getattr(targets, f.name)[rows] for f in fields(targets)})
        return geometry_loss(GeometryPrediction(**{k: v[rows] for k, v in whole.items()}), part, config)

    results = Ranks(monkeypatch, 2).run(local)
    total = (results[0][0] + results[1][0]) / 2
    torch.testing.assert_close(total, expected)
    for name, value in terms.items():
        torch.testing.assert_close((results[0][1][name] + results[1][1][name]) / 2, value)
    for actual, grad in zip(torch.autograd.grad(total, list(whole.values()), allow_unused=True), grads, strict=True):
        torch.testing.assert_close(actual, grad)
    assert terms["depth"] != 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (dict(alpha=-0.1), "must not be negative"),
        (dict(ray_weight=-1.0), "must not be negative"),
        (dict(grad_scales=0), "grad_scales and error_limit must be positive"),
        (dict(error_limit=0.0), "grad_scales and error_limit must be positive"),
        (dict(valid_quantile=1.0), r"valid_quantile must be in \(0, 1\)"),
        (dict(frame_reduction="median"), "frame_reduction must be one of"),
        (dict(camera_weights="da3"), "camera_weights must be one of"),
        (dict(gradient_anchor="centre"), "gradient_anchor must be one of"),
    ],
)
@pytest.mark.usefixtures("no_type_checks")
def test_bad_settings_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        GeometryLossConfig(**bad)
