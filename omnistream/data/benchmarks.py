"""Data of an evaluation: whole passes over a training, a validation and a test set."""

from collections.abc import Callable
from functools import partial
from pathlib import PurePath
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from omnistream import distributed
from omnistream.data.batch import Batch
from omnistream.data.evaluation_samples import (
    EpochPosition,
    EpochSampler,
    EvaluationSamples,
    KeyedSubset,
    source_of,
    with_transform,
)
from omnistream.data.sampling import EndlessBatchSampler, EvaluationSampler
from omnistream.data.transforms import draws_at_random

_PLAIN = (str, int, float, list, tuple, dict, PurePath)


class EvaluationDataModule(LightningDataModule):
    """Map-style data sets for a probe: training is reshuffled in every epoch, the others are read in order, once.

    Data sets of this library get the epoch with the index (`SampleKey`), so that what they draw at random differs from
    epoch to epoch; any other, one without `takes_keys`, gets the index.

    A module that caches features (it has `cache` and `cached_loader`, as `FrozenProbe`) is asked for loaders over these
    in place of images; not if the transform of the training set draws at random.

    A run that was stopped in the middle of an epoch resumes with the samples that are left of it.

    A broken file of a validation or test set is left out and counted; it is not replaced by another sample.

    Args:
        train: Training set of `Batch` samples; its own `collate`, where it has one, makes the batches.
        test: Test set.
        val: Validation set.
        holdout: In place of `val`: share of the training set that is held out for validation and not trained on. It is
            seen with the `transform` of the test set; a training set without this attribute is taken as it is.
        batch_size: Samples per process and training step.
        eval_batch_size: Samples per validation or test batch, and per batch of cached features; default `batch_size`.
        num_workers: Worker processes per loader.
        seed: Of the order and of what is held out.
        endless: Training data without epochs, for runs of a number of steps: all batches have the same size, a
            transform draws anew in every pass, and a run resumes with the batch after its last one. The training set
            must take a `SampleKey`, as those of this library do.

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
        endless: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1 or (eval_batch_size is not None and eval_batch_size < 1):
            raise ValueError(f"batch sizes must be at least 1, got {batch_size} and {eval_batch_size}")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.num_workers, self.seed, self.endless, self.holdout = num_workers, seed, endless, holdout
        self.batches_seen = 0
        self.position = EpochPosition()
        self._start = EpochPosition()
        self.train, self.val, self.test = train, val, test
        if holdout:
            if val is not None or train is None:
                raise ValueError("holdout takes a validation set from the training set: give train and no val")
            plain = with_transform(train, getattr(source_of(test), "transform", None))
            self.train, self.val = self._hold_out(train, plain, holdout)

    def _hold_out(self, train: Any, plain: Any, share: float) -> tuple[Dataset, Dataset]:
        """Samples to train on, and the held-out ones as evaluation sees them.

        Args:
            train: Training set.
            plain: The same samples without augmentation.
            share: Of the samples, that is held out.

        Raises:
            ValueError: If nothing is left to train on or to validate with.
        """
        order = torch.randperm(len(plain), generator=torch.Generator().manual_seed(self.seed)).tolist()
        held = round(share * len(plain))
        if not 0 < held < len(plain):
            raise ValueError(f"holdout {share} of {len(plain)} samples leaves nothing to train on or to validate with")
        return KeyedSubset(train, order[held:]), KeyedSubset(plain, order[:held])

    @property
    def variant(self) -> str | None:
        """What to add to the name of a protocol because of the data: results of it are not those of the protocol."""
        return None

    def options(self) -> dict[str, Any]:
        """Arguments that `results.json` should name: public attributes that are plain values."""
        known = vars(LightningDataModule()).keys() | self.state_dict().keys()
        return {
            name: value
            for name, value in vars(self).items()
            if name not in known and not name.startswith("_") and isinstance(value, _PLAIN)
        }

    def train_dataloader(self) -> DataLoader:
        """Training batches.

        Raises:
            ValueError: If there is no training set, or features of random augmentation would be cached.
        """
        dataset = self._given("train", self.train)
        if self._caches:
            if draws_at_random(source_of(dataset)):
                raise ValueError(
                    "features of randomly augmented training data cannot be cached, as every epoch would see the same "
                    "ones: set data.augment to false where the data has it, or model.cache to false"
                )
            shared = self._shared(dataset, False)
            return self._module.cached_loader(shared, self.batch_size, training=True, start=self._start)
        return self._without_end(dataset) if self.endless else self._shared(dataset, True)

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

    def reference_dataloader(self) -> DataLoader:
        """Training samples, each once and in order, for protocols that look up test samples among them.

        Raises:
            ValueError: If there is no training set.
        """
        return self.in_order(self._given("train", self.train))

    def in_order(self, dataset: Any) -> DataLoader:
        """Every sample of a data set once, over all processes; a batch is None where this process has none left."""
        sampler = EvaluationSampler(len(dataset), self.eval_batch_size, distributed.rank(), distributed.world_size())
        collate = partial(_some, _collate_of(dataset))
        samples = EvaluationSamples(dataset)
        return DataLoader(samples, batch_sampler=sampler, collate_fn=collate, num_workers=self.num_workers)

    def _shared(self, dataset: Any, shuffle: bool) -> DataLoader:
        """Training samples: every process gets equally many; the last round repeats some."""
        replicas, rank = distributed.world_size(), distributed.rank()
        if shuffle:
            keyed = getattr(source_of(dataset), "takes_keys", False)  # transforms draw anew in every epoch
            size = self.batch_size
            sampler: Any = EpochSampler(
                dataset, replicas, rank, seed=self.seed, keyed=keyed, batch_size=size, start=self._start
            )
        else:
            size, sampler = self.eval_batch_size, DistributedSampler(dataset, replicas, rank, shuffle=False)
        collate = _training_collate(dataset) if shuffle else _collate_of(dataset)
        return DataLoader(dataset, size, sampler=sampler, collate_fn=collate, num_workers=self.num_workers)

    def _without_end(self, dataset: Any) -> DataLoader:
        """Batches of keys that go on from the last one that was trained on."""
        sampler = EndlessBatchSampler(
            len(dataset), self.batch_size, self.seed, True, distributed.rank(), distributed.world_size(),
            start_batch=self.batches_seen,
        )  # fmt: skip
        collate = _training_collate(dataset)
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=self.num_workers)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count the batches that training was given; prefetched ones do not count."""
        if self.trainer is not None and self.trainer.training:
            self.batches_seen += 1
            done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready  # without this one
            epoch = self.trainer.current_epoch
            last = self.trainer.is_last_batch
            self.position = EpochPosition(epoch + 1) if last else EpochPosition(epoch, done + 1)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The position in the training data: batches in all, and batches of the epoch."""
        return {"batches_seen": self.batches_seen, "position": tuple(self.position)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a position."""
        self.batches_seen = state_dict["batches_seen"]
        self.position = self._start = EpochPosition(*state_dict.get("position", ()))
        if self.trainer is not None:
            # FSDP2 restores this after it has made a loader, which would start at the beginning.
            self.trainer.fit_loop._combined_loader = None

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


def _collate_of(dataset: Any) -> Callable[[list[Any]], Any]:
    return getattr(source_of(dataset), "collate", Batch.collate)


def _training_collate(dataset: Any) -> Callable[[list[Any]], Any]:
    collate = _collate_of(dataset)
    return partial(_for_all, collate) if distributed.is_distributed() else collate


def _for_all(collate: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    """A training batch that is not None, which a trainer leaves out: the other processes would wait for this one.

    Raises:
        ValueError: If it is, as a data set that does not replace broken samples may give it.
    """
    batch = collate(samples)
    if batch is None:
        raise ValueError(
            "no sample of a training batch could be read, and the other processes have theirs: raise data.batch_size, "
            "repair the files, or train in one process, which leaves out such a batch"
        )
    return batch


def _some(collate: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    read = [sample for sample in samples if sample is not None]
    return collate(read) if read else None
