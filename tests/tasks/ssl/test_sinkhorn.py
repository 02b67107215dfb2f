import pytest
import torch
from ssl_oracle import SINKHORN, TEMPERATURE, close, sines

from omnistream.tasks.ssl.sinkhorn import prototype_potentials, sinkhorn_knopp

LOGITS = sines(4, 6, a=0.7, b=0.3)


def test_recorded_values():
    out = sinkhorn_knopp(LOGITS, TEMPERATURE)
    close(out, SINKHORN, 2e-6)
    close(out.sum(0), [1.0038934, 0.6658033, 0.6657689, 0.6654350, 0.4995520, 0.4995475], 2e-6)
    close(sinkhorn_knopp(LOGITS, 0.04)[0], [0.0000288, 0.2445563, 0.3364513, 0.4189636, 0, 0], 2e-6)
    close(sinkhorn_knopp(LOGITS, TEMPERATURE, 1)[0], [0.0033495, 0.2826063, 0.3345288, 0.3795092, 0.0000062, 0], 2e-6)


def test_large_logits_stay_finite():
    # Scaled logits reach 143, where float32 numbers are 1.5e-5 apart.
    for logits, tolerance in ((10 * LOGITS, 1e-5), (10 * LOGITS.double(), 2e-6)):
        out = sinkhorn_knopp(logits, TEMPERATURE)
        close(out[0], [0, 0.030832, 0.357918, 0.611249, 0, 0], tolerance)
        close(out[3], [0, 0.664737, 0.306399, 0.028864, 0, 0], tolerance)
    assert sinkhorn_knopp(LOGITS * 1e4, TEMPERATURE).isfinite().all()


def test_equals_the_plain_definition_in_float64():
    logits = torch.randn(32, 17, generator=torch.Generator().manual_seed(1))
    q = torch.exp(logits.double() / TEMPERATURE)
    for _ in range(3):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    out = sinkhorn_knopp(logits, TEMPERATURE)
    close(out, q.float(), 2e-6)
    close(out.sum(1), torch.ones(32), 2e-6)


def test_rows_follow_their_samples():
    order = torch.tensor([2, 0, 3, 1])
    close(sinkhorn_knopp(LOGITS[order], TEMPERATURE), SINKHORN[order], 2e-6)


def test_chunks_give_the_same_potentials():
    logits = torch.randn(11, 7, generator=torch.Generator().manual_seed(1))
    whole = prototype_potentials([lambda: logits], TEMPERATURE)
    parts = prototype_potentials([lambda p=p: p for p in (*logits.split(4), logits[:0])], TEMPERATURE)
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-6)


def test_one_sample_or_equal_samples_have_uniform_targets():
    close(sinkhorn_knopp(LOGITS[:1], TEMPERATURE), torch.full((1, 6), 1 / 6), 2e-6)
    close(sinkhorn_knopp(LOGITS[:1].expand(5, -1), TEMPERATURE), torch.full((5, 6), 1 / 6), 2e-6)


def test_no_samples_and_no_gradient():
    assert sinkhorn_knopp(LOGITS[:0], TEMPERATURE).shape == (0, 6)
    assert not sinkhorn_knopp(LOGITS.clone().requires_grad_(), TEMPERATURE).requires_grad
    with pytest.raises(ValueError, match="at least one iteration"):
        sinkhorn_knopp(LOGITS, TEMPERATURE, 0)
