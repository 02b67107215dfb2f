import pytest
import torch

from omnistream.backbone import create_model
from omnistream.data import Source
from omnistream.data.world import WorldScenes
from omnistream.report.held_out import HeldOutFigures, best_constant_abs_rel, train_heads
from omnistream.tasks.geometry import GeometryModule
from omnistream.tasks.optimization import OptimizerConfig


def test_best_constant_is_the_best_of_all_constants():
    torch.manual_seed(1)
    depth = torch.rand(500).double() * 9 + 0.5
    best = best_constant_abs_rel(depth)
    tried = [float(((c - depth).abs() / depth).mean()) for c in torch.linspace(0.3, 10, 2000).double()]
    assert best <= min(tried) + 1e-12
    assert best == pytest.approx(min(tried), abs=1e-3)
    assert best_constant_abs_rel(torch.tensor([1.0, 2.0, 2.0])) == pytest.approx(1 / 3)


def test_baseline_heads_learn_and_leave_backbone_and_task_alone():
    backbone = create_model("vit_nano").requires_grad_(False).eval()
    task = GeometryModule(features=16, out_channels=(8, 8, 16, 16), hidden=8)
    task.build(backbone)
    before = {k: v.clone() for k, v in [*backbone.state_dict().items(), *task.state_dict().items()]}
    source = Source(WorldScenes(2, num_frames=2, size=(32, 32)), None, 2)
    config = OptimizerConfig(lr=3e-3, warmup_steps=2)
    batch = WorldScenes.collate([source.train[i] for i in range(2)])

    def loss(heads):
        with torch.no_grad():
            return float(heads.compute(backbone, batch, 0).terms["depth_l1"])

    start = train_heads(task, backbone, source, config, 1, torch.device("cpu"), seed=0)
    end = train_heads(task, backbone, source, config, 40, torch.device("cpu"), seed=0)
    assert loss(end) < 0.9 * loss(start)
    after = dict([*backbone.state_dict().items(), *task.state_dict().items()])
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_refuses_half_an_action_probe():
    with pytest.raises(ValueError, match="both actions_train and actions_test"):
        HeldOutFigures(actions_train=WorldScenes(1))
