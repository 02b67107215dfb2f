"""`results.json`: what was evaluated, how, and what came out; read by the report and by other programs."""

import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader, rank_zero_info
from torch import nn
from torchmetrics import Metric

from omnistream import distributed
from omnistream.data.batch import Batch
from omnistream.data.benchmarks import EvaluationDataModule
from omnistream.data.evaluation_samples import EvaluationSamples, source_of
from omnistream.evaluation.environment import command, file_sha256, machine, versions, weights_sha256

SCHEMA = "omnistream/results/1"
"""Changes whenever a key changes its meaning."""


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """The value of one metric."""

    value: float
    higher_is_better: bool | None
    """None for a number that is neither, or of which that is not known."""
    stderr: float | None = None
    """Standard error over the samples, where the metric is a mean over samples."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """A score of every class, in the order of their numbers."""

    metric: str
    """Such as `iou` or `accuracy`; higher is better."""
    names: list[str]
    values: list[float]
    """NaN for a class that does not occur."""
    counts: list[int]
    """What was evaluated of every class."""
    unit: str
    """What is counted, such as `samples` or `pixels`."""

    def __post_init__(self) -> None:
        """Check that every class has a score and a count."""
        if not len(self.names) == len(self.values) == len(self.counts):
            found = f"{len(self.names)} names, {len(self.values)} values and {len(self.counts)} counts"
            raise ValueError(f"scores of classes: expected as many of each, got {found}")

    @classmethod
    def of(
        cls, metric: str, names: Sequence[str], values: torch.Tensor, counts: torch.Tensor, unit: str
    ) -> "ClassScores":
        """Scores that are tensors."""
        return cls(metric=metric, names=list(names), values=values.tolist(), counts=counts.tolist(), unit=unit)


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """One model on one protocol: the content of a `results.json`."""

    protocol: str
    """Stable name, such as `action/world`; with a metric's name it finds the same number of other models."""
    metrics: dict[str, MetricValue]
    """By stable names, such as `abs_rel` or `geometry/abs_rel`."""
    num_samples: int
    """Samples that were evaluated, over all processes, each once; of several tasks, those of the largest."""
    skipped: int = 0
    """Samples that were left out: broken files, absent ones, and those for which a metric has no reference."""
    model: dict[str, Any] = field(default_factory=dict)
    """Class, name, number of parameters and `weights_sha256` of the backbone; null for a model without weights."""
    checkpoint: dict[str, str] | None = None
    """Path and SHA-256 of the checkpoint that was evaluated, if there was one."""
    per_class: ClassScores | None = None
    """A score of every class, where there are classes."""
    selection: dict[str, Any] | None = None
    """Which of several settings the metrics are of and on which data it was chosen; None where there was no choice."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Arguments of the protocol, and as `data` those of an `EvaluationDataModule`."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Versions, machine, processes, precision, command and date."""
    wall_time_seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values; numbers that JSON lacks (NaN, infinities) become strings."""
        return {"schema": SCHEMA} | _plain(asdict(self))

    def write(self, path: Path) -> None:
        """Write to a file, replacing it at once; makes its folder where needed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        draft.replace(path)

    @classmethod
    def read(cls, path: Path | str) -> "EvaluationResult":
        """The result in a file.

        Raises:
            ValueError: If it is not a results file of this schema.
        """
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
            raise ValueError(f"{path} is not a results file of schema {SCHEMA}")
        metrics = content.pop("metrics")
        values = {name: MetricValue(**(entry | {"value": float(entry["value"])})) for name, entry in metrics.items()}
        if classes := content.pop("per_class", None):
            content["per_class"] = ClassScores(**(classes | {"values": [float(value) for value in classes["values"]]}))
        return cls(metrics=values, **content)


@runtime_checkable
class ReportsResults(Protocol):
    """A module that knows more about its results than what it logged, as `FrozenProbe` does."""

    def test_results(self) -> dict[str, Any]:
        """Fields of `EvaluationResult`: at least `protocol` and `metrics`; called after a test, on every process."""
        ...


