"""Samples of an evaluation: each counts once, and a broken file is left out rather than replaced."""

from collections.abc import Iterator
from copy import copy
from itertools import islice
from multiprocessing import Value
from typing import Any, NamedTuple

from torch.utils.data import Dataset, Subset
from torch.utils.data.distributed import DistributedSampler

from omnistream.data.broken_files import FileDataset
from omnistream.data.media.errors import MediaReadError
from omnistream.data.sampling import SampleKey, sample_key


class KeyedSubset(Subset):
    """Some samples of a data set; an index or a key counts within the subset."""

    def __getitem__(self, key: Any) -> Any:
        """The sample of an index, or of a key with its epoch."""
        if isinstance(key, SampleKey):
            return self.dataset[SampleKey(key.epoch, self.indices[key.index])]
        return self.dataset[self.indices[key]]

    def __getitems__(self, keys: list[Any]) -> list[Any]:  # type: ignore[override]
        """Several samples."""
        return [self[key] for key in keys]


class EpochPosition(NamedTuple):
    """Where training in epochs goes on."""

    epoch: int = 0
    batches: int = 0
    """Batches of the epoch that were trained on."""


_BEGINNING = EpochPosition()


class EpochSampler(DistributedSampler):
    """A share of the samples in a new order in every epoch, which can start in the middle of one.

    The length is that of a whole epoch, also where the first one is shorter: a trainer that resumes counts from there.

    Args:
        dataset: The samples.
        num_replicas: Number of processes.
        rank: This process.
        seed: Of the order.
        keyed: Give keys that know the epoch in place of indices.
        batch_size: Samples per process and step.
        start: Where the run goes on. Earlier epochs do not come again: a loader may be made, and its first samples
            taken, before a trainer that resumes knows the epoch.
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int,
        rank: int,
        *,
        seed: int = 0,
        keyed: bool = False,
        batch_size: int = 1,
        start: EpochPosition = _BEGINNING,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed)
        self.keyed, self.batch_size, self.start, self.epoch = keyed, batch_size, start, start.epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, unless it is over."""
        super().set_epoch(max(epoch, self.start.epoch))

    def __iter__(self) -> Iterator[Any]:
        """Indices, or keys, of what is left of the epoch."""
        epoch = self.epoch
        done = self.start.batches * self.batch_size if epoch == self.start.epoch else 0
        left = islice(super().__iter__(), done, None)
        return (SampleKey(epoch, index) for index in left) if self.keyed else left


def source_of(dataset: Any) -> Any:
    """The data set that a subset is of, or the data set itself."""
    return source_of(dataset.dataset) if isinstance(dataset, Subset) else dataset


def with_transform(dataset: Any, transform: Any) -> Any:
    """The same samples and record of broken files with another `transform`; as they are if they have none."""
    other = copy(dataset)
    if isinstance(dataset, Subset):
        other.dataset = with_transform(dataset.dataset, transform)
    elif hasattr(dataset, "transform"):
        other.transform = transform
    return other


class EvaluationSamples(Dataset):
    """The samples of a data set in order; None in place of one with a broken file.

    Broken files are recorded by the data set as in training, with the same limit.

    Args:
        dataset: Any map-style data set, or a subset of one.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._skipped = Value("q", 0)  # shared with the workers

    @property
    def num_skipped(self) -> int:
        """Samples left out so far by all workers of this process; what a data set of another kind counts itself."""
        source = source_of(self.dataset)
        counted = None if isinstance(source, FileDataset) else getattr(source, "broken_files", None)
        return self._skipped.value if counted is None else int(counted.count)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """The sample of an index, or None.

        Raises:
            TooManyBrokenFilesError: If more files are broken than allowed.
        """
        source: Any = self.dataset
        place = index
        while isinstance(source, Subset):
            source, place = source.dataset, source.indices[place]
        if not isinstance(source, FileDataset):
            return self.dataset[index]
        try:
            return source._read(sample_key(place))
        except MediaReadError as error:
            source.broken_files.add(error, source.num_files)
            with self._skipped.get_lock():
                self._skipped.value += 1
            return None
