"""Head, losses and schedule of depth probes, against numbers of the published code."""

import pytest
import torch
from published_depth import depth_maps
from torch import nn

from omnistream.tasks.probing.depth_head import DepthHead, bin_centers, depth_from_bins
from omnistream.tasks.probing.depth_losses import depth_loss, gradient_loss, l1_loss, sig_loss
from omnistream.tasks.probing.depth_schedule import DepthSchedule, beta1, lr_factor


def logits(*values):
    return torch.tensor(values).float()[None]


@pytest.mark.parametrize(
    ("values", "depth"),
    [
        (torch.zeros(256), 5.000499),
        (torch.nn.functional.one_hot(torch.tensor(255), 256) * 10.0, 6.404854),
        (torch.nn.functional.one_hot(torch.tensor(0), 256) * 10.0, 3.596146),
        ((torch.arange(256) - 128) / 16, 8.192262),
    ],
)
def test_depth_from_256_bins(values, depth):
    assert depth_from_bins(values[None].float(), bin_centers(256, 0.001, 10.0)).item() == pytest.approx(depth, abs=2e-6)


@pytest.mark.parametrize(
    ("weighting", "spacing", "depth"),
    [
        ("linear", "linear", 7.160778),
        ("softmax", "linear", 8.049166),
        ("sigmoid", "linear", 6.070019),
        ("linear", "log", 5.757733),
    ],
)
def test_weightings_and_spacings(weighting, spacing, depth):
    centers = bin_centers(4, 0.001, 10.0, spacing)
    assert depth_from_bins(logits(-1, 2, 0, 3), centers, weighting).item() == pytest.approx(depth, abs=2e-6)


def test_head_of_the_paper():
    head = DepthHead(1024)
    assert sum(p.numel() for p in head.parameters()) == 264_448
    assert head.linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert (head.linear.bias == 0).all()
    assert set(head.state_dict()) - {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"} == {
        "norm.weight", "norm.bias", "linear.weight", "linear.bias",
    }  # fmt: skip


def test_head_is_batch_norm_then_a_linear_layer_of_every_patch():
    torch.manual_seed(0)
    head, tokens = DepthHead(4, 8, max_depth=5.0), torch.randn(2, 3, 5, 4) * 3 + 1
    head.linear.weight.data.mul_(100)
    flat = tokens.flatten(0, 2)
    normal = (flat - flat.mean(0)) / (flat.var(0, unbiased=False) + 1e-5).sqrt()
    expected = depth_from_bins(normal @ head.linear.weight.flatten(1).T, torch.linspace(0.001, 5.0, 8))
    torch.testing.assert_close(head(tokens), expected.view(2, 3, 5), atol=1e-5, rtol=1e-4)
    head.eval()
    assert not torch.allclose(head(tokens), expected.view(2, 3, 5), atol=1e-2)


@pytest.mark.usefixtures("no_type_checks")
def test_bad_heads_are_refused():
    for options in ({"num_bins": 1}, {"min_depth": 0.0}, {"max_depth": 0.001}):
        with pytest.raises(ValueError, match="at least 2 bins and 0 < min_depth < max_depth"):
            DepthHead(4, **options)
    for options in ({"weighting": "relu"}, {"spacing": "inverse"}):
        with pytest.raises(ValueError, match="weighting must be one of"):
            DepthHead(4, **options)


@pytest.fixture
def maps():
    preds, target = depth_maps()
    return preds, target, target > 0


class TestLosses:
    def test_published_numbers(self, maps):
        assert sig_loss(*maps, warmup=True).item() == pytest.approx(0.007652, abs=1e-6)
        assert sig_loss(*maps).item() == pytest.approx(0.069616, abs=1e-6)
        assert gradient_loss(*maps).item() == pytest.approx(0.258794, abs=1e-6)
        assert gradient_loss(*maps, log=False).item() == pytest.approx(0.678624, abs=1e-6)
        assert l1_loss(*maps).item() == pytest.approx(0.165691, abs=1e-6)

    def test_by_name(self, maps):
        preds, target, valid = maps
        assert depth_loss("sig", preds, target) == sig_loss(preds, target, valid)
        assert depth_loss("sig", preds, target, warmup=True) == sig_loss(preds, target, valid, warmup=True)
        assert depth_loss("gradient_log", preds, target) == gradient_loss(preds, target, valid)
        assert depth_loss("gradient", preds, target) == gradient_loss(preds, target, valid, log=False)
        assert depth_loss("l1", preds, target) == l1_loss(preds, target, valid)
        with pytest.raises(ValueError, match="losses are sig, gradient_log, gradient and l1; got 'l2'"):
            depth_loss("l2", preds, target)

    @pytest.mark.parametrize("name", ["sig", "gradient_log", "gradient", "l1"])
    def test_a_batch_without_depth_changes_nothing(self, name):
        preds = torch.ones(1, 8, 8, requires_grad=True)
        depth_loss(name, preds, torch.zeros(1, 8, 8)).backward()
        assert (preds.grad == 0).all()

    def test_a_perfect_prediction_has_a_finite_gradient(self):
        preds = torch.full((1, 4, 4), 2.0, requires_grad=True)
        sig_loss(preds, preds.detach(), torch.ones(1, 4, 4, dtype=torch.bool)).backward()
        assert preds.grad.isfinite().all()


LR = {
    0: 1.0e-6, 1: 1.078125e-6, 100: 8.812369e-6, 6400: 4.675064e-4, 12799: 7.509768e-4, 12800: 7.499746e-4,
    19200: 4.999791e-4, 25600: 2.499946e-4, 38399: 4.0e-8,
}  # fmt: skip
BETA1 = {0: 0, 1: 0, 100: 0, 6400: 0, 12799: 0, 12800: 0.85, 19200: 0.864645, 25600: 0.90, 38399: 0.95}


def test_published_schedule():
    for step, lr in LR.items():
        assert 1e-3 * lr_factor(step, 38400, 12800) == pytest.approx(lr, rel=1e-6)
        assert beta1(step, 38400, 12800) == pytest.approx(BETA1[step], abs=5e-7)


@pytest.mark.parametrize("schedule_beta1", [True, False])
def test_scheduler_sets_every_group_at_every_step(schedule_beta1):
    heads = [nn.Linear(1, 1), nn.Linear(1, 1)]
    groups = [{"params": list(head.parameters()), "lr": lr} for head, lr in zip(heads, (1e-3, 3e-4), strict=True)]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    scheduler = DepthSchedule(optimizer, 9, 3, schedule_beta1)
    for step in range(9):
        for group, lr in zip(optimizer.param_groups, (1e-3, 3e-4), strict=True):
            assert group["lr"] == pytest.approx(lr * lr_factor(step, 9, 3))
            assert group["betas"] == ((beta1(step, 9, 3) if schedule_beta1 else 0.9), 0.99)
        for head in heads:
            head(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        scheduler.step()
    assert all(parameter.isfinite().all() for head in heads for parameter in head.parameters())


def test_scheduler_resumes():
    def make():
        optimizer = torch.optim.AdamW(nn.Linear(1, 1).parameters(), lr=1e-3)
        return optimizer, DepthSchedule(optimizer, 12, 4)

    (first, schedule), (second, again) = make(), make()
    for _ in range(7):
        first.step()
        schedule.step()
    second.load_state_dict(first.state_dict())
    again.load_state_dict(schedule.state_dict())
    for one in (schedule, again):
        one.step()
    for group in (first.param_groups[0], second.param_groups[0]):
        assert group["lr"] == pytest.approx(1e-3 * lr_factor(8, 12, 4))
        assert group["betas"][0] == beta1(8, 12, 4)
