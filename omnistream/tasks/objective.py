"""The contract of a training objective: fitted alone, or one of many inside MultiTaskModule."""

from typing import Any, ClassVar

from omnistream.backbone import OmniStream
from omnistream.tasks.contract import ObjectiveLoss, Task
from omnistream.tasks.nonfinite import NonFiniteConfig
from omnistream.tasks.optimization import OptimizerConfig
from omnistream.tasks.training import TrainingModule

__all__ = ["Objective", "ObjectiveLoss"]


class Objective(Task, TrainingModule):
    """Base of SSL, geometry and captioning.

    An objective owns its heads, not the backbone: `build(backbone)` makes the heads for a backbone, and every call is
    given the backbone. Alone (constructed with a backbone) it registers the backbone and trains both; inside
    MultiTaskModule the backbone belongs to that module. The training loop is the same, and so are the names in the log:
    `train/<task_name>/<term>`.

    Subclasses call `super().__init__` first and `self.record_arguments(locals())` and `self.attach(backbone)` last in
    their constructor, set `task_name`, implement `build` and `compute`, and may override `micro_batches` and
    `after_step`. Inside `compute`, every parameter must be used through some module's `__call__`, which is what FSDP2
    hooks.

    Args:
        optimizer: Used when fitted alone.
        nonfinite: Likewise: what to do about NaN or infinite losses.
        compile: Likewise: compile the transformer blocks.
        seed: Likewise: of the random choices within steps.
    """

    task_name: ClassVar[str] = "task"
    """Name in the log when fitted alone; inside MultiTaskModule the name in `tasks` counts."""

    def __init__(
        self,
        optimizer: OptimizerConfig | None = None,
        *,
        nonfinite: NonFiniteConfig | None = None,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer, nonfinite, compile, seed)
        self.weights = {self.task_name: 1.0}
        self.backbone = None

    def attach(self, backbone: OmniStream | None) -> None:
        """Register a backbone to be trained with this objective alone, and make the heads for it; None does nothing."""
        if backbone is not None:
            self.backbone = backbone
            self.count_batches()
            self.build(backbone)

    @property
    def objectives(self) -> dict[str, Any]:
        """Alone: itself."""
        return {self.task_name: self}

    def task_batches(self, batch: Any) -> dict[str, Any]:
        """Alone: the batch itself, or what a data module of several tasks gives this one."""
        return batch if isinstance(batch, dict) and self.task_name in batch else {self.task_name: batch}

    def build(self, backbone: OmniStream) -> None:
        """Create the heads for this backbone; called once."""
        raise NotImplementedError
