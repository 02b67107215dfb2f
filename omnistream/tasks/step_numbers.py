"""The scalars of one training step: gathered on the device, read by the host at once.

Reading a number from an accelerator waits until everything queued before it is done, and the device then idles until
the host has queued more. A step reads once, when only the optimiser's update is left.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from omnistream.distributed import all_reduce, world_size


class StepReport(NamedTuple):
    """The numbers of a step on the host."""

    means: dict[str, float]
    """Averaged over processes, the same on all of them."""
    own: dict[str, float]
    """The same as they are on this process."""
    local: dict[str, float]
    """Numbers of this process alone."""
    counts: list[float]
    """What was given to `StepNumbers.read`."""


class StepNumbers:
    """Scalars by name, in the order in which they were added; those of the same name are averaged when read."""

    def __init__(self) -> None:
        self._shared: list[tuple[str, Tensor]] = []
        self._local: list[tuple[str, Tensor]] = []

    def add(self, shared: Mapping[str, Tensor], local: Mapping[str, Tensor]) -> None:
        """Keep scalars without waiting for them.

        Args:
            shared: To be averaged over processes, which must add the same names in the same order.
            local: Of this process alone.
        """
        self._shared += [(name, value.detach().float()) for name, value in shared.items()]
        self._local += [(name, value.detach().float()) for name, value in local.items()]

    def read(self, counts: Tensor) -> StepReport:
        """Everything, in one transfer from the device.

        Args:
            counts: Further numbers [N] to read.
        """
        own = torch.stack([value for _, value in self._shared])
        local = [value.view(1) for _, value in self._local]
        values = torch.cat([all_reduce(own) / world_size(), own, *local, counts.float()])
        numbers = values.tolist()  # the one wait for the device in a step
        shared, end = len(own), 2 * len(own) + len(local)
        return StepReport(
            means=_by_name(self._shared, numbers[:shared]),
            own=_by_name(self._shared, numbers[shared : 2 * shared]),
            local=_by_name(self._local, numbers[2 * shared : end]),
            counts=numbers[end:],
        )


def _by_name(entries: list[tuple[str, Tensor]], values: list[float]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for (name, _), value in zip(entries, values, strict=True):
        found.setdefault(name, []).append(value)
    return {name: sum(group) / len(group) for name, group in found.items()}
