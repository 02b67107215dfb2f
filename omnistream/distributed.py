"""The few collectives the losses need; all are the identity in a single process."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether more than one process takes part."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """Index of this process."""
    return dist.get_rank() if is_distributed() else 0


@torch.no_grad()
def all_reduce(value: Tensor, op: str = "sum") -> Tensor:
    """A new tensor: `value` summed (or its maximum) over all processes; without gradient."""
    value = value.detach().clone()
    if is_distributed():
        dist.all_reduce(value, {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}[op])
    return value


def average_count(count: Tensor) -> Tensor:
    """`count` averaged over processes, at least 1.

    A sum over local elements divided by this, then averaged over processes (as DDP and FSDP average gradients), is the
    mean over all elements of all processes, however unevenly they are spread.
    """
    return (all_reduce(count.float()) / world_size()).clamp_min(1.0)


class _AllGather(torch.autograd.Function):
    """Concatenation over processes; the gradient of this process's rows is summed over all that used them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        parts = [torch.empty_like(value) for _ in range(world_size())]
        dist.all_gather(parts, value.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_reduce(gradient.contiguous()).chunk(world_size())[rank()]


def all_gather(value: Tensor) -> Tensor:
    """Rows of all processes concatenated along the first axis, with gradient; equal shapes everywhere."""
    return _AllGather.apply(value) if is_distributed() else value
