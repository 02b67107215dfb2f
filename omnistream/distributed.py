"""The few collectives the losses and evaluations need; all are the identity in a single process."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

_alone = False


def is_distributed() -> bool:
    """Whether more than one process takes part."""
    return not _alone and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process counts as the only one, so that the functions here wait for no other.

    For evaluation: each batch is one process's own, and some processes have fewer of them.
    """
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


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


def gather_objects(value: T) -> list[T]:
    """A small picklable value of every process, in the order of their ranks."""
    if not is_distributed():
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


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


def gather_batches(batches: Sequence[Tensor]) -> Tensor:
    """Rows of the batches of all processes, in the order that one process would have them in.

    Batch i of one process is batch i // n of process i % n, as `EvaluationSampler` shares them out.

    Args:
        batches: Of this process, equally many on all; one without rows where it had none.
    """
    own = torch.cat(list(batches))
    counts = gather_objects([len(batch) for batch in batches])
    padded = own.new_zeros(max(map(sum, counts)), *own.shape[1:])
    padded[: len(own)] = own
    shares = all_gather(padded).chunk(len(counts))
    parts = [share[: sum(sizes)].split(sizes) for share, sizes in zip(shares, counts, strict=True)]
    return torch.cat([part[i] for i in range(len(batches)) for part in parts])


class Means:
    """Means of named numbers over the batches of all processes, of which any may have none."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the numbers of one batch, without waiting for the device."""
        for name, value in values.items():
            exact = torch.float32 if value.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
            self._sums[name] = self._sums.get(name, 0) + value.detach().to(exact)
            self._counts[name] = self._counts.get(name, 0) + 1

    def compute(self) -> dict[str, float]:
        """The means by name, the same on all processes, and a fresh start; every process must call it.

        A name that only some processes have is averaged over those.
        """
        own = {name: (float(total), self._counts[name]) for name, total in self._sums.items()}
        parts = gather_objects(own)
        self._sums, self._counts = {}, {}
        names = sorted({name for part in parts for name in part})
        columns = {name: [part[name] for part in parts if name in part] for name in names}
        return {name: sum(t for t, _ in rows) / sum(n for _, n in rows) for name, rows in columns.items()}
