"""Batch norm of frozen features: one process is `BatchNorm2d`, two are that of the whole batch."""

import pytest
import torch
import torch.distributed as dist
from processes import gloo, run_ranks
from torch import nn

from omnistream.tasks.probing.batch_norm import FeatureBatchNorm


def features():
    """Far from 0, and one channel that never changes."""
    x = torch.randn(6, 5, 2, 3, generator=torch.Generator().manual_seed(0)) * 3 + 100
    x[:, 4] = 7
    return x


def trained(norm, x, target):
    """Outputs, gradients and running statistics after two passes with a loss that is a mean over the batch."""
    for scale in (1, 2):
        out = norm(x * scale)
    (out * target).mean().backward()
    return out.detach(), norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var


def _as_one(rank, folder, expected, target):
    with gloo(rank, folder):
        norm, rows = FeatureBatchNorm(5), slice(3 * rank, 3 * rank + 3)
        out, *gradients = trained(norm, features()[rows], target[rows])
        torch.testing.assert_close(out, expected[0][rows], atol=1e-4, rtol=1e-4)
        for found, wanted in zip(gradients[:2], expected[1:3], strict=True):
            dist.all_reduce(found)
            torch.testing.assert_close(found / 2, wanted, atol=1e-5, rtol=1e-4)
        for found, wanted in zip(gradients[2:], expected[3:], strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)
        assert norm.num_batches_tracked == 2
        with pytest.raises(RuntimeError, match="for frozen features"):
            norm(features().requires_grad_())
        norm.eval()
        alone = norm(features()[: 1 + rank])  # no collective: shapes differ
        torch.testing.assert_close(alone, nn.BatchNorm2d.forward(norm, features()[: 1 + rank]))


def test_two_processes_are_one_batch(tmp_path):
    target = torch.randn(6, 5, 2, 3, generator=torch.Generator().manual_seed(1))
    expected = trained(nn.BatchNorm2d(5), features(), target)
    run_ranks(_as_one, str(tmp_path), expected, target)


def test_one_process_is_batch_norm():
    target = torch.randn(6, 5, 2, 3)
    ours, theirs = (trained(kind(5), features(), target) for kind in (FeatureBatchNorm, nn.BatchNorm2d))
    for found, wanted in zip(ours, theirs, strict=True):
        assert torch.equal(found, wanted)
