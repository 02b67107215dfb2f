"""Features of whole data sets in place of their images, for probes that pass over them many times."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from omnistream.data.evaluation_samples import EpochPosition, EpochSampler
from omnistream.distributed import all_reduce, gather_objects, is_distributed, rank

_ROWS_AT_ONCE = 65536
"""Rows that are converted to float64 at once."""
_BEGINNING = EpochPosition()


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

    def loader(
        self, batch_size: int, *, shuffle: bool = False, seed: int = 0, start: EpochPosition = _BEGINNING
    ) -> DataLoader:
        """Batches of features of this process's share.

        With `shuffle`, they are for training: in a new order in every epoch (set by the sampler's `set_epoch`, which a
        trainer calls) that depends on seed and epoch alone, and equally many in all processes. Where broken files made
        a share shorter than that of another process, some of its samples come twice in an epoch. Every process must
        call this.

        Otherwise they are for evaluation. Without samples there is one batch, None: Lightning leaves out the whole
        validation of a process without any, for which the others would wait.

        Args:
            batch_size: Samples per batch; the last one may have fewer.
            shuffle: See above.
            seed: Of the order.
            start: Where a run that resumes goes on; see `EpochSampler`.

        Raises:
            ValueError: In all processes, if one has no sample to train on.
        """
        if shuffle:
            sampler = _ShareSampler(gather_objects(len(self)), rank(), seed, batch_size, start)
            return DataLoader(self, batch_size, sampler=sampler, collate_fn=_as_it_is)
        if not len(self):
            return DataLoader([None], batch_size=None, collate_fn=_as_it_is)  # type: ignore[arg-type, list-item]
        return DataLoader(self, batch_size, collate_fn=_as_it_is)


class _ShareSampler(EpochSampler):
    """A process's own samples, some of them again where another process has more.

    Args:
        shares: Samples of every process.
        own: Index of this process.
        seed: Of the order.
        batch_size: Samples per batch.
        start: Where the run goes on.

    Raises:
        ValueError: If a process has none.
    """

    def __init__(self, shares: Sequence[int], own: int, seed: int, batch_size: int, start: EpochPosition) -> None:
        if empty := [process for process, count in enumerate(shares) if not count]:
            raise ValueError(
                f"none of the training samples of process {empty[0]} could be read, so it has nothing to train on: "
                f"repair the files that are named above, or train in fewer processes than {len(shares)}"
            )
        super().__init__(range(max(shares)), 1, 0, seed=seed, batch_size=batch_size, start=start)
        self.share = shares[own]

    def __iter__(self) -> Iterator[int]:
        """Indices of what is left of the epoch."""
        return (place % self.share for place in super().__iter__())


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
