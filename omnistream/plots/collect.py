"""Collects the plots of the tasks of a module."""

from collections.abc import Mapping
from typing import Any

from lightning import LightningModule
from torch import nn

from omnistream.tasks.plots import HasPlots, Plot


def tasks_of(module: nn.Module) -> dict[str, nn.Module]:
    """The tasks of a multi-task module (its `tasks`) by name; empty for a module that is a task itself."""
    tasks = getattr(module, "tasks", None)
    return dict(tasks.items()) if isinstance(tasks, nn.ModuleDict | Mapping) else {}


def collect_plots(module: LightningModule, batch: Any, limit: int) -> dict[str, Plot]:
    """Plots of every task that has any; the task's name is prepended to theirs.

    If the module itself has `plots`, they are those; otherwise those of each of its `tasks` with a part of that name in
    the batch.

    Args:
        module: Has its backbone as attribute `backbone`.
        batch: The validation batch of the module.
        limit: Samples to show at most, per task.
    """
    backbone = module.get_submodule("backbone")
    if isinstance(module, HasPlots):
        return dict(module.plots(backbone, batch, limit))
    found: dict[str, Plot] = {}
    parts = batch if isinstance(batch, Mapping) else {}
    for name, task in tasks_of(module).items():
        if isinstance(task, HasPlots) and parts.get(name) is not None:
            found |= {f"{name}/{key}": plot for key, plot in task.plots(backbone, parts[name], limit).items()}
    return found


def can_plot(module: LightningModule) -> bool:
    """Whether the module or one of its tasks has plots."""
    return any(isinstance(part, HasPlots) for part in (module, *tasks_of(module).values()))
