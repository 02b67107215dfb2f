"""The base of every evaluation that trains small heads on a frozen backbone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from lightning import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import Metric

from omnistream import distributed
from omnistream.data.evaluation_samples import EpochPosition
from omnistream.evaluation.cache import CachedFeatures, FeatureBatch, repeated_samples
from omnistream.evaluation.environment import weights_sha256
from omnistream.evaluation.feature_store import StoredFeatures, StoreDtype
from omnistream.evaluation.results import MetricValue
from omnistream.evaluation.store_features import store_features

Setting = Mapping[str, float]
Selection = Literal["val", "test"]
_STATE = "frozen_probe"
"""Entry of a checkpoint that holds what is not a head's weight."""
_BEGINNING = EpochPosition()


class FrozenProbe(LightningModule):
    """Trains heads on the features of a frozen backbone and evaluates them.

    A protocol implements `features`, `targets`, `make_head`, `loss` and `metrics`, and may override `settings`,
    `predict` (or `predict_batch`), `options`, `make_optimizer`, `schedule` and `make_scheduler`. The rest is here:

    - The backbone is in evaluation mode and without gradient, whatever the trainer does; both are checked before every
      use, because a backbone in training mode draws random positions. Checkpoints hold the heads alone, and refuse to
      be loaded with another backbone.
    - Mixed precision is for the backbone: heads (see `float32_heads`) and losses are in float32.
    - One head is trained per setting and repetition, all of them on the features of one pass; their losses are summed,
      which trains each as if alone. They are known by their index, never by a rounded number.
    - The setting that is reported is chosen on the validation set (a part of the training data: see
      `EvaluationDataModule.holdout`) or, where a published protocol does so, on the test set itself. With repetitions
      it is the mean over them.

    Args:
        backbone: The model to evaluate, a `Backbone`.
        protocol: Stable name of the evaluation, such as `action/world`.
        selection: `val` chooses the setting in the last validation; `test` takes the best on the test set.
        repetitions: Heads per setting, which differ in their first weights.
        cache: Compute features once and keep them in memory (true) or in a folder (its path), from which later runs and
            other probes with the same features read them: for features without random augmentation. See
            `FrozenProbe.store_all`.
        cache_dtype: Type in which a folder keeps features; memory keeps float32.
        standardize: Give the heads features with zero mean and unit variance per channel, by the statistics of the
            training set. Needs `cache`.
        seed: Of the order of cached training samples.

    Raises:
        ValueError: If an argument is out of range.
    """

    float32_heads = True
    """Whether heads run in float32 under mixed precision, as losses do; of large ones, the last layer is enough."""
    needs_training = True
    """Whether an evaluation needs a checkpoint: the heads have weights, which are made when a run starts."""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        protocol: str,
        selection: Selection = "val",
        repetitions: int = 1,
        cache: bool | str | Path = False,
        cache_dtype: StoreDtype = "bfloat16",
        standardize: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if selection not in ("val", "test") or repetitions < 1:
            raise ValueError(f"selection must be val or test, repetitions at least 1; got {selection!r}, {repetitions}")
        if cache_dtype not in ("bfloat16", "float32"):
            raise ValueError(f"cache_dtype must be bfloat16 or float32, got {cache_dtype!r}")
        if standardize and not cache:
            raise ValueError("standardize needs the statistics of all training features: set cache to true or a folder")
        self.backbone = backbone.requires_grad_(False).eval()
        self.protocol, self.selection, self.repetitions = protocol, selection, repetitions
        self.cache, self.cache_dtype, self.standardize, self.seed = cache, cache_dtype, standardize, seed
        self.heads = nn.ModuleList()
        self.head_metrics = nn.ModuleList()
        self.selected: int | None = None
        """Index of the setting that the last validation chose."""
        self._statistics: tuple[Tensor, Tensor] | None = None
        self._results: dict[str, MetricValue] = {}
        self._sweep: list[float] = []
        self._skipped = 0
        self._batches = 0
        """Batches with samples that this process has evaluated since the last results."""

    # What a protocol adds.

    def features(self, batch: Any) -> Float[Tensor, " B *F"]:
        """Features of a batch, for `head(features)` in training and `predict(head, features)` in evaluation.

        Runs without gradient; `self.training` says which of the two they are for.
        """
        raise NotImplementedError

    def targets(self, batch: Any) -> Shaped[Tensor, " B *G"]:
        """What the heads should predict for a batch."""
        raise NotImplementedError

    def make_head(self, setting: Setting) -> nn.Module:
        """A fresh head for one of the settings."""
        raise NotImplementedError

    def loss(self, prediction: Tensor, target: Tensor) -> Float[Tensor, ""]:
        """Training loss of one head."""
        raise NotImplementedError

    def metrics(self) -> dict[str, Metric]:
        """Fresh metrics, updated with predictions and targets; the first one chooses among the settings."""
        raise NotImplementedError

    def settings(self) -> list[Setting]:
        """The sweep: values of every setting. `lr` and `weight_decay`, where they are named, reach the optimiser."""
        return [{}]

    def feature_options(self) -> dict[str, Any]:
        """Arguments that decide features and targets, as plain values.

        Probes with equal ones, and the same methods `features` and `targets` with what these call, share the features
        in a folder.
        """
        return {}

    def options(self) -> dict[str, Any]:
        """Arguments of the protocol that `results.json` should name, as plain values."""
        return self.feature_options()

    def predict(self, head: nn.Module, features: Float[Tensor, " B *F"]) -> Tensor:
        """Prediction of a head in evaluation, such as the mean over several views; by default `head(features)`."""
        return head(features)

    def predict_batch(self, head: nn.Module, features: Float[Tensor, " B *F"], batch: Any) -> Tensor:
        """`predict`, for protocols that need more of the batch than its features, such as the size of its images.

        Args:
            head: One of the heads.
            features: Of the batch.
            batch: As the data module gave it; a `FeatureBatch` where features are cached.
        """
        return self.predict(head, features)

    def observe(self, head: int, prediction: Tensor, target: Shaped[Tensor, " B *G"]) -> None:
        """See a head's prediction in a test, by the index of the head; for what is more than a metric, as a plot."""

    def make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Optimiser over one group of parameters per head; by default AdamW."""
        return torch.optim.AdamW(groups)

    def schedule(self, step: int, total: int) -> float:
        """Factor on the learning rates at a step; by default a cosine to 0 whose first step is already on it."""
        return 0.5 * (1 + math.cos(math.pi * min((step + 1) / total, 1.0)))

    def make_scheduler(self, optimizer: torch.optim.Optimizer, total: int) -> torch.optim.lr_scheduler.LRScheduler:
        """Scheduler that is stepped after every training step; by default `schedule` alone.

        Args:
            optimizer: That of all heads.
            total: Training steps of the run.
        """
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.schedule(step, total))

    # What they share.

    def configure_model(self) -> None:
        """Make the heads and their metrics, once."""
        if len(self.heads) > 0:
            return
        for setting in self.settings():
            for _ in range(self.repetitions):
                self.heads.append(self.make_head(setting).to(self.device))
                self.head_metrics.append(nn.ModuleDict(self.metrics()).to(self.device))

    def train(self, mode: bool = True) -> "FrozenProbe":
        """Training mode for the heads; the backbone always stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def extract(self, batch: Any) -> FeatureBatch:
        """Features and targets of a batch; one that holds features already is returned as it is.

        Raises:
            RuntimeError: If the backbone is not frozen.
        """
        if isinstance(batch, FeatureBatch):
            return batch
        self.check_frozen()
        return FeatureBatch(self.features(batch).float(), self.targets(batch))

    def check_frozen(self) -> None:
        """Refuse a backbone that something has unfrozen.

        Raises:
            RuntimeError: If it is in training mode, or a parameter of it requires a gradient.
        """
        if any(module.training for module in self.backbone.modules()):
            raise RuntimeError("the backbone of a probe must be in evaluation mode; something called backbone.train()")
        if any(parameter.requires_grad for parameter in self.backbone.parameters()):
            raise RuntimeError("the backbone of a probe must not be trained; something set requires_grad on it")

    @torch.no_grad()
    def extract_all(self, loader: Iterable[Any], *, training: bool) -> CachedFeatures:
        """Features of a whole data set, on the CPU.

        Args:
            loader: Batches in order; of this process's share, if there are several processes.
            training: Whether they are training features, for protocols that see these differently.
        """
        mode, found = self.training, []
        self.train(training)
        for batch in loader:
            if batch is None:
                continue
            found.append(self.extract_to_cpu(batch))
        self.train(mode)
        return CachedFeatures(found, repeated_samples(loader))

    @torch.no_grad()
    def store_all(self, loader: DataLoader, *, training: bool) -> StoredFeatures:
        """Features of this process's share of a data set, from the folder `cache`; computed where they are not there.

        They are kept in a folder of their own for each backbone (weights, settings and code), data set (its state and
        that of its transform), methods `features` and `targets` with the helpers that they call, `feature_options`,
        type, and precision of the trainer, so none of these ever reads the features of another. Files that are replaced
        by others of the same name are not noticed: delete the folder then.
        All processes compute, each other shards, and all read; every process must call this.

        Args:
            loader: In order, of this process's share.
            training: Whether they are training features, for protocols that see these differently.

        Raises:
            ValueError: If the data set has state that cannot be compared.
            RuntimeError: If some processes write to another folder than this one.
        """
        return store_features(self, loader, training=training)

    def extract_outside_steps(self, batch: Any) -> FeatureBatch:
        """Features and targets of a batch that a loader gave, in the precision in which the trainer runs its steps."""
        batch = self.transfer_batch_to_device(batch, self.device, 0)
        with nullcontext() if self._trainer is None else self.trainer.precision_plugin.forward_context():
            return self.extract(batch)

    def extract_to_cpu(self, batch: Any) -> FeatureBatch:
        """`extract_outside_steps`, on the CPU."""
        features, target = self.extract_outside_steps(batch)
        return FeatureBatch(features.cpu(), target.cpu())

    @property
    def precision(self) -> str:
        """The trainer's precision, such as `bf16-mixed`; without a trainer, float32."""
        return "32-true" if self._trainer is None else str(self.trainer.precision)

    def cached_loader(
        self, loader: DataLoader, batch_size: int, *, training: bool, start: EpochPosition = _BEGINNING
    ) -> DataLoader:
        """What a data module hands out in place of `loader`, whose features are computed now, or read from a folder.

        Args:
            loader: In order, of this process's share.
            batch_size: Samples per batch of features.
            training: Whether to train on them, in a new order in every epoch.
            start: Where training goes on.
        """
        extract = self.extract_all if isinstance(self.cache, bool) else self.store_all
        return extract(loader, training=training).loader(batch_size, shuffle=training, seed=self.seed, start=start)

    def _inputs(self, features: Tensor) -> Tensor:
        if self._statistics is None:
            return features
        mean, std = (values.to(features) for values in self._statistics)
        return (features - mean) / std

    def on_train_start(self) -> None:
        """Learn the statistics of the training features of all processes, where they are needed."""
        loader = self.trainer.train_dataloader
        if self.standardize and self._statistics is None:
            self._statistics = loader.dataset.statistics(self.device)  # type: ignore[union-attr]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Summed loss of all heads."""
        features, target = self.extract(batch)
        inputs = self._inputs(features)
        losses = torch.stack([self._loss(head, inputs, target) for head in self.heads])
        self.log("train/loss", losses.detach().min(), prog_bar=True, batch_size=len(features))
        return losses.sum()

    def _loss(self, head: nn.Module, inputs: Tensor, target: Tensor) -> Float[Tensor, ""]:
        with self._head_precision():
            prediction = head(inputs)
        with torch.autocast(self.device.type, enabled=False):
            return self.loss(prediction.float(), target)

    def _head_precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, enabled=False) if self.float32_heads else nullcontext()

    def prediction(self, head: nn.Module, inputs: Float[Tensor, " B *F"], batch: Any) -> Tensor:
        """What `predict_batch` gives, in the precision of heads.

        Args:
            head: One of the heads.
            inputs: Its inputs, standardised where they have to be.
            batch: See `predict_batch`.
        """
        with self._head_precision():
            prediction = self.predict_batch(head, inputs, batch)
        return prediction.float() if prediction.is_floating_point() else prediction

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Update the metrics of every head."""
        self._batches += batch is not None
        self._evaluate(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Update the metrics of every head."""
        self._batches += batch is not None
        self._evaluate(batch, testing=True)

    def _evaluate(self, batch: Any, testing: bool = False) -> None:
        if batch is None:  # this process has no samples left
            return
        features, target = self.extract(batch)
        inputs = self._inputs(features)
        for index, (head, metrics) in enumerate(zip(self.heads, self.head_metrics, strict=True)):
            prediction = self.prediction(head, inputs, batch)
            for metric in metrics.values():  # type: ignore[operator]
                metric.update(prediction, target)
            if testing:
                self.observe(index, prediction, target)

    @property
    def _sanity_checking(self) -> bool:
        """Whether this is the short validation before training, whose results say nothing."""
        return self._trainer is not None and bool(self.trainer.sanity_checking)

    def _computed(self) -> list[dict[str, MetricValue]]:
        """Metrics of every setting over all processes, and a fresh start.

        Raises:
            ValueError: If no process had a sample.
        """
        if not sum(distributed.gather_objects(self._batches)) and not self._sanity_checking:
            raise ValueError("none of the samples could be evaluated: all of their files are broken, see the log")
        self._batches, found = 0, []
        for metrics in self.head_metrics:
            found.append({name: _value(metric) for name, metric in metrics.items()})  # type: ignore[operator]
            self._skipped = max(int(getattr(metric, "skipped_samples", 0)) for metric in metrics.values())  # type: ignore[operator]
            for metric in metrics.values():  # type: ignore[operator]
                metric.reset()
        starts = range(0, len(found), self.repetitions)
        return [_mean(found[start : start + self.repetitions]) for start in starts]

    def _log(self, stage: str, values: list[dict[str, MetricValue]], chosen: int) -> None:
        for name, value in values[chosen].items():
            self.log(f"{stage}/{name}", value.value, batch_size=1, prog_bar=True)
        if len(values) > 1:
            every = {f"{stage}/{name}/{i}": v.value for i, found in enumerate(values) for name, v in found.items()}
            self.log_dict(every, batch_size=1)

    def on_validation_epoch_end(self) -> None:
        """Choose among the settings and log the metrics of all of them."""
        values = self._computed()
        best = _best(values)
        if not self._sanity_checking:
            self.selected = best
        self._log("val", values, best)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the chosen setting, and of every one by its index.

        Raises:
            ValueError: If one has to be chosen and no validation did.
        """
        values = self._computed()
        if self.selection == "test" or len(values) == 1:
            self.selected = _best(values)
        if self.selected is None:
            raise ValueError(
                f"none of the {len(values)} settings was chosen: fit with a validation set (data.holdout takes one "
                "from the training set), or set model.selection to test, which chooses on the test set"
            )
        self._log("test", values, self.selected)
        self._results, first = values[self.selected], next(iter(values[0]))
        self._sweep = [found[first].value for found in values]

    def test_results(self) -> dict[str, Any]:
        """Fields of `EvaluationResult` after a test."""
        settings = [dict(setting) for setting in self.settings()]
        assert self.selected is not None
        choice = {
            "on": self.selection,
            "metric": next(iter(self._results)),
            "index": self.selected,
            "values": self._sweep,
        }
        return {
            "protocol": self.protocol,
            "metrics": self._results,
            "skipped": self._skipped,
            "selection": choice | {"setting": settings[self.selected]} if len(settings) > 1 else None,
            "settings": {"sweep": settings, "repetitions": self.repetitions, **self.options()},
        }

    def configure_optimizers(self) -> Any:
        """One optimiser for all heads, each with its own setting, and the schedule over all steps of the run."""
        heads = zip(self.heads, [s for s in self.settings() for _ in range(self.repetitions)], strict=True)
        known = ("lr", "weight_decay")
        groups = [
            {"params": list(head.parameters()), **{key: setting[key] for key in known if key in setting}}
            for head, setting in heads
        ]
        optimizer, total = self.make_optimizer(groups), int(self.trainer.estimated_stepping_batches)
        scheduler = self.make_scheduler(optimizer, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_after_backward(self) -> None:
        """Average gradients over processes where the strategy does not: FSDP2, of which no part of a head is."""
        if not (distributed.is_distributed() and isinstance(self.trainer.strategy, ModelParallelStrategy)):
            return
        for parameter in self.heads.parameters():
            if parameter.grad is not None:
                parameter.grad = distributed.all_reduce(parameter.grad) / distributed.world_size()

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient of every head by itself (`trainer.gradient_clip_val`), as each is trained as if alone."""
        if gradient_clip_algorithm == "value" or not gradient_clip_val:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        for head in self.heads:
            nn.utils.clip_grad_norm_(head.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out the backbone, and keep its fingerprint, the chosen setting and the statistics."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value for key, value in state.items() if not key.startswith("backbone.")}
        checkpoint[_STATE] = {
            "backbone_sha256": weights_sha256(self.backbone),
            "selected": self.selected,
            "statistics": self._statistics,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over what `on_save_checkpoint` kept.

        Raises:
            ValueError: If the checkpoint is of no probe, or of one that was trained on another backbone.
        """
        kept = checkpoint.get(_STATE)
        if kept is None:
            raise ValueError("not a checkpoint of a probe; weights of a backbone go into model.backbone")
        if kept["backbone_sha256"] != weights_sha256(self.backbone):
            raise ValueError(
                "this probe was trained on another backbone: its weights differ from those of model.backbone"
            )
        self.selected, self._statistics = kept["selected"], kept["statistics"]
        own = {f"backbone.{key}": value for key, value in self.backbone.state_dict().items()}
        checkpoint["state_dict"] = own | checkpoint["state_dict"]


def _value(metric: Metric) -> MetricValue:
    value = float(metric.compute())  # first: it also finds the standard error
    error = getattr(metric, "standard_error", None)
    stderr = None if error is None or not bool(error.isfinite()) else float(error)
    return MetricValue(value=value, higher_is_better=metric.higher_is_better, stderr=stderr)


def _mean(values: Sequence[dict[str, MetricValue]]) -> dict[str, MetricValue]:
    """Mean over repetitions; its standard error is taken to be the mean of theirs, as they share their samples."""
    found = {}
    for name, first in values[0].items():
        errors = [one[name].stderr for one in values]
        known = [error for error in errors if error is not None]
        found[name] = MetricValue(
            value=sum(one[name].value for one in values) / len(values),
            higher_is_better=first.higher_is_better,
            stderr=sum(known) / len(known) if len(known) == len(values) else None,
        )
    return found


def _best(values: Sequence[dict[str, MetricValue]]) -> int:
    """Index of the best first metric; one that is NaN is never the best, and the first of equal ones is."""
    name, first = next(iter(values[0].items()))
    sign = 1 if first.higher_is_better else -1
    scores = [sign * found[name].value for found in values]
    return max(range(len(scores)), key=lambda i: -math.inf if math.isnan(scores[i]) else scores[i])
