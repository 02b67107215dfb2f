"""Data for multi-task training: a batch per task and step, in an order that any run can resume exactly."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lightning import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, Dataset

from omnistream import distributed
from omnistream.data.batch import Batch
from omnistream.data.sampling import EndlessBatchSampler, EvaluationSampler


@dataclass
class Source:
    """Where the batches of one task, or of one stream of a task, come from."""

    train: Dataset
    """Map-style training set of `Batch` samples; its own `collate`, where it has one, makes the batches."""
    val: Dataset | None = None
    """Validation set, read in order."""
    batch_size: int = 1
    """Samples per process and step."""
    val_batch_size: int | None = None
    """Samples per validation, prediction or test batch; default `batch_size`."""
    test: Dataset | None = None
    """Test set, read in order by `omnistream test`."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


class MultiTaskDataModule(LightningDataModule):
    """Gives a dictionary of batches per step, one entry per task.

    Evaluation reads every sample exactly once, however many processes share the work: each is given whole batches, and
    None where others still have one, so that all of them take equally many steps.

    Training never runs out: every source is reshuffled and started again on its own. The position of all loaders is one
    number, the batches seen, kept in the checkpoint; a resumed run goes on with the next batch, whatever the number of
    workers.

    Args:
        sources: By name; `task/stream` (such as `ssl/image` and `ssl/video`) groups streams into one batch of the task.
            Null leaves one out, and so does a model without that task.
        num_workers: Worker processes per source.
        seed: Of the sampling order.
        pin_memory: Page-locked batches, for GPUs.

    Raises:
        ValueError: If no source is left.
    """

    def __init__(
        self,
        sources: dict[str, Source | None],
        num_workers: int = 0,
        seed: int = 0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        self.sources = {name: source for name, source in sources.items() if source is not None}
        if not self.sources:
            raise ValueError("every data source is null; keep at least one")
        self.num_workers, self.seed, self.pin_memory = num_workers, seed, pin_memory
        self.batches_seen = 0

    def train_dataloader(self) -> CombinedLoader:
        """Endless loaders, from the position reached."""
        return CombinedLoader(_nest({n: self._train_loader(n, s) for n, s in self._wanted().items()}), "min_size")

    def val_dataloader(self) -> CombinedLoader | list[Any]:
        """Every validation set once, in order; a task whose set has ended gives None."""
        return self._in_order({name: source.val for name, source in self._wanted().items()})

    def predict_dataloader(self) -> list[DataLoader]:
        """The validation sets one after the other; a batch is a dictionary of one entry, by source."""
        sets = {name: source.val for name, source in self._wanted().items() if source.val is not None}
        return [self._ordered_loader(name, data, partial(_named, name)) for name, data in sets.items()]

    def test_dataloader(self) -> CombinedLoader | list[Any]:
        """Every test set once, like the validation sets.

        Raises:
            ValueError: If no source has a test set.
        """
        wanted = {name: source.test for name, source in self._wanted().items()}
        if all(dataset is None for dataset in wanted.values()):
            raise ValueError(f"no data source has a test set; give one as `test` of any of {sorted(wanted)}")
        return self._in_order(wanted)

    def _wanted(self) -> dict[str, Source]:
        """Sources of the tasks that the model has."""
        tasks = getattr(getattr(self.trainer, "lightning_module", None), "tasks", None)
        if tasks is None:
            return self.sources
        wanted = {name: source for name, source in self.sources.items() if name.split("/")[0] in tasks}
        if missing := sorted(set(tasks) - {name.split("/")[0] for name in wanted}):
            raise ValueError(
                f"no data source for task(s) {missing}; sources are {sorted(self.sources)}. Add one, or leave the task "
                f"out: --model.tasks.{missing[0]} null"
            )
        return wanted

    def _train_loader(self, name: str, source: Source) -> DataLoader:
        # The name enters the seed so that sources of equal length are not visited in the same order.
        seed = self.seed + sum(ord(c) * 257**i for i, c in enumerate(name)) % 2**31
        sampler = EndlessBatchSampler(
            len(source.train),  # type: ignore[arg-type]
            source.batch_size,
            seed=seed,
            rank=distributed.rank(),
            num_replicas=distributed.world_size(),
            start_batch=self.batches_seen,
        )
        return DataLoader(source.train, batch_sampler=sampler, **self._options(source.train))

    def _in_order(self, datasets: dict[str, Dataset | None]) -> CombinedLoader | list[Any]:
        loaders = {name: self._ordered_loader(name, data) for name, data in datasets.items() if data is not None}
        return CombinedLoader(_nest(loaders), "max_size") if loaders else []

    def _ordered_loader(self, name: str, dataset: Dataset, finish: Callable[[Any], Any] | None = None) -> DataLoader:
        size = self.sources[name].val_batch_size or self.sources[name].batch_size
        sampler = EvaluationSampler(
            len(dataset),  # type: ignore[arg-type]
            size,
            rank=distributed.rank(),
            num_replicas=distributed.world_size(),
        )
        options = self._options(dataset)
        options["collate_fn"] = partial(_collate, options["collate_fn"], finish)
        return DataLoader(_Numbered(dataset), batch_sampler=sampler, **options)

    def _options(self, dataset: Any) -> dict[str, Any]:
        return {
            "collate_fn": getattr(dataset, "collate", Batch.collate),
            "num_workers": self.num_workers,
            "pin_memory": self.pin_memory,
            "persistent_workers": self.num_workers > 0,
        }

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count the batches that training was given; prefetched ones do not count."""
        if self.trainer is not None and self.trainer.training:
            self.batches_seen += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The position of all loaders."""
        return {"batches_seen": self.batches_seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a position."""
        self.batches_seen = state_dict["batches_seen"]


class _Numbered(Dataset):
    """The samples of a data set with their `index`."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Batch:
        return replace(self.dataset[index], index=index)


def _nest(loaders: dict[str, DataLoader]) -> dict[str, Any]:
    """`{"ssl/image": a, "geometry": b}` as `{"ssl": {"image": a}, "geometry": b}`."""
    nested: dict[str, Any] = {}
    for name, loader in loaders.items():
        task, _, stream = name.partition("/")
        if stream:
            nested.setdefault(task, {})[stream] = loader
        else:
            nested[task] = loader
    return nested


def _collate(collate: Callable[[list[Any]], Any], finish: Callable[[Any], Any] | None, samples: list[Any]) -> Any:
    """The batch, or None for no samples; `finish` is applied to either."""
    batch = collate(samples) if samples else None
    return batch if finish is None else finish(batch)


def _named(name: str, batch: Any) -> dict[str, Any]:
    return {name: batch}
