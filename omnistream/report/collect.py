"""Asks the tasks of a module for what there is to show."""

from collections.abc import Iterable, Mapping
from typing import Any

from lightning import LightningModule
from torch import nn

from omnistream.report.figures import FigureRow, Measures
from omnistream.tasks.plots import Draws, Plot


def tasks_of(module: nn.Module) -> dict[str, nn.Module]:
    """The tasks of a multi-task module (its `tasks`) by name; empty for a module that is a task itself."""
    tasks = getattr(module, "tasks", None)
    return dict(tasks.items()) if isinstance(tasks, nn.ModuleDict | Mapping) else {}


def collect_plots(module: LightningModule, batch: Any, limit: int) -> dict[str, Plot]:
    """Pictures of every task that has some, with the task's name before theirs.

    A module that itself has `pictures` is asked as it is; otherwise each of its `tasks` with a part of this name in
    the batch.

    Args:
        module: With its backbone as attribute `backbone`.
        batch: The validation batch of the module.
        limit: Samples to show at most, per task.
    """
    backbone = module.get_submodule("backbone")
    if isinstance(module, Draws):
        return dict(module.pictures(backbone, batch, limit))
    found: dict[str, Plot] = {}
    parts = batch if isinstance(batch, Mapping) else {}
    for name, task in tasks_of(module).items():
        if isinstance(task, Draws) and parts.get(name) is not None:
            pictures = task.pictures(backbone, parts[name], limit)
            found |= {f"{name}/{key}": picture for key, picture in pictures.items()}
    return found


def can_draw(module: LightningModule) -> bool:
    """Whether the module or one of its tasks has pictures."""
    return any(isinstance(part, Draws) for part in (module, *tasks_of(module).values()))


def collect_figures(parts: Iterable[object]) -> list[FigureRow]:
    """Rows of every module or callback among `parts` that has figures, in order."""
    return [row for part in parts if isinstance(part, Measures) for row in part.figures()]
