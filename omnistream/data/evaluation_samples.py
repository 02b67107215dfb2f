"""Samples of an evaluation: each counts once, and a broken file is left out rather than replaced."""

from collections.abc import Iterator
from multiprocessing import Value
from typing import Any

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


class KeyedSampler(DistributedSampler):
    """A share of the samples in a new order in every epoch, as keys that know the epoch."""

    def __iter__(self) -> Iterator[Any]:
        """Keys of one epoch."""
        return (SampleKey(self.epoch, index) for index in super().__iter__())


def source_of(dataset: Any) -> Any:
    """The data set that a subset is of, or the data set itself."""
    return source_of(dataset.dataset) if isinstance(dataset, Subset) else dataset


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
        source, place = self.dataset, index
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
