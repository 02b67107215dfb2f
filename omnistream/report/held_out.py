"""What training has learned, on scenes it has not seen, against baselines measured in the same run."""

import copy
import logging
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from omnistream.data.batch import Batch, SceneClip
from omnistream.data.sampling import EndlessBatchSampler
from omnistream.metrics.depth import AbsRel
from omnistream.metrics.text import unigram_entropy
from omnistream.report.figures import FigureRow
from omnistream.tasks.captioning import CaptioningModule
from omnistream.tasks.geometry import GeometryModule
from omnistream.tasks.multitask import MultiTaskModule
from omnistream.tasks.objective import Objective
from omnistream.tasks.optimization import OptimizerConfig, build_optimizer
from omnistream.tasks.probing import cache_features, fit_action_probe
from omnistream.tasks.probing.action import ProbeConfig
from omnistream.tasks.probing.features import CachedFeatures
from omnistream.tasks.probing.linear import fit_linear_probe

TaskT = TypeVar("TaskT", bound=Objective)
logger = logging.getLogger(__name__)

ACTION_PROBE = ProbeConfig(num_layers=1, num_heads=8, lrs=(3e-3,), weight_decays=(0.1,), query_std=1.0)
"""A probe that learns within a minute on a CPU."""


class HeldOutFigures(Callback):
    """Measures the trained tasks when fitting ends; one process only.

    - Depth: Abs Rel of the predicted depth, with no alignment, in units of the clip's mean distance. Baselines: the
      constant depth that is best on these very clips, and the same heads trained on as many batches of the same data
      (in another order) on a backbone that was never trained.
    - Captions: mean token loss of the true answers. Baselines: the entropy of the answers' token frequencies (no model
      without context is better), and the same model shown the images of another sample.
    - Actions: accuracy of a linear and of an attentive probe on frozen features; that of the attentive one, which
      varies with the probe's first weights, is the mean over seeds. Baselines: chance (the most frequent class), and
      the same probe on the features of the untrained backbone.

    A figure whose task the model lacks, or whose data set is null, is left out.

    Args:
        scenes: Held-out clips with geometry.
        captions: Held-out captioned images.
        actions_train: Clips with action labels to train the probe on.
        actions_test: Clips to judge it on.
        batch_size: Samples per batch.
        token_grid: Tokens per side and frame that the action probe sees.
        probe: Shape and settings of the action probe.
        probe_epochs: Passes of the probe over its cached features.
        probe_seeds: Attentive probes per backbone, whose accuracies are averaged.
        baseline_steps: Steps of the head on the untrained backbone; None for as many as the run made.
        depth_ratio: Largest Abs Rel, relative to the best constant, that passes.
        action_ratio: Smallest accuracy, relative to chance, that passes.
        caption_note: What to say beside the caption figures, such as how their scenes differ from the default world.
        action_note: The same for the action figures.
        seed: Of the untrained backbone, and the first of the probes' seeds.

    Raises:
        ValueError: If only one half of the action clips is given, or there is to be no probe.
    """

    def __init__(
        self,
        scenes: Dataset | None = None,
        captions: Dataset | None = None,
        actions_train: Dataset | None = None,
        actions_test: Dataset | None = None,
        batch_size: int = 16,
        token_grid: int = 4,
        probe: ProbeConfig = ACTION_PROBE,
        probe_epochs: int = 20,
        probe_seeds: int = 2,
        baseline_steps: int | None = None,
        depth_ratio: float = 0.6,
        action_ratio: float = 3.0,
        caption_note: str = "",
        action_note: str = "",
        seed: int = 0,
    ) -> None:
        if (actions_train is None) != (actions_test is None):
            raise ValueError("HeldOutFigures needs both actions_train and actions_test, or neither")
        if probe_seeds < 1:
            raise ValueError(f"probe_seeds must be at least 1, got {probe_seeds}")
        self.scenes, self.captions = scenes, captions
        self.actions_train, self.actions_test = actions_train, actions_test
        self.batch_size, self.token_grid = batch_size, token_grid
        self.probe, self.probe_epochs, self.probe_seeds = probe, probe_epochs, probe_seeds
        self.baseline_steps, self.depth_ratio, self.action_ratio = baseline_steps, depth_ratio, action_ratio
        self.caption_note, self.action_note, self.seed = caption_note, action_note, seed
        self._rows: list[FigureRow] = []

    def figures(self) -> list[FigureRow]:
        """The rows measured when fitting ended."""
        return self._rows

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse before training what could not be measured after it.

        Raises:
            ValueError: If there is more than one process, the model is one objective alone, the geometry task has no
            data source of its name, or there is but one caption.
        """
        if trainer.world_size > 1:
            raise ValueError("HeldOutFigures measures in one process; remove the callback or set trainer.devices to 1")
        if not isinstance(pl_module, MultiTaskModule):
            raise ValueError(
                f"HeldOutFigures measures a MultiTaskModule, got {type(pl_module).__name__}; remove the callback, or "
                "give the objective as the only one of a MultiTaskModule"
            )
        name, geometry = _first(pl_module, GeometryModule)
        sources = getattr(getattr(trainer, "datamodule", None), "sources", {})
        if self.scenes is not None and geometry is not None and name not in sources:
            raise ValueError(
                f"HeldOutFigures trains its baseline on a data source {name!r}, there are {sorted(sources)}; "
                "rename one, or set the callback's scenes to null"
            )
        captioning = _first(pl_module, CaptioningModule)[1]
        if self.captions is not None and captioning is not None and len(self.captions) < 2:  # type: ignore[arg-type]
            raise ValueError("HeldOutFigures shows captions another sample's images: give at least two captions")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure everything there is to measure."""
        assert isinstance(pl_module, MultiTaskModule)  # on_fit_start
        backbone = pl_module.backbone
        pl_module.eval()
        untrained = self._untrained(backbone)
        rows: list[FigureRow] = []
        name, geometry = _first(pl_module, GeometryModule)
        if self.scenes is not None and geometry is not None:
            logger.info("measuring depth on held-out scenes against a constant and an untrained backbone")
            rows += self._depth_rows(trainer, pl_module, name, geometry, untrained)
        captioning = _first(pl_module, CaptioningModule)[1]
        if self.captions is not None and captioning is not None:
            logger.info("measuring captions on held-out images")
            rows += self._caption_rows(captioning, backbone)
        if self.actions_train is not None and self.actions_test is not None:
            logger.info("probing actions on frozen features")
            rows += self._action_rows(backbone, untrained)
        self._rows = rows

    def _untrained(self, backbone: nn.Module) -> nn.Module:
        """A backbone of the same shape with fresh weights."""
        fresh = copy.deepcopy(backbone)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed + 1)
            fresh.reset_parameters()  # type: ignore[operator]
        return fresh.requires_grad_(False).eval()

    def _batches(self, dataset: Any, device: torch.device) -> Iterator[Any]:
        collate = getattr(dataset, "collate", Batch.collate)
        rows = batches_of_several(len(dataset), self.batch_size)
        for batch in DataLoader(dataset, batch_sampler=rows, collate_fn=collate):
            yield batch.to(device)

    def _depth_rows(
        self, trainer: Trainer, module: MultiTaskModule, source: str, task: GeometryModule, untrained: nn.Module
    ) -> list[FigureRow]:
        baseline = train_heads(
            task,
            untrained,
            trainer.datamodule.sources[source],  # type: ignore[attr-defined]
            module.optimizer_config,
            self.baseline_steps or trainer.global_step,
            module.device,
            self.seed,
        )
        scores = {"trained": AbsRel(), "untrained": AbsRel()}
        depths, valids = [], []
        for batch in self._batches(self.scenes, module.device):
            targets = task.targets(batch)
            depths.append(targets.depth.cpu())
            valids.append(targets.valid.cpu())
            for name, head, backbone in (("trained", task, module.backbone), ("untrained", baseline, untrained)):
                prediction = head.predict(backbone, batch.images)  # type: ignore[arg-type]
                scores[name].update(prediction.depth.cpu(), depths[-1], valids[-1])
        value, other = float(scores["trained"].compute()), float(scores["untrained"].compute())
        constant = best_constant_abs_rel(torch.cat(depths)[torch.cat(valids)])
        name = f"Depth Abs Rel on {len(torch.cat(depths))} held-out clips"
        return [
            FigureRow(
                name=name,
                value=value,
                baseline=constant,
                baseline_name="best constant depth",
                at_most=self.depth_ratio,
                judged="ratio",
            ),
            FigureRow(
                name=name,
                value=value,
                baseline=other,
                baseline_name="trained head, untrained backbone",
                at_most=0.95,
                judged="ratio",
                note="same head, training data and number of steps; its backbone keeps its random weights",
            ),
        ]

    def _caption_rows(self, task: CaptioningModule, backbone: nn.Module) -> list[FigureRow]:
        sums = torch.zeros(2, 2)
        counts = torch.zeros(task.tokenizer.vocab_size, dtype=torch.int64)
        for batch in self._batches(self.captions, task.device):
            for i, shuffle in enumerate((False, True)):
                loss = task.token_loss(backbone, batch, shuffle_images=shuffle)
                sums[i] += torch.tensor([float(loss.total), float(loss.count)])
            counts += task.answer_token_counts(batch).cpu()
        value, shuffled = (sums[:, 0] / sums[:, 1]).tolist()
        name = f"Caption token loss on {len(self.captions)} held-out images"  # type: ignore[arg-type]
        return [
            FigureRow(
                name=name,
                value=value,
                unit="nats",
                baseline=unigram_entropy(counts),
                baseline_name="token frequencies alone",
                at_most=0.75,
                judged="ratio",
                note=self.caption_note,
            ),
            FigureRow(
                name=name,
                value=value,
                unit="nats",
                baseline=shuffled,
                baseline_name="shown another image",
                at_most=0.95,
                judged="ratio",
                note=self.caption_note,
            ),
        ]

    def _action_rows(self, backbone: nn.Module, untrained: nn.Module) -> list[FigureRow]:
        num_classes = len(self.actions_train.classes)  # type: ignore[union-attr]
        device = next(backbone.parameters()).device
        attentive, linear = [], []
        # Rendered once, for both backbones.
        batches = [list(self._batches(data, device)) for data in (self.actions_train, self.actions_test)]
        for model in (backbone, untrained):
            train, test = (cache_features(model, loader, token_grid=self.token_grid) for loader in batches)
            linear.append(fit_linear_probe(*train, *test, num_classes=num_classes, seed=self.seed).accuracy)
            attentive.append(self._attentive_accuracy(train, test, num_classes))
        chance = max(1 / num_classes, float(torch.bincount(test.labels).max()) / len(test.labels))
        number = f"mean of {self.probe_seeds} probes with different seeds" if self.probe_seeds > 1 else "one seed"
        attentive_note = f"{self.action_note}; {number}" if self.action_note else number
        return [
            *self._accuracy_rows("linear", linear, chance, num_classes, self.action_note),
            *self._accuracy_rows("attentive", attentive, chance, num_classes, attentive_note),
        ]

    def _attentive_accuracy(self, train: CachedFeatures, test: CachedFeatures, num_classes: int) -> float:
        """Mean over the seeds."""
        results = [
            fit_action_probe(
                *train,
                *test,
                num_classes=num_classes,
                config=self.probe,
                position_embedding=True,
                epochs=self.probe_epochs,
                seed=self.seed + i,
            )
            for i in range(self.probe_seeds)
        ]
        return sum(result.accuracy for result in results) / len(results)

    def _accuracy_rows(
        self, probe: str, accuracies: list[float], chance: float, num_classes: int, note: str
    ) -> list[FigureRow]:
        """A probe's accuracy on the trained backbone against chance, and against that on the untrained one."""
        value, untrained = accuracies
        name = f"Action accuracy, {probe} probe, {len(self.actions_test)} held-out clips"  # type: ignore[arg-type]
        return [
            FigureRow(
                name=name,
                value=value,
                baseline=chance,
                baseline_name=f"chance among {num_classes} classes",
                at_least=self.action_ratio,
                judged="ratio",
                note=note,
            ),
            FigureRow(
                name=name,
                value=value,
                baseline=untrained,
                baseline_name="the same probe on an untrained backbone",
                note=note,
            ),
        ]


