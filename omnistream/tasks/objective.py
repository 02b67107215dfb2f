"""The contract of a training objective: fitted alone, or one of many inside MultiTaskModule."""

from dataclasses import dataclass, field
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from omnistream.backbone import OmniStream
from omnistream.tasks.optimization import OptimizerConfig, build_optimizer
from omnistream.tasks.prediction import ClipFeatures, predict_features


@dataclass
class ObjectiveLoss:
    """The result of one forward pass of an objective.

    Attributes:
        total: Scalar with gradient: the weighted sum of the terms.
        terms: Unweighted scalars by name, without gradient, for logs and for naming what became non-finite. The names
            are the same on every process, because the values are averaged over processes.
        details: Further scalars for logs that a batch may lack, such as the loss of one kind of sample; of this process
            alone.
        aux: Anything a plotting callback may want (predictions), without gradient.
    """

    total: Tensor
    terms: dict[str, Tensor]
    details: dict[str, Tensor] = field(default_factory=dict)
    aux: dict[str, Any] = field(default_factory=dict)


class Objective(LightningModule):
    """Base of SSL, geometry and captioning.

    An objective owns its heads, not the backbone: `build(backbone)` makes the heads for a backbone, and every call is
    handed the backbone. Alone (constructed with a backbone) it registers the backbone and optimises both; inside
    MultiTaskModule the backbone belongs to that module.

    Subclasses call `save_hyperparameters` themselves if they want it, implement `build` and `compute`, and may override
    `micro_batches` and `after_step`. Inside `compute`, every parameter must be used through some module's `__call__`,
    which is what FSDP2 hooks.

    Args:
        backbone: Given when fitted alone.
        optimizer: Used when fitted alone.
    """

    def __init__(self, backbone: OmniStream | None = None, optimizer: OptimizerConfig | None = None) -> None:
        super().__init__()
        self.optimizer_config = optimizer or OptimizerConfig()
        self.total_steps: int | None = None
        """Optimiser steps of the whole run, for schedules; set when fitting starts."""
        self.backbone = backbone
        if backbone is not None:
            self.build(backbone)

    def build(self, backbone: OmniStream) -> None:
        """Create the heads for this backbone; called once, after all constructor arguments are attributes."""
        raise NotImplementedError

    def compute(self, backbone: nn.Module, batch: Any, step: int) -> ObjectiveLoss:
        """Forward pass and loss of one micro-batch.

        Args:
            backbone: As given to `build`, perhaps wrapped for parallelism.
            batch: One value of `micro_batches`.
            step: Optimiser steps done so far, for schedules.
        """
        raise NotImplementedError

    def micro_batches(self, batch: Any) -> dict[str, Any]:
        """Parts of a batch that are run one after the other, each with its own backward pass; names prefix the logs."""
        return {"": batch}

    def after_step(self, backbone: nn.Module, step: int) -> None:
        """Called after the optimiser step with the number of steps now done; an EMA teacher is updated here."""

    def update_metrics(self, backbone: nn.Module, batch: Any, loss: ObjectiveLoss) -> None:
        """Add one validation micro-batch, whose loss was computed, to the metrics; a task without metrics has none."""

    def compute_metrics(self) -> dict[str, Tensor]:
        """The task's metrics since the last call, by name, and a fresh start; called at the end of validation."""
        return {}

    def own_backbones(self) -> list[OmniStream]:
        """Backbones this task holds besides the shared one (teachers), sharded like it."""
        return [m for m in self.modules() if isinstance(m, OmniStream) and m is not self.backbone]

    def fsdp_units(self) -> list[nn.Module]:
        """Modules whose `__call__` FSDP2 hooks, inner ones first: by default every child that is not a backbone."""
        return [child for child in self.children() if not isinstance(child, OmniStream)]

    def on_fit_start(self) -> None:
        """Alone: learn how long training is."""
        self.total_steps = self.trainer.max_steps

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Alone: the summed loss of all micro-batches, optimised automatically."""
        assert self.backbone is not None
        total = torch.zeros((), device=self.device)
        for name, part in self.micro_batches(batch).items():
            loss = self.compute(self.backbone, part, self.global_step)
            prefix = f"train/{name}/" if name else "train/"
            self.log_dict({prefix + n: value for n, value in (loss.terms | loss.details).items()}, batch_size=1)
            total = total + loss.total
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=1)
        return total

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Alone: tell the objective that a step was made."""
        if self.backbone is not None:
            self.after_step(self.backbone, self.global_step)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Alone: log the loss of every micro-batch."""
        self._evaluate("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Alone: as in validation."""
        self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: Any) -> None:
        assert self.backbone is not None
        for name, part in self.micro_batches(batch).items():
            loss = self.compute(self.backbone, part, self.global_step)
            prefix = f"{stage}/{name}/" if name else f"{stage}/"
            self.log_dict({prefix + term: value for term, value in loss.terms.items()}, batch_size=1, sync_dist=True)
            self.log(f"{prefix}loss", loss.total, batch_size=1, sync_dist=True)
            self.update_metrics(self.backbone, part, loss)

    def on_validation_epoch_end(self) -> None:
        """Alone: log the task's metrics."""
        self.log_dict({f"val/{key}": value for key, value in self.compute_metrics().items()}, batch_size=1)

    def on_test_epoch_end(self) -> None:
        """Alone: log the task's metrics."""
        self.log_dict({f"test/{key}": value for key, value in self.compute_metrics().items()}, batch_size=1)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, list[ClipFeatures]]:
        """Alone: features of the batch's clips."""
        assert self.backbone is not None
        return predict_features(self.backbone, batch if isinstance(batch, dict) else {"clips": batch})

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Alone: clip by the trainer's value, or else by that of `OptimizerConfig`."""
        if gradient_clip_val is None:
            gradient_clip_val, gradient_clip_algorithm = self.optimizer_config.grad_clip, "norm"
        self.clip_gradients(
            optimizer, gradient_clip_val=gradient_clip_val, gradient_clip_algorithm=gradient_clip_algorithm
        )

    def configure_optimizers(self) -> Any:
        """Adam with linear warm-up and cosine decay (paper Sec. 4.2)."""
        return build_optimizer(self, self.optimizer_config, self.trainer.max_steps)
