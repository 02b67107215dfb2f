"""One backbone, many objectives, one optimiser step (paper Sec. 3.3 and 4.2)."""

import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from omnistream.backbone import OmniStream
from omnistream.backbone.weights.files import read_checkpoint
from omnistream.tasks.nonfinite import NonFiniteConfig
from omnistream.tasks.objective import Objective
from omnistream.tasks.optimization import OptimizerConfig
from omnistream.tasks.training import TrainingModule

logger = logging.getLogger(__name__)

REQUIRED = "REQUIRED"
"""Stands in a configuration for a checkpoint that only the user can name."""
PAPER_WEIGHTS = {"ssl": 0.1, "geometry": 1.0, "captioning": 1.0}
"""Paper Eq. 10."""


class MultiTaskModule(TrainingModule):
    """Trains one backbone on several objectives at once; see `TrainingModule` for what a step does.

    A task set to null is left out.

    Args:
        backbone: The shared backbone.
        tasks: Objectives by name; null leaves one out (an ablation).
        weights: Factor of each task's loss; default the paper's 0.1 for `ssl` and 1 for the others.
        optimizer: Learning rate, warm-up, clipping, accumulation.
        nonfinite: What to do about NaN or infinite losses.
        compile: Compile the transformer blocks.
        seed: Of the random choices within steps.
        init_from: Checkpoint of an earlier stage, or its run folder: its weights, heads and teachers are taken over,
            its optimiser, schedules and position in the data are not. (`--ckpt_path` continues a run; this starts the
            next.) `REQUIRED`, as in the second stage's configuration, is refused.

    Raises:
        ValueError: If no task is left, a weight belongs to no task or is negative or not finite, or `init_from` is
            `REQUIRED`, cannot be read or lacks weights of this module.
        FileNotFoundError: If there is no checkpoint at `init_from`.
    """

    def __init__(
        self,
        backbone: OmniStream,
        tasks: dict[str, Objective | None],
        weights: dict[str, float] | None = None,
        optimizer: OptimizerConfig | None = None,
        nonfinite: NonFiniteConfig | None = None,
        compile: bool = False,
        seed: int = 0,
        init_from: Path | str | None = None,
    ) -> None:
        super().__init__(optimizer, nonfinite, compile, seed)
        if str(init_from) == REQUIRED:
            raise ValueError(
                "this stage goes on from an earlier one: pass its checkpoint, --model.init_from STAGE1.ckpt "
                "(or null, to train from the backbone as it is)"
            )
        active = {name: task for name, task in tasks.items() if task is not None}
        if not active:
            raise ValueError(
                "every task is null: nothing to train; keep at least one of " + ", ".join(tasks or ["ssl"])
            )
        self.weights = _task_weights(active, weights or {}, set(tasks))
        self.backbone = backbone
        self.tasks = nn.ModuleDict(active)
        for name, task in active.items():
            try:
                task.build(backbone)
            except ValueError as error:
                raise ValueError(f"tasks.{name}: {error}") from error
        self.count_batches()
        self.record_arguments({**locals(), "init_from": None})
        if init_from is not None:
            self._take_over(init_from)

    @property
    def objectives(self) -> dict[str, Any]:
        """The active tasks by name."""
        return dict(self.tasks.items())

    def task_batches(self, batch: Any) -> dict[str, Any]:
        """A batch of `MultiTaskDataModule`, which is a dictionary by task."""
        return batch

    def absent_tasks(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Tasks of a checkpoint that were set to null here."""
        saved = {key.split(".")[1] for key in keys if key.startswith("tasks.")}
        return tuple(f"tasks.{name}." for name in sorted(saved - set(self.tasks)))

    def _take_over(self, path: Path | str) -> None:
        state = read_checkpoint(path)
        state.pop("batch_count", None)
        own = set(self.state_dict()) - {"batch_count"}
        if missing := sorted(own - set(state)):
            raise ValueError(f"{path} lacks {len(missing)} weights of this model, such as {missing[:3]}")
        left = sorted({".".join(key.split(".")[:2]) for key in set(state) - own})
        self.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)
        logger.info("took over all weights from %s; not used: %s", path, ", ".join(left) or "nothing")


def _task_weights(active: dict[str, Objective], given: dict[str, float], known: set[str]) -> dict[str, float]:
    if unknown := sorted(set(given) - known):
        raise ValueError(f"weights for tasks that do not exist: {unknown}; the tasks are {sorted(known)}")
    if bad := {name: weight for name, weight in given.items() if not math.isfinite(weight) or weight < 0}:
        raise ValueError(f"weights of tasks must be finite and not negative, got {bad}; null leaves a task out")
    return {name: given.get(name, PAPER_WEIGHTS.get(name, 1.0)) for name in active}
