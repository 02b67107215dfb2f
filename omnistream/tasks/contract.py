"""The interface between the training loop and an objective."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class TrainedTask(Protocol):
    """Interface of an objective for the training loop; `Objective` documents each member."""

    total_steps: int | None

    def compute(self, backbone: nn.Module, batch: Any, step: int) -> ObjectiveLoss:
        """Loss of a micro-batch."""
        ...

    def micro_batches(self, batch: Any) -> dict[str, Any]:
        """Parts of a batch, each with its own backward pass."""
        ...

    def after_step(self, backbone: nn.Module, step: int) -> None:
        """What follows the optimiser step."""
        ...

    def update_metrics(self, backbone: nn.Module, batch: Any, loss: ObjectiveLoss) -> None:
        """Add a validation micro-batch to the metrics."""
        ...

    def compute_metrics(self) -> dict[str, Tensor]:
        """Metrics since the last call."""
        ...

    def own_backbones(self) -> list[OmniStream]:
        """Backbones besides the shared one."""
        ...

    def fsdp_units(self) -> list[nn.Module]:
        """Modules to shard."""
        ...

    def own_parameters(self) -> Iterable[nn.Parameter]:
        """All parameters but the shared backbone's."""
        ...
