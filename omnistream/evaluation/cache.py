"""Features of whole data sets in memory, for probes that pass over them many times."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class FeatureBatch(NamedTuple):
    """Features of some samples, and the targets of the heads."""

    features: Float[Tensor, " B *F"]
    target: Shaped[Tensor, " B *G"]


class CachedFeatures(Dataset):
    """Features of a data set, in memory, in place of its images.

    Args:
        batches: In the order of the samples, on the CPU.

    Raises:
        ValueError: If there are none.
    """

    def __init__(self, batches: Sequence[FeatureBatch]) -> None:
        if not batches:
            raise ValueError("no samples to take features of: the loader is empty")
        self.features = torch.cat([batch.features for batch in batches])
        self.target = torch.cat([batch.target for batch in batches])

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.features)

    def __getitems__(self, indices: list[int]) -> FeatureBatch:
        """A batch at once, without stacking single samples."""
        return FeatureBatch(self.features[indices], self.target[indices])

    def statistics(self) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
        """Mean and standard deviation of every channel (the last axis) over everything else."""
        rows = self.features.flatten(0, -2)
        return rows.mean(0), rows.std(0).clamp_min(1e-6)

    def loader(self, batch_size: int, *, shuffle: bool = False, seed: int = 0) -> DataLoader:
        """Batches of features; reshuffled in every epoch, in an order that depends on the seed alone."""
        generator = torch.Generator().manual_seed(seed) if shuffle else None
        return DataLoader(self, batch_size, shuffle=shuffle, generator=generator, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch
