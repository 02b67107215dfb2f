"""Curves of a run: losses per task, learning rate and frames/s, from its log files."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes

from omnistream.plots.sheet import MUTED_COLOR, Sheet

PALETTE = (
    *("#1f77b4", "#d65d0e", "#2a9d5c", "#c03a8e", "#7a5cc9", "#8c6d31", "#17a2b8", "#5b6470"),
    *("#e0a100", "#0b3d91", "#ff7f9e", "#111111"),
)
RATES = ("learning rate", "frames per second", "gradient norm")
PANEL_WIDTH, PANEL_HEIGHT, TOP = 390, 290, 40
LEGEND_COLUMNS, LEGEND_LINE = 3, 15


@dataclass(frozen=True)
class Series:
    """One logged number over the steps of a run."""

    steps: tuple[int, ...]
    """Ascending, without repetition."""
    values: tuple[float, ...]

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[int, float]]) -> "Series":
        """Sorted by step; of a step that was logged twice (a resumed run) the later entry counts."""
        ordered = sorted(dict(pairs).items())
        return cls(tuple(step for step, _ in ordered), tuple(value for _, value in ordered))


def read_scalars(path: Path | str) -> dict[str, Series]:
    """Every scalar of a run by its name.

    Args:
        path: A folder with TensorBoard event files or a `metrics.csv` (Lightning's CSVLogger), or a `.csv` or
        `.jsonl` file
            whose rows have a column `step`. Several kinds in one folder are merged.

    Raises:
        FileNotFoundError: If there is no such folder or file, or no log in it.
        ValueError: If a file has another ending, or rows without a step.
    """
    path = Path(path)
    if path.is_dir():
        sources = sorted(path.glob("*.csv")) + sorted(path.glob("*.jsonl"))
        pairs = _merge(_read_table(source) for source in sources)
        if any(path.glob("events.out.tfevents.*")):
            pairs = _merge([pairs, _read_events(path)])
        elif not sources:
            raise FileNotFoundError(f"no TensorBoard event file, .csv or .jsonl in {path}")
    elif path.is_file():
        pairs = _read_table(path)
    else:
        raise FileNotFoundError(f"no log at {path}")
    return {name: Series.from_pairs(values) for name, values in sorted(pairs.items())}


def _merge(parts: Iterable[Mapping[str, list[tuple[int, float]]]]) -> dict[str, list[tuple[int, float]]]:
    merged: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for part in parts:
        for name, pairs in part.items():
            merged[name] += pairs
    return merged


def _read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow to import

    # 0 keeps everything; of images and the rest only the newest is kept, because they are not read here
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1, "tensors": 1, "histograms": 1})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _read_table(path: Path) -> dict[str, list[tuple[int, float]]]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            rows: list[dict[str, object]] = list(csv.DictReader(file))
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    else:
        raise ValueError(f"expected a .csv or .jsonl file, got {path}")
    pairs: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for number, row in enumerate(rows, start=1):
        if row.get("step") in (None, ""):
            raise ValueError(f"{path}: row {number} has no value for 'step'")
        for name, value in row.items():
            if name not in ("step", "epoch") and value not in (None, ""):
                pairs[name].append((int(float(str(row["step"]))), float(str(value))))
    return pairs


@dataclass(frozen=True)
class Line:
    """One line of a panel."""

    label: str
    stage: str
    series: Series


def panels(scalars: Mapping[str, Series]) -> dict[str, list[Line]]:
    """Which curves share a panel: one panel per task (and micro-batch), then all losses, then rates.

    A name is `{stage}/{task}/{term}` or `{stage}/{task}/{micro-batch}/{term}`; a name without a task (`train/loss`)
    goes to the panel "total". Learning rates, frames/s and gradient norms have their own panels. `epoch` and the
    like, which are no `train/` or `val/` number, are left out.
    """
    tasks: dict[str, list[Line]] = defaultdict(list)
    rest: dict[str, list[Line]] = defaultdict(list)
    for name, series in scalars.items():
        stage, _, key = name.removesuffix("_step").removesuffix("_epoch").partition("/")
        if "learning_rate" in name or name.startswith("lr") or key.split("/")[0] == "lr":
            rest["learning rate"].append(Line(name, "train", series))
        elif "grad_norm" in name:
            rest["gradient norm"].append(Line(key.split("/")[-1], "train", series))
        elif stage not in ("train", "val"):
            continue
        elif "frames_per_second" in key:
            rest["frames per second"].append(Line("frames/s", stage, series))
        elif "/" in key:
            task, term = key.rsplit("/", 1)
            tasks[task].append(Line(term, stage, series))
        else:
            rest["total"].append(Line(key, stage, series))
    return dict(sorted(tasks.items())) | {name: rest[name] for name in ("total", *RATES) if name in rest}


def smooth(values: np.ndarray, weight: float) -> np.ndarray:
    """Exponential moving average without start-up bias; values that are not finite are left out of the average."""
    result, mean, mass = np.empty(len(values)), 0.0, 0.0
    for index, value in enumerate(values):
        if math.isfinite(value):
            mean, mass = weight * mean + (1 - weight) * value, weight * mass + (1 - weight)
        result[index] = mean / mass if mass else math.nan
    return result


def draw_curves(scalars: Mapping[str, Series], *, columns: int = 3) -> UInt8[np.ndarray, "H W 3"]:
    """All panels of a run; training curves thin with a smoothed line above, validation dashed with points.

    Raises:
        ValueError: If there is no curve to draw.
    """
    groups = panels(scalars)
    if not groups:
        raise ValueError(f"no curve to draw: none of {len(scalars)} scalars is named train/..., val/... or lr...")
    columns = min(columns, len(groups))
    rows = math.ceil(len(groups) / columns)
    # Legends lie below their panels: inside they would cover curves.
    most = max(len(_labels(lines)) for lines in groups.values())
    height = PANEL_HEIGHT + (LEGEND_LINE * (1 + math.ceil(most / LEGEND_COLUMNS)) if most > 1 else 0)
    sheet = Sheet(columns * PANEL_WIDTH, TOP + rows * height)
    sheet.write("Curves: training solid (smoothed), validation dashed", 8, 10, size=11, bold=True)
    for index, (title, lines) in enumerate(groups.items()):
        row, column = divmod(index, columns)
        x, y = column * PANEL_WIDTH, TOP + row * height
        axes = sheet.axes(x=x + 56, y=y + 26, width=PANEL_WIDTH - 72, height=PANEL_HEIGHT - 68)
        _draw_panel(axes, title, lines)
    return sheet.pixels()


def _labels(lines: list[Line]) -> list[str]:
    return list(dict.fromkeys(line.label for line in lines))


def _draw_panel(axes: Axes, title: str, lines: list[Line]) -> None:
    labels = _labels(lines)
    for line in lines:
        color = PALETTE[labels.index(line.label) % len(PALETTE)]
        steps, values = np.array(line.series.steps), np.array(line.series.values)
        if line.stage == "val":
            axes.plot(steps, values, color=color, linewidth=1.3, linestyle="--", marker="o", markersize=3)
        elif title == "learning rate":
            axes.plot(steps, values, color=color, linewidth=1.5)
        else:
            axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.3)
            axes.plot(steps, smooth(values, weight=0.9 if len(values) > 50 else 0.5), color=color, linewidth=1.5)
    for label in labels:
        axes.plot([], [], color=PALETTE[labels.index(label) % len(PALETTE)], linewidth=1.5, label=label)
    everything = np.concatenate([line.series.values for line in lines])
    positive = everything[np.isfinite(everything)]
    if positive.size and positive.min() > 0 and positive.max() > 30 * positive.min() and title != "learning rate":
        axes.set_yscale("log")
    single = len(labels) == 1 and title not in RATES
    axes.set_title(f"{title}: {labels[0]}" if single else title, fontsize=10, loc="left", parse_math=False)
    axes.set_xlabel("step", fontsize=8, color=MUTED_COLOR, labelpad=1)
    axes.tick_params(labelsize=8, colors=MUTED_COLOR)
    axes.grid(visible=True, linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if title == "frames per second":
        axes.set_ylim(bottom=0)
    if axes.get_yscale() == "linear":
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    if len(labels) > 1:
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(-0.08, -0.15),
            borderaxespad=0.0,
            ncols=LEGEND_COLUMNS,
            fontsize=7,
            frameon=False,
            columnspacing=1.0,
            handlelength=1.5,
        )
