"""The scalars of one training step: gathered on the device, read by the host at once.

Reading a number from an accelerator waits until everything queued before it is done, and the device then idles until
the host has queued more. A step reads once, when only the optimiser's update is left.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from omnistream.distributed import all_reduce, world_size


@dataclass
class StepNumbers:
    """Scalars by name, in the order in which they were added; those of the same name are averaged when read."""

    shared: list[tuple[str, Tensor]] = field(default_factory=list)
    """Averaged over processes, which must add the same names."""
    local: list[tuple[str, Tensor]] = field(default_factory=list)
    """Of this process alone."""

    def read(self, counts: Tensor) -> tuple[dict[str, float], dict[str, float], dict[str, float], list[float]]:
        """Everything, in one transfer from the device.

        Args:
            counts: Further numbers [N] to read.

        Returns:
            The shared numbers averaged over processes, the same as they are on this process, the local numbers, and
            the counts.
        """
        own = torch.stack([value.detach().float() for _, value in self.shared])
        parts = [all_reduce(own) / world_size(), own, *[value.detach().float().view(1) for _, value in self.local]]
        values = torch.cat([*parts, counts.float()]).tolist()  # the one wait for the device in a step
        num, rest = len(self.shared), 2 * len(self.shared)
        return (
            _by_name(self.shared, values[:num]),
            _by_name(self.shared, values[num:rest]),
            _by_name(self.local, values[rest : rest + len(self.local)]),
            values[rest + len(self.local) :],
        )


def _by_name(entries: list[tuple[str, Tensor]], values: list[float]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for (name, _), value in zip(entries, values, strict=True):
        found.setdefault(name, []).append(value)
    return {name: sum(group) / len(group) for name, group in found.items()}