class ResultsWriter(Callback):
    """Writes `results.json` into the log folder when a test ends.

    A module with `test_results` says what is in it; of any other, it is everything that was logged as `test/<name>`.

    Args:
        path: Where to write; by default `results.json` in the log folder.
        protocol: Stable name of the evaluation for modules that do not name it; by default the class of the module.
    """

    def __init__(self, path: Path | str | None = None, protocol: str | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.protocol = protocol
        self.result: EvaluationResult | None = None
        """Of the last test, on every process."""
        self._start = 0.0
        self._samples: Counter[str] = Counter()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start, self._samples = time.monotonic(), Counter()

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the samples of this process."""
        parts = batch if isinstance(batch, Mapping) else {"": batch}
        self._samples.update({name: count_samples(part) for name, part in parts.items()})

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the result together and write it on rank zero."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # a collective: on every process
        samples = sum(distributed.gather_objects(self._samples), Counter())
        known = (
            pl_module.test_results() if isinstance(pl_module, ReportsResults) else logged_results(trainer, pl_module)
        )
        name = {"protocol": self.protocol or type(pl_module).__name__}
        skipped = int(known.pop("skipped", 0)) + sum(distributed.gather_objects(broken_files(trainer.test_dataloaders)))
        skipped += missing_files(trainer.test_dataloaders)
        fields = (
            name
            | {"skipped": skipped, "num_samples": max(samples.values(), default=0)}
            | known
            | describe(trainer, pl_module)
        )
        if isinstance(data := getattr(trainer, "datamodule", None), EvaluationDataModule):
            fields["settings"] = fields.get("settings", {}) | {"data": {"class": type(data).__name__, **data.options()}}
            fields["protocol"] += f"_{data.variant}" if data.variant else ""
        self.result = EvaluationResult(**fields, wall_time_seconds=round(time.monotonic() - self._start, 3))
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            path = self.path or folder / "results.json"
            self.result.write(path)
            rank_zero_info(f"Results: {path.resolve()}")


def count_samples(batch: Any) -> int:
    """Samples in a batch: the first axis of its tensors; of a batch in parts, those of the largest."""
    if isinstance(batch, torch.Tensor):
        return len(batch)
    if isinstance(batch, Batch):
        return max((len(value) for value in vars(batch).values() if isinstance(value, torch.Tensor)), default=0)
    parts = (
        list(batch.values()) if isinstance(batch, Mapping) else list(batch) if isinstance(batch, list | tuple) else []
    )
    return max((count_samples(part) for part in parts), default=0)


def broken_files(loaders: Any) -> int:
    """Broken files that some loaders of this process have met.

    Of a loader whose data set replaces broken files, those that this process knows: not what its workers found.
    """
    return sum(_num_broken(dataset) for dataset in _datasets(loaders))


def missing_files(loaders: Any) -> int:
    """Samples that the annotations of some loaders' data sets name and that have no file, the same on every process."""
    found = (dataset.dataset if isinstance(dataset, EvaluationSamples) else dataset for dataset in _datasets(loaders))
    return sum(int(getattr(source_of(dataset), "missing", 0)) for dataset in found)


def _datasets(loaders: Any) -> list[Any]:
    """The data sets of a loader, or of nested ones."""
    if isinstance(loaders, CombinedLoader):
        loaders = loaders.flattened
    if isinstance(loaders, Mapping | list | tuple):
        parts = loaders.values() if isinstance(loaders, Mapping) else loaders
        return [dataset for part in parts for dataset in _datasets(part)]
    return [getattr(loaders, "dataset", None)]


def _num_broken(dataset: Any) -> int:
    if isinstance(dataset, EvaluationSamples):
        return dataset.num_skipped
    found = getattr(dataset, "broken_files", None)
    return 0 if found is None else int(found.count)


def logged_results(trainer: Trainer, module: nn.Module) -> dict[str, Any]:
    """What was logged as `test/<name>`, with the direction of the metric object of the same name."""
    directions = {
        name.rpartition(".")[2]: m.higher_is_better for name, m in module.named_modules() if isinstance(m, Metric)
    }
    logged = {
        name.removeprefix("test/"): float(v) for name, v in trainer.callback_metrics.items() if name.startswith("test/")
    }

    def direction(name: str) -> bool | None:
        last = name.rpartition("/")[2]
        return directions.get(last, False if last == "loss" else None)

    return {"metrics": {name: MetricValue(value=v, higher_is_better=direction(name)) for name, v in logged.items()}}


def describe(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """Model, checkpoint and environment of a test."""
    judged = getattr(module, "judged_model", getattr(module, "backbone", module))
    model = {
        "class": type(judged).__name__,
        "name": getattr(judged, "name", None) or getattr(judged, "variant", None),
        "parameters": sum(p.numel() for p in judged.parameters()),
        "weights_sha256": weights_sha256(judged) if judged.state_dict() else None,
    }
    path = trainer.ckpt_path or getattr(judged, "checkpoint_file", None)
    checkpoint = {"path": str(path), "sha256": file_sha256(path)} if path and Path(path).is_file() else None
    environment = {
        "versions": versions(),
        "machine": machine(),
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        "command": command(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    return {"model": model, "checkpoint": checkpoint, "environment": environment}


def _plain(value: Any) -> Any:
    """Nested values as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
