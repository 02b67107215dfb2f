"""What the training loop needs of an objective."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from omnistream.backbone import OmniStream


@dataclass
class ObjectiveLoss:
    """The result of one forward pass of an objective.

    Attributes:
        total: Scalar with gradient: the weighted sum of the terms.
        terms: Unweighted scalars by name, without gradient, for logs and for error messages about non-finite values.
            The names are the same on every process, because the values are averaged over processes.
        details: Further scalars for logs that a batch may lack, such as the loss of one kind of sample; of this process
            alone.
        aux: What metrics of a validation need of the forward pass (predictions, tokens), without gradient.
    """

    total: Tensor
    terms: dict[str, Tensor]
    details: dict[str, Tensor] = field(default_factory=dict)
    aux: dict[str, Any] = field(default_factory=dict)


class Task(nn.Module):
    """Forward pass, metrics and parts of an objective, which `TrainingModule` runs; see `Objective`."""

    backbone: OmniStream | None
    """The shared backbone where the objective is fitted alone, else None."""
    total_steps: int | None = None
    """Optimiser steps of the whole run, for schedules; set when fitting starts."""

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
        """Called once after every optimiser step with the number of steps now done; an EMA teacher is updated here."""

    def update_metrics(self, backbone: nn.Module, batch: Any, loss: ObjectiveLoss) -> None:
        """Add one validation micro-batch, whose loss was computed, to the metrics; a task without metrics has none."""

    def compute_metrics(self) -> dict[str, Tensor]:
        """The task's metrics since the last call, by name, followed by a reset; called at the end of validation."""
        return {}

    def own_backbones(self) -> list[OmniStream]:
        """Backbones this task holds besides the shared one (teachers), sharded like it."""
        return [m for m in self.modules() if isinstance(m, OmniStream) and m is not self.backbone]

    def own_parameters(self) -> list[nn.Parameter]:
        """All parameters but the shared backbone's."""
        return [p for name, p in self.named_parameters() if not name.startswith("backbone.")]

    def fsdp_units(self) -> list[nn.Module]:
        """Modules whose `__call__` FSDP2 hooks, inner ones first: by default every child that is not a backbone."""
        return [child for child in self.children() if not isinstance(child, OmniStream)]