def _first(module: MultiTaskModule, kind: type[TaskT]) -> tuple[str, TaskT | None]:
    """Name and task of the first objective of a kind, if there is one."""
    return next(((name, task) for name, task in module.objectives.items() if isinstance(task, kind)), ("", None))


def batches_of_several(num_samples: int, batch_size: int) -> list[list[int]]:
    """Indices in order, in batches of which none holds a single sample: it could not be shown another one's images.

    Example:
        >>> batches_of_several(5, 2)
        [[0, 1], [2, 3, 4]]
    """
    size = max(batch_size, 2)
    starts = range(0, num_samples, size)
    batches = [list(range(start, min(start + size, num_samples))) for start in starts]
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] += last
    return batches


def train_heads(
    task: GeometryModule,
    backbone: nn.Module,
    source: Any,
    optimizer_config: OptimizerConfig,
    steps: int,
    device: torch.device,
    seed: int,
) -> GeometryModule:
    """Fresh geometry heads, trained on a frozen backbone with a run's optimiser and data, in an order of its own.

    Args:
        task: Gives the settings of heads and losses; it is not changed.
        backbone: Frozen, in eval mode.
        source: The run's training data of the task, a `Source`.
        optimizer_config: As in the run.
        steps: Optimiser steps.
        device: Where to train.
        seed: Of the heads' initial weights and the order of samples.
    """
    heads = copy.deepcopy(task)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        heads.build(backbone)  # type: ignore[arg-type]
    heads.to(device).train()
    made = build_optimizer(heads, optimizer_config, steps)
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    sampler = EndlessBatchSampler(len(source.train), source.batch_size, seed=seed)
    loader = DataLoader(source.train, batch_sampler=sampler, collate_fn=SceneClip.collate)
    for step, batch in zip(range(steps), loader, strict=False):
        optimizer.zero_grad()
        heads.compute(backbone, batch.to(device), step).total.backward()
        if optimizer_config.grad_clip is not None:
            nn.utils.clip_grad_norm_(heads.parameters(), optimizer_config.grad_clip)
        optimizer.step()
        schedule.step()
    return heads.eval()


def best_constant_abs_rel(depth: Tensor) -> float:
    """Smallest mean of |c - t| / t that one constant c reaches over all true depths t: a median weighted by 1 / t.

    Example:
        >>> best_constant_abs_rel(torch.tensor([1.0, 2.0, 2.0]))
        0.333...
    """
    ordered = depth.double().sort().values
    weight = (1 / ordered).cumsum(0)
    constant = ordered[int(torch.searchsorted(weight, weight[-1] / 2))]
    return float(((constant - ordered).abs() / ordered).mean())
