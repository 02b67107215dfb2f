import pytest
from torch import nn

from omnistream.tasks.optimization import OptimizerConfig, build_optimizer


class _Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(2, 3), nn.Linear(3, 1)


def test_one_rate_for_all_parameters_by_default():
    model = _Model()
    groups = build_optimizer(model, OptimizerConfig(lr=0.1), 10)["optimizer"].param_groups
    assert [len(group["params"]) for group in groups] == [4]


def test_backbone_follows_the_same_schedule_at_its_own_rate():
    model = _Model()
    made = build_optimizer(model, OptimizerConfig(lr=0.1, backbone_lr=0.025, warmup_steps=4, final_lr=0.01), 12)
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    heads, backbone = optimizer.param_groups
    assert {id(p) for p in heads["params"]} == {id(p) for p in model.head.parameters()}
    assert {id(p) for p in backbone["params"]} == {id(p) for p in model.backbone.parameters()}
    seen = []
    for _ in range(12):
        seen.append((heads["lr"], backbone["lr"]))
        optimizer.step()
        schedule.step()
    assert seen[4] == pytest.approx((0.1, 0.025))
    assert seen[-1] == pytest.approx((0.01, 0.0025))  # both end at a tenth of their peak
    assert all(slow == pytest.approx(fast / 4) for fast, slow in seen)


def test_heads_alone_and_frozen_backbones_leave_no_empty_group():
    config = OptimizerConfig(lr=0.1, backbone_lr=0.025)
    frozen = _Model()
    frozen.backbone.requires_grad_(False)
    for module in (nn.Linear(2, 2), frozen):
        groups = build_optimizer(module, config, 5)["optimizer"].param_groups
        assert [(len(group["params"]), group["initial_lr"]) for group in groups] == [(2, 0.1)]


def test_rates_must_be_positive():
    with pytest.raises(ValueError, match="backbone_lr must be positive"):
        OptimizerConfig(backbone_lr=0.0)
