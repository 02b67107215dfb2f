"""The order of samples and their random numbers, as functions of (seed, epoch, index) alone.

Nothing depends on the number of workers or on earlier samples, so any step can be reproduced and any run resumed
exactly.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

_NEIGHBOURS = 256


class SampleKey(NamedTuple):
    """Argument of a data set's `__getitem__`: the index of a sample and the epoch."""

    epoch: int
    index: int  # type: ignore[assignment]  # a sample's index, not tuple.index, is what this type is about


class BatchPlace(NamedTuple):
    """Position of a sample in the batch of all processes together."""

    batch: int
    """Number of the global batch."""
    position: int
    """Of the sample in it."""
    size: int
    """Samples in it."""


class PlacedKey(SampleKey):
    """A key with its place in the global batch; it equals the key without one and unpacks like it.

    For choices that are spread over a batch. They are then the same for any number of processes.
    """

    place: BatchPlace

    def __new__(cls, epoch: int, index: int, place: BatchPlace) -> "PlacedKey":
        """A key with its place."""
        key = super().__new__(cls, epoch, index)
        key.place = place
        return key

    def __getnewargs__(self) -> tuple[int, int, BatchPlace]:  # type: ignore[override]
        """What pickle hands to `__new__`: keys travel to worker processes."""
        return self.epoch, self.index, self.place


def batch_place(key: "int | SampleKey", num_samples: int) -> BatchPlace:
    """The place of a key; one without, in a data set of `num_samples`, is in a batch with its neighbours there."""
    if isinstance(key, PlacedKey):
        return key.place
    epoch, index = sample_key(key)
    position = index % _NEIGHBOURS
    first = index - position
    return BatchPlace(epoch * num_samples + first, position, min(_NEIGHBOURS, num_samples - first))


def sample_key(key: "int | SampleKey") -> SampleKey:
    """A plain index means epoch 0."""
    return key if isinstance(key, SampleKey) else SampleKey(0, int(key))


def sample_rng(seed: int, key: "int | SampleKey", salt: int = 0) -> np.random.Generator:
    """Random numbers for one sample; `salt` separates independent uses of the same sample."""
    epoch, index = sample_key(key)
    return np.random.default_rng(np.random.SeedSequence([seed, epoch, index, salt]))


def sample_seed(seed: int, key: "int | SampleKey", salt: int = 0) -> torch.Tensor:
    """One int64 scalar in [0, 2**62) that identifies the sample in a batch."""
    return torch.tensor(int(sample_rng(seed, key, salt).integers(2**62)), dtype=torch.int64)


class EndlessBatchSampler(Sampler[list[SampleKey]]):
    """An endless sequence of batches of keys, in a seeded order per epoch, that can start anywhere.

    The stream is cut into global batches of `batch_size * num_replicas` keys; this rank takes its share of each. Its
    position is the number of batches consumed, so a run resumes at `start_batch` with any number of workers.
    Keys know their place in the global batch.

    Args:
        num_samples: Length of the data set.
        batch_size: Samples per rank and batch.
        seed: Determines the order.
        shuffle: Permute each epoch; otherwise in order.
        rank: This process.
        num_replicas: Number of processes.
        start_batch: Batches already consumed.

    Raises:
        ValueError: If there are no samples or a count is not positive.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        num_replicas: int = 1,
        start_batch: int = 0,
    ) -> None:
        if num_samples < 1 or batch_size < 1 or num_replicas < 1:
            raise ValueError(
                f"needs at least one sample, batch size and replica; got {num_samples}, {batch_size}, {num_replicas}"
            )
        self.num_samples, self.batch_size, self.seed, self.shuffle = num_samples, batch_size, seed, shuffle
        self.rank, self.num_replicas, self.start_batch = rank, num_replicas, start_batch
        self._order: tuple[int, np.ndarray] | None = None

    def _key(self, batch: int, position: int) -> PlacedKey:
        size = self.batch_size * self.num_replicas
        epoch, offset = divmod(batch * size + position, self.num_samples)
        return PlacedKey(epoch, self._index(epoch, offset), BatchPlace(batch, position, size))

    def _index(self, epoch: int, offset: int) -> int:
        if not self.shuffle:
            return offset
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
            # Kept for the whole epoch: half the memory, which is 450 MB for the paper's 113 million images.
            self._order = (epoch, order.astype(np.min_scalar_type(self.num_samples)))
        return int(self._order[1][offset])

    def __iter__(self) -> Iterator[list[SampleKey]]:
        batch = self.start_batch
        while True:
            first = self.rank * self.batch_size
            yield [self._key(batch, first + i) for i in range(self.batch_size)]
            batch += 1


class EvaluationSampler(Sampler[list[int]]):
    """This process's share of a data set in order, without padding: the batches rank, rank + n, ... of one process.

    Whole batches are distributed, so a batch is the same as in one process. All processes get the same number of
    batches; where none is left, the list of samples is empty.

    Args:
        num_samples: Length of the data set.
        batch_size: Samples per batch.
        rank: This process.
        num_replicas: Number of processes n.

    Raises:
        ValueError: If the batch size is not positive.
    """

    def __init__(self, num_samples: int, batch_size: int, rank: int = 0, num_replicas: int = 1) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.num_samples, self.batch_size = num_samples, batch_size
        self.rank, self.num_replicas = rank, num_replicas

    def __len__(self) -> int:
        return -(-self.num_samples // (self.batch_size * self.num_replicas))

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(self.rank, len(self) * self.num_replicas, self.num_replicas):
            start = first * self.batch_size
            yield list(range(start, min(start + self.batch_size, self.num_samples)))
