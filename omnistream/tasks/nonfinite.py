"""Handling of NaN and infinite losses and gradients."""

import logging
import math
from dataclasses import dataclass
from typing import Literal

from omnistream.tasks.step_numbers import StepReport

logger = logging.getLogger(__name__)


class NonFiniteLossError(RuntimeError):
    """A loss or gradient became NaN or infinite; the message names task and term."""


@dataclass(frozen=True)
class NonFiniteConfig:
    """What to do when a loss or gradient is NaN or infinite."""

    action: Literal["stop", "skip"] = "stop"
    """`stop` raises; `skip` drops the whole step: no update of the weights or of any teacher."""
    limit: int = 10
    """With `skip`: maximum number of consecutive steps that are dropped before training stops."""


class NonFiniteGuard:
    """Counts the steps dropped in a row, and stops training when there are too many.

    Args:
        config: What to do.
    """

    def __init__(self, config: NonFiniteConfig) -> None:
        self.config = config
        self.dropped_in_a_row = 0

    def accepts(self, problem: str | None, where: str) -> bool:
        """Whether the step may be taken.

        Args:
            problem: What is not finite; None if everything is.
            where: Step and batch, for the message.

        Raises:
            NonFiniteLossError: If there is a problem, and training must stop.
        """
        if problem is None:
            self.dropped_in_a_row = 0
            return True
        self.dropped_in_a_row += 1
        if self.config.action == "stop":
            raise NonFiniteLossError(f"{where}: {problem}; set model.nonfinite.action to 'skip' to drop such steps")
        if self.dropped_in_a_row > self.config.limit:
            raise NonFiniteLossError(
                f"{where}: {problem}; {self.dropped_in_a_row} steps in a row, the limit is {self.config.limit}"
            )
        logger.warning("dropped %s: %s", where, problem)
        return False


def nonfinite_part(report: StepReport) -> str | None:
    """What is NaN or infinite in a step, a loss before a gradient, as words; None if everything is finite.

    The same answer on every process but for the value: losses are averaged over processes, and so are gradients.
    """
    if (name := _first(report.means)) is not None:
        task, _, term = name.removeprefix("train/").rpartition("/")
        return f"the {term} of task {task} is not finite ({report.own[name]} on this process)"
    norms = {name: value for name, value in report.local.items() if name.startswith("grad_norm/")}
    if (name := _first(norms)) is not None:
        part = "all together" if name == "grad_norm/total" else name.removeprefix("grad_norm/")
        return f"the gradient of {part} is not finite ({norms['grad_norm/total']})"
    return None


def _first(values: dict[str, float]) -> str | None:
    return next((name for name, value in values.items() if not math.isfinite(value)), None)
