"""Features of whole data sets in place of their images, for probes that pass over them many times."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from omnistream.distributed import all_reduce, gather_objects, is_distributed

_ROWS_AT_ONCE = 65536
"""Rows that are converted to float64 at once."""


class FeatureBatch(NamedTuple):
    """Features of some samples, and the targets of the heads."""

    features: Float[Tensor, " B *F"]
    target: Shaped[Tensor, " B *G"]


class FeatureSet(Dataset):
    """Features of a data set, or of this process's share of it: batches, and statistics over all processes."""

    def __len__(self) -> int:
        """Number of samples."""
        raise NotImplementedError

    def __getitems__(self, indices: list[int]) -> FeatureBatch:
        """A batch at once, without stacking single samples."""
        raise NotImplementedError

    def own_rows(self) -> Iterator[Float[Tensor, "N D"]]:
        """Feature vectors of the samples that no other process has, in parts that fit into memory."""
        raise NotImplementedError

    def statistics(self, device: torch.device | str = "cpu") -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
        """Mean and standard deviation of every channel (the last axis) over everything else, on the CPU.

        They are of the samples of all processes, each counted once; every process must call this.

        Args:
            device: Of the collectives, which not every backend can do on the CPU.
        """
        own = sum(torch.cat([rows.double().sum(0), torch.tensor([float(len(rows))])]) for rows in self.own_rows())
        assert isinstance(own, Tensor)  # there are samples
        *_, count = total = all_reduce(own.to(device)).cpu()
        mean = total[:-1] / count
        squares = sum((rows.double() - mean).square().sum(0) for rows in self.own_rows())
        assert isinstance(squares, Tensor)
        variance = all_reduce(squares.to(device)).cpu() / (count - 1)
        return mean.float(), variance.sqrt().float().clamp_min(1e-6)

    def loader(self, batch_size: int, *, shuffle: bool = False, seed: int = 0) -> DataLoader:
        """Batches of features; reshuffled in every epoch, in an order that depends on the seed alone.

        Without samples there is one batch, None: Lightning leaves out the whole validation of a process without any,
        for which the others would wait.
        """
        if not shuffle and not len(self):
            return DataLoader([None], batch_size=None, collate_fn=_as_it_is)  # type: ignore[arg-type, list-item]
        generator = torch.Generator().manual_seed(seed) if shuffle else None
        return DataLoader(self, batch_size, shuffle=shuffle, generator=generator, collate_fn=_as_it_is)


class CachedFeatures(FeatureSet):
    """Features of a data set, in memory; of a process's share, which may be empty: every process must make one.

    Args:
        batches: In the order of the samples, on the CPU.
        repeated: How many of the last samples another process has too; `statistics` leaves them out.

    Raises:
        ValueError: If no process has any.
    """

    def __init__(self, batches: Sequence[FeatureBatch], repeated: int = 0) -> None:
        # An empty share has the shape of the others.
        empty = [FeatureBatch(batch.features[:0].clone(), batch.target[:0].clone()) for batch in batches[:1]]
        known = [batch for share in gather_objects(empty) for batch in share]
        if not known:
            raise ValueError("no samples to take features of: the loader is empty")
        self.features = torch.cat([known[0].features, *(batch.features for batch in batches)])
        self.target = torch.cat([known[0].target, *(batch.target for batch in batches)])
        self._num_own = len(self.features) - repeated

    def __len__(self) -> int:
        return len(self.features)

    def __getitems__(self, indices: list[int]) -> FeatureBatch:
        """A batch at once, without stacking single samples."""
        return FeatureBatch(self.features[indices], self.target[indices])

    def own_rows(self) -> Iterator[Float[Tensor, "N D"]]:
        """Feature vectors of the samples that no other process has, in parts."""
        yield from self.features[: self._num_own].flatten(0, -2).split(_ROWS_AT_ONCE)

    def statistics(self, device: torch.device | str = "cpu") -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
        """See `FeatureSet.statistics`; in one process at once."""
        if is_distributed():
            return super().statistics(device)
        rows = self.features[: self._num_own].flatten(0, -2)
        return rows.mean(0), rows.std(0).clamp_min(1e-6)


def repeated_samples(loader: Any) -> int:
    """How many of the last samples of a process's share only make the shares equally long."""
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        return 0
    places = range(sampler.rank, sampler.total_size, sampler.num_replicas)
    return sum(place >= len(sampler.dataset) for place in places[-1:])  # type: ignore[arg-type]


def _as_it_is(batch: Any) -> Any:
    return batch
