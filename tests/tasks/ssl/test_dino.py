import math

import pytest
import torch
from ssl_oracle import SINKHORN, TEMPERATURE, close, sines

from omnistream.tasks.ssl.dino import dino_loss, pair_shares, pool_frames
from omnistream.tasks.ssl.sinkhorn import sinkhorn_knopp

TARGETS = SINKHORN.view(2, 2, 6)


def test_recorded_values_and_gradient():
    student = sines(2, 2, 6, a=0.3, b=1.0).requires_grad_()
    close(dino_loss(student, TARGETS), 5.179692)
    loss = dino_loss(student, TARGETS, ignore_diagonal=True)
    close(loss, 3.915429)
    loss.backward()
    close(student.grad[0, 0], [-2.306330, 0.656474, 0.941120, 0.552434, 0.139254, 0.017048])
    close(dino_loss(sines(3, 2, 6, a=0.5, b=0.2), TARGETS), 8.278977)
    close(dino_loss(sines(2, 2, 6, a=0.5, b=0.2), TARGETS), 7.182534)


def test_global_and_local_terms_count_by_their_pairs():
    assert pair_shares(2, 3) == (0.25, 0.75)
    assert pair_shares(2, 2) == pytest.approx((1 / 3, 2 / 3))
    assert pair_shares(2, 0) == (1.0, 0.0)
    shares = pair_shares(2, 3)
    assert shares[0] * 3.915429 + shares[1] * 8.278977 == pytest.approx(7.188090, abs=1e-5)


def test_a_uniform_student_and_teacher_score_the_entropy():
    close(dino_loss(torch.zeros(2, 2, 6), torch.full((2, 2, 6), 1 / 6)), math.log(6))


def test_invariant_to_sample_order():
    student, order = sines(2, 4, 6, a=0.3, b=1.0), torch.tensor([3, 1, 0, 2])
    targets = torch.softmax(sines(2, 4, 6, a=1.1, b=0.4), -1)
    close(dino_loss(student[:, order], targets[:, order]), dino_loss(student, targets), 1e-6)


def test_frames_are_averaged_before_the_head():
    pooled = pool_frames(sines(2, 3, 4, a=0.35, b=0.15))
    close(pooled[0], [0.4465, 0.4227, 0.3475, 0.2302], 5e-5)
    close(pooled[1], [-0.2270, -0.0814, 0.0742, 0.2207], 5e-5)

    def pooled_views(a: float, b: float) -> torch.Tensor:
        return pool_frames(sines(4, 3, 6, a=a, b=b)).view(2, 2, 6)

    targets = sinkhorn_knopp(pooled_views(0.7, 0.3).flatten(0, 1), TEMPERATURE).view(2, 2, 6)
    close(dino_loss(pooled_views(0.3, 1.0), targets, ignore_diagonal=True), 1.977811)
    close(dino_loss(pooled_views(0.5, 0.2), targets), 2.987015)


def test_one_view_has_no_pair():
    with pytest.raises(ValueError, match="more than one global crop"):
        dino_loss(torch.zeros(1, 2, 6), torch.full((1, 2, 6), 1 / 6), ignore_diagonal=True)
