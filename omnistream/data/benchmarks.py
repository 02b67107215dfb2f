"""Data of an evaluation: whole passes over a training, a validation and a test set."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Subset
from torch.utils.data.distributed import DistributedSampler

from omnistream import distributed
from omnistream.data.batch import Batch
from omnistream.data.sampling import EvaluationSampler, SampleKey, sample_key


class KeySampler(DistributedSampler):
    """A `DistributedSampler` whose samples know the epoch, so that random augmentation differs from epoch to epoch."""

    def __iter__(self) -> Iterator[SampleKey]:  # type: ignore[override]
        return (SampleKey(self.epoch, index) for index in super().__iter__())


class Part(Subset):
    """Some samples of a data set, by index or `SampleKey`."""

    def __getitem__(self, key: Any) -> Any:
        """The sample at a position of the part."""
        epoch, index = sample_key(key)
        place = self.indices[index]
        return self.dataset[SampleKey(epoch, place) if isinstance(key, SampleKey) else place]

    def __getitems__(self, keys: list[Any]) -> list[Any]:
        """Several samples."""
        return [self[key] for key in keys]


class EvaluationDataModule(LightningDataModule):
    """Map-style data sets for a probe: training is reshuffled in every epoch, the others are read in order, once.

    Data sets of this library get the epoch with the index (`SampleKey`), so that what they draw at random differs from
    epoch to epoch; any other, one without `takes_keys`, gets the index.

    A module that caches features (it has `cache` and `cached_loader`, as `FrozenProbe`) is asked for loaders over these
    in place of images.

    Args:
        train: Training set of `Batch` samples; its own `collate`, where it has one, makes the batches.
        test: Test set.
        val: Validation set.
        holdout: In place of `val`: share of the training set that is held out for validation and not trained on.
        batch_size: Samples per process and training step.
        eval_batch_size: Samples per validation or test batch, and per batch of cached features; default `batch_size`.
        num_workers: Worker processes per loader.
        seed: Of the order and of what is held out.

    Raises:
        ValueError: If both `val` and `holdout` are given, or `holdout` leaves nothing to train on or to validate with.
    """

    def __init__(
        self,
        train: Dataset | None = None,
        test: Dataset | None = None,
        val: Dataset | None = None,
        *,
        holdout: float = 0.0,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1 or (eval_batch_size is not None and eval_batch_size < 1):
            raise ValueError(f"batch sizes must be at least 1, got {batch_size} and {eval_batch_size}")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.num_workers, self.seed = num_workers, seed
        self.train, self.val, self.test = train, val, test
        if holdout:
            self.train, self.val = self._split(train, val, holdout)

    def _split(self, train: Any, val: Dataset | None, holdout: float) -> tuple[Dataset, Dataset]:
        if val is not None or train is None:
            raise ValueError("holdout takes a validation set from the training set: give train and no val")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(self.seed)).tolist()
        held = round(holdout * len(train))
        if not 0 < held < len(train):
            raise ValueError(
                f"holdout {holdout} of {len(train)} samples leaves nothing to train on or to validate with"
            )
        return Part(train, order[held:]), Part(train, order[:held])

    def train_dataloader(self) -> DataLoader:
        """Training batches.

        Raises:
            ValueError: If there is no training set.
        """
        dataset = self._given("train", self.train)
        if self._caches:
            return self._module.cached_loader(self._shared(dataset, False), self.batch_size, training=True)
        return self._shared(dataset, True)

    def val_dataloader(self) -> DataLoader | list[Any]:
        """Validation batches; none if there is no validation set."""
        if self.val is None:
            return []
        loader = self.in_order(self.val)
        return self._module.cached_loader(loader, self.eval_batch_size, training=False) if self._caches else loader

    def test_dataloader(self) -> DataLoader:
        """Test batches.

        Raises:
            ValueError: If there is no test set.
        """
        return self.in_order(self._given("test", self.test))

    def in_order(self, dataset: Any) -> DataLoader:
        """Every sample of a data set once, over all processes; a batch is None where this process has none left."""
        sampler = EvaluationSampler(len(dataset), self.eval_batch_size, distributed.rank(), distributed.world_size())
        collate = partial(_some, _collate_of(dataset))
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=self.num_workers)

    def _shared(self, dataset: Any, shuffle: bool) -> DataLoader:
        """Training samples: every process gets equally many; the last round repeats some."""
        keyed = shuffle and getattr(_whole(dataset), "takes_keys", False)
        sampler: Any = (KeySampler if keyed else DistributedSampler)(
            dataset, distributed.world_size(), distributed.rank(), shuffle=shuffle, seed=self.seed
        )
        size, collate = self.batch_size if shuffle else self.eval_batch_size, _collate_of(dataset)
        return DataLoader(dataset, size, sampler=sampler, collate_fn=collate, num_workers=self.num_workers)

    @property
    def _module(self) -> Any:
        return getattr(self.trainer, "lightning_module", None)

    @property
    def _caches(self) -> bool:
        return bool(getattr(self._module, "cache", False))

    def _given(self, name: str, dataset: Dataset | None) -> Dataset:
        if dataset is None:
            raise ValueError(f"there is no {name} set; give one as data.{name}")
        return dataset


def _whole(dataset: Any) -> Any:
    return dataset.dataset if isinstance(dataset, Subset) else dataset


def _collate_of(dataset: Any) -> Callable[[list[Any]], Any]:
    return getattr(_whole(dataset), "collate", Batch.collate)


def _some(collate: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    return collate(samples) if samples else None
