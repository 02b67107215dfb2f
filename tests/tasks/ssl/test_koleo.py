import pytest
import torch
from ssl_oracle import close, sines

from omnistream.tasks.ssl.koleo import koleo_loss

X = sines(5, 4, a=1.3, b=0.2)


def test_recorded_values_and_gradient():
    features = X.clone().requires_grad_()
    loss = koleo_loss(features)
    close(loss, -0.038886)
    loss.backward()
    close(features.grad[0], [-0.063206, 0.010821, 0.068995, 0.026091])
    close(features.grad.norm(), 0.264196)
    close(koleo_loss(X[:2]), -0.190064)
    first, second = sines(2, 5, 4, a=1.3, b=0.2)
    close(torch.stack([koleo_loss(first), koleo_loss(second)]), [-0.038886, 0.052207])
    close(koleo_loss(X, num_neighbours=2, across_processes=True), -0.135546)


def test_fewer_than_two_rows_give_zero_with_zero_gradient():
    for rows in (1, 0):
        features = X[:rows].clone().requires_grad_()
        loss = koleo_loss(features)
        loss.backward()
        assert loss == 0
        assert not features.grad.any()


def test_antipodal_pair_does_not_choose_itself():
    pair = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    close(koleo_loss(pair), -torch.tensor(2.0).log())


def test_bfloat16_is_computed_in_float32():
    features = sines(64, 1024, a=0.37, b=0.1)
    close(koleo_loss(features), 3.2376, 1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(koleo_loss(features), 3.2376, 1e-3)


def test_invariant_to_sample_order():
    close(koleo_loss(X[torch.tensor([4, 2, 0, 1, 3])]), koleo_loss(X), 1e-6)


def test_groups_must_fit_the_batches():
    with pytest.raises(ValueError, match="group size 3"):
        koleo_loss(X, across_processes=True, group_size=3)
