import pytest
import torch
from ssl_oracle import MASKS, PATCH_TARGETS, TEMPERATURE, close, sines

from omnistream.tasks.ssl.heads import ProjectionHead
from omnistream.tasks.ssl.ibot import ibot_loss, mask_weights, patch_cross_entropy, patch_targets

IDENTITY = torch.eye(6)  # prototypes that make features and logits the same
TEACHER = sines(4, 5, 6, a=0.9, b=0.1)[MASKS[:, 0, 0]]
STUDENT = sines(4, 5, 6, a=0.4, b=0.6)[MASKS[:, 0, 0]]


def test_weights_and_order_of_masked_patches():
    assert MASKS.flatten().nonzero().flatten().tolist() == [1, 3, 10, 12, 14, 19]
    close(mask_weights(MASKS), [0.5, 0.5, 1 / 3, 1 / 3, 1 / 3, 1.0])


@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_recorded_values(chunk_size):
    targets = patch_targets(TEACHER, IDENTITY, TEMPERATURE, chunk_size=chunk_size)
    close(targets.probabilities(slice(None)), PATCH_TARGETS, 2e-6)
    crosses = patch_cross_entropy(STUDENT, IDENTITY, targets.probabilities(slice(None)), 0.1)
    close(crosses, [9.302608, 12.777556, 1.059134, 8.884831, 5.261998, 0.101210])
    loss = ibot_loss(STUDENT, IDENTITY, targets, mask_weights(MASKS), len(MASKS), chunk_size=chunk_size)
    close(loss, 4.052486)


def _head_loss(chunk_size: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(0)
    student, teacher = (ProjectionHead(8, hidden_dim=16, bottleneck_dim=6, num_prototypes=40) for _ in range(2))
    for head in (student, teacher):
        head.last_layer.weight.data.mul_(20)
    tokens, masks = torch.randn(26, 8, requires_grad=True), torch.zeros(2, 1, 4, 5, dtype=torch.bool)
    masks[0, 0, :2], masks[1, 0, :, :4] = True, True  # 10 + 16 patches
    with torch.no_grad():
        targets = teacher(tokens, lambda b, p: patch_targets(b, p, TEMPERATURE, chunk_size=chunk_size))
    loss = student(tokens, lambda b, p: ibot_loss(b, p, targets, mask_weights(masks), 2, chunk_size=chunk_size))
    return loss, list(torch.autograd.grad(loss, [tokens, *student.parameters()]))


def test_chunks_change_neither_loss_nor_gradients():
    loss, gradients = _head_loss(1000)
    chunked, chunked_gradients = _head_loss(5)
    close(chunked, loss, 1e-6)
    for one, other in zip(gradients, chunked_gradients, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, atol=1e-5 * one.abs().max().item(), rtol=1e-4)


def test_logits_of_all_patches_never_exist_at_once():
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    features, prototypes = torch.randn(200, 4, requires_grad=True), torch.randn(50, 4, requires_grad=True)
    with Watch():
        targets = patch_targets(features.detach(), prototypes.detach(), TEMPERATURE, chunk_size=10)
        ibot_loss(features, prototypes, targets, torch.ones(200), 1, chunk_size=10).backward()
    assert largest <= 200 * 4
    assert prototypes.grad.abs().sum() > 0


def test_no_masked_patch_costs_nothing_but_keeps_the_graph():
    head = ProjectionHead(8, hidden_dim=16, bottleneck_dim=6, num_prototypes=40)
    tokens, masks = torch.randn(0, 8), torch.zeros(2, 1, 4, 5, dtype=torch.bool)
    targets = patch_targets(torch.zeros(0, 6), head.last_layer.weight, TEMPERATURE)
    loss = head(tokens, lambda b, p: ibot_loss(b, p, targets, mask_weights(masks), 2))
    assert loss == 0
    loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())
