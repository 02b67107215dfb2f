"""Which curves of a run share a panel."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from omnistream.plots.logs import Series
from omnistream.plots.titles import task_title, term_title

Kind = Literal["loss", "learning rate", "rate"]
RATES: dict[str, Kind] = {
    "Learning rate": "learning rate", "Frames per second": "rate", "Gradient norm": "rate",
}  # fmt: skip


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
    """One panel per task (and micro-batch), then all losses, then learning rate, frames/s and gradient norm.

    A name is `{stage}/{task}/{term}` or `{stage}/{task}/{micro-batch}/{term}`; a name without a task (`train/loss`)
    goes to the panel "All tasks". `epoch` and the like, which are no `train/` or `val/` number, are left out, and so is
    a panel none of whose lines has two points.
    """
    tasks: dict[str, list[Line]] = defaultdict(list)
    rest: dict[str, list[Line]] = defaultdict(list)
    for name, series in sorted(scalars.items()):
        stage, _, key = name.removesuffix("_step").removesuffix("_epoch").partition("/")
        first, last = key.partition("/")[0], key.rpartition("/")[2]
        if "learning_rate" in name or name.startswith("lr") or first == "lr" or first.startswith("lr_"):
            rest["Learning rate"].append(Line(term_title(last) or name, "train", series))
        elif "grad_norm" in name:
            rest["Gradient norm"].append(Line(term_title(last), "train", series))
        elif stage not in ("train", "val"):
            continue
        elif "frames_per_second" in key:
            rest["Frames per second"].append(Line("frames/s", stage, series))
        elif "/" in key:
            tasks[key.rpartition("/")[0]].append(Line(term_title(last), stage, series))
        else:
            rest["All tasks"].append(Line(term_title(last), stage, series))
    found = [Panel(task_title(task), "loss", tuple(lines)) for task, lines in sorted(tasks.items())]
    found += [Panel(name, RATES.get(name, "loss"), tuple(rest[name])) for name in ("All tasks", *RATES) if name in rest]
    return [panel for panel in found if any(line.is_curve for line in panel.lines)]
