"""The panels of the curves of a run."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from omnistream.plots.logs import Series
from omnistream.plots.titles import task_title

Kind = Literal["loss", "learning rate", "rate"]
RATES: dict[str, Kind] = {
    "Learning rate": "learning rate", "Frames per second": "rate", "Gradient norm": "rate",
}  # fmt: skip
LABELS = {"lr": "heads", "lr_backbone": "backbone"}


@dataclass(frozen=True)
class Line:
    """One line of a panel."""

    label: str
    stage: str
    """`train` or `val`."""
    series: Series

    @property
    def is_curve(self) -> bool:
        """Whether there are at least two points to join."""
        return int(np.isfinite(self.series.values).sum()) > 1


@dataclass(frozen=True)
class Panel:
    """Lines that are drawn over each other."""

    title: str
    kind: Kind
    """Learning rates are drawn as they are; of everything else a smoothed line is drawn over the values."""
    lines: tuple[Line, ...]


def panels(scalars: Mapping[str, Series]) -> list[Panel]:
    """One panel per task (and micro-batch) for what is logged in training, one for what is only validated, then rates.

    A name is `{stage}/{task}/{term}` or `{stage}/{task}/{micro-batch}/{term}`; a name without a task (`train/loss`)
    goes to the panel "All tasks". `epoch` and other values that are not `train/` or `val/` numbers are left out, and so
    is a panel none of whose lines has two points.
    """
    groups: dict[str, list[Line]] = defaultdict(list)
    tasks: dict[str, list[Line]] = defaultdict(list)
    for name, series in sorted(scalars.items()):
        stage, _, key = name.removesuffix("_step").removesuffix("_epoch").partition("/")
        task, _, term = key.rpartition("/")
        if group := _rate_of(name, key):
            label = "frames/s" if group == "Frames per second" else LABELS.get(term, _words(term or name))
            groups[group].append(Line(label, "val" if stage == "val" else "train", series))
        elif stage in ("train", "val"):
            (tasks[task] if task else groups["All tasks"]).append(Line(_words(term), stage, series))
    found = [panel for task, lines in sorted(tasks.items()) for panel in _task_panels(task_title(task), lines)]
    for title in ("All tasks", *RATES):
        found.append(Panel(title, RATES.get(title, "loss"), tuple(groups[title])))
    return [panel for panel in found if any(line.is_curve for line in panel.lines)]


def _rate_of(name: str, key: str) -> str | None:
    """The panel of a learning rate, speed or gradient norm; None for anything else."""
    if "learning_rate" in name or name.startswith("lr") or re.match(r"lr(_|/|$)", key):
        return "Learning rate"
    if "grad_norm" in name:
        return "Gradient norm"
    return "Frames per second" if "frames_per_second" in key else None


def _task_panels(title: str, lines: list[Line]) -> list[Panel]:
    trained = {line.label for line in lines if line.stage == "train"}
    losses = [line for line in lines if line.label in trained]
    metrics = [line for line in lines if line.label not in trained]
    return [Panel(title, "loss", tuple(losses)), Panel(f"{title}: metrics", "loss", tuple(metrics))]


def _words(term: str) -> str:
    return term.replace("_", " ")
