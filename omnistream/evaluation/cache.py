"""Features of whole data sets in memory, for probes that pass over them many times."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from omnistream.distributed import all_reduce, is_distributed

_ROWS_AT_ONCE = 65536
"""Rows that are converted to float64 at once."""


class FeatureBatch(NamedTuple):
    """Features of some samples, and the targets of the heads."""

    features: Float[Tensor, " B *F"]
    target: Shaped[Tensor, " B *G"]


class CachedFeatures(Dataset):
    """Features of a data set, in memory, in place of its images.

    Args:
        batches: In the order of the samples, on the CPU.
        repeated: How many of the last samples another process has too; `statistics` leaves them out.

    Raises:
        ValueError: If there are none.
    """

    def __init__(self, batches: Sequence[FeatureBatch], repeated: int = 0) -> None:
        if not batches:
            raise ValueError("no samples to take features of: the loader is empty")
        self.features = torch.cat([batch.features for batch in batches])
        self.target = torch.cat([batch.target for batch in batches])
        self._num_own = len(self.features) - repeated

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.features)

    def __getitems__(self, indices: list[int]) -> FeatureBatch:
        """A batch at once, without stacking single samples."""
        return FeatureBatch(self.features[indices], self.target[indices])

    def statistics(self, device: torch.device | str = "cpu") -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
        """Mean and standard deviation of every channel (the last axis) over everything else, on the CPU.

        They are of the samples of all processes, each counted once; every process must call this.

        Args:
            device: Of the collectives, which not every backend can do on the CPU.
        """
        rows = self.features[: self._num_own].flatten(0, -2)
        if not is_distributed():
            return rows.mean(0), rows.std(0).clamp_min(1e-6)
        own = torch.cat([rows.sum(0, dtype=torch.float64), torch.tensor([len(rows)], dtype=torch.float64)])
        *_, count = total = all_reduce(own.to(device)).cpu()
        mean = total[:-1] / count
        squares = torch.zeros_like(mean)
        for part in rows.split(_ROWS_AT_ONCE):
            squares += (part.double() - mean).square().sum(0)
        variance = all_reduce(squares.to(device)).cpu() / (count - 1)
        return mean.to(rows.dtype), variance.sqrt().to(rows.dtype).clamp_min(1e-6)

    def loader(self, batch_size: int, *, shuffle: bool = False, seed: int = 0) -> DataLoader:
        """Batches of features; reshuffled in every epoch, in an order that depends on the seed alone."""
        generator = torch.Generator().manual_seed(seed) if shuffle else None
        return DataLoader(self, batch_size, shuffle=shuffle, generator=generator, collate_fn=_as_it_is)


def repeated_samples(loader: Any) -> int:
    """How many of the last samples of a process's share only make the shares equally long."""
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        return 0
    places = range(sampler.rank, sampler.total_size, sampler.num_replicas)
    return sum(place >= len(sampler.dataset) for place in places[-1:])  # type: ignore[arg-type]


def _as_it_is(batch: Any) -> Any:
    return batch
