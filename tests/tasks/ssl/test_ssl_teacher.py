import copy

import pytest
import torch
from ssl_oracle import close
from torch import nn

from omnistream.backbone import create_model
from omnistream.tasks.ssl.heads import ProjectionHead
from omnistream.tasks.ssl.teacher import EMATeacher, GramTeacher, copy_parameters, update_average


class Vector(nn.Module):
    def __init__(self, *values: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(values))
        self.register_buffer("count", torch.tensor(len(values)))


def test_recorded_averages():
    teacher, student = Vector(1.0, -2.0, 0.5), Vector(3.0, 0.0, 0.25)
    student.count += 5
    for expected in (
        [1.012, -1.988, 0.4985],
        [1.023928, -1.976072, 0.497009],
        [1.035784, -1.964216, 0.495527],
    ):
        update_average(teacher, student, 0.994)
        close(teacher.weight, expected, 1e-6)
    assert teacher.count == 3


def test_a_copy_clears_what_is_not_finite():
    teacher = Vector(float("nan"), float("inf"))
    copy_parameters(teacher, Vector(1.0, 2.0))
    assert teacher.weight.tolist() == [1.0, 2.0]


def test_different_sharding_is_refused():
    with pytest.raises(ValueError, match="sharded alike"):
        update_average(Vector(1.0, 2.0), Vector(1.0), 0.9)


def test_teacher_is_a_separate_frozen_copy_in_eval_mode():
    backbone, heads = create_model("vit_nano"), [ProjectionHead(64, num_prototypes=8, hidden_dim=8) for _ in range(2)]
    teacher = EMATeacher(backbone, *heads)
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    student = nn.ModuleList([backbone, *heads])
    storages = {p.data_ptr() for p in student.parameters()}
    assert not any(p.data_ptr() in storages for p in teacher.parameters())
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), student.parameters(), strict=True))
    assert all(p.requires_grad for p in student.parameters())


def test_gram_teacher_is_spatial_until_updated_and_a_checkpoint_restores_that():
    backbone = create_model("vit_nano")
    gram = GramTeacher(backbone)
    assert (backbone.rope_layout, gram.backbone.rope_layout) == ("rotation", "spatial")
    fresh, images = copy.deepcopy(gram), torch.randn(2, 1, 3, 16, 16)
    spatial = create_model("vit_nano", rope_layout="spatial")
    spatial.load_state_dict(backbone.state_dict())
    assert torch.equal(gram(images).last, spatial.eval()(images).last)

    ema = create_model("vit_nano").eval()
    gram.update(ema)
    assert gram.backbone.rope_layout == "rotation"
    assert torch.equal(gram(images).last, ema(images).last)
    assert gram.num_updates == 1

    untouched = copy.deepcopy(fresh.state_dict())
    fresh.load_state_dict(gram.state_dict())
    assert fresh.backbone.rope_layout == "rotation"
    fresh.load_state_dict(untouched)
    assert fresh.backbone.rope_layout == "spatial"
