"""Curves of a run: losses per task, learning rate and frames/s."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes

from omnistream.plots.logs import Series
from omnistream.plots.panels import Line, Panel, panels
from omnistream.plots.sheet import MUTED_COLOR, Sheet

PALETTE = (
    *("#1f77b4", "#d65d0e", "#2a9d5c", "#c03a8e", "#7a5cc9", "#8c6d31", "#17a2b8", "#5b6470"),
    *("#e0a100", "#0b3d91", "#ff7f9e", "#111111"),
)
PANEL_WIDTH, PANEL_HEIGHT, TOP = 390, 290, 40
LEGEND_COLUMNS, LEGEND_LINE = 2, 15
FEW = 20
"""Up to this many points, each is marked and nothing is smoothed."""


def smooth(values: Float[np.ndarray, " N"], half_width: int) -> Float[np.ndarray, " N"]:
    """Weighted mean over the neighbours on both sides (Hann window), so that peaks stay at their steps.

    Args:
        values: Values that are not finite are ignored, and stay so if all their neighbours are.
        half_width: Neighbours on each side.
    """
    weights = np.hanning(2 * half_width + 3)[1:-1]
    good = np.isfinite(values)
    total = np.convolve(np.where(good, values, 0.0), weights, mode="same")
    mass = np.convolve(good.astype(float), weights, mode="same")
    return np.where(mass > 0, total / np.maximum(mass, 1e-12), np.nan)


def draw_curves(scalars: Mapping[str, Series], *, columns: int = 3) -> UInt8[np.ndarray, "H W 3"]:
    """All panels of a run; training losses thin with a smoothed line above, validation dashed with points.

    Raises:
        ValueError: If there is no curve to draw.
    """
    groups = panels(scalars)
    if not groups:
        raise ValueError(f"no curve to draw: none of {len(scalars)} scalars is named train/..., val/... or lr...")
    columns = min(columns, len(groups))
    rows = math.ceil(len(groups) / columns)
    # Legends are below their panels: inside they would cover curves.
    most = max(len(_labels(panel.lines)) for panel in groups)
    height = PANEL_HEIGHT + (LEGEND_LINE * (1 + math.ceil(most / LEGEND_COLUMNS)) if most > 1 else 0)
    sheet = Sheet(columns * PANEL_WIDTH, TOP + rows * height)
    sheet.write("Training solid (values thin, smoothed bold), validation dashed", 8, 10, size=11, bold=True)
    for index, panel in enumerate(groups):
        row, column = divmod(index, columns)
        x, y = column * PANEL_WIDTH, TOP + row * height
        _draw_panel(sheet.axes(x=x + 56, y=y + 26, width=PANEL_WIDTH - 72, height=PANEL_HEIGHT - 68), panel)
    return sheet.pixels()


def _labels(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line.label for line in lines))


def _draw_line(axes: Axes, line: Line, color: str, *, as_it_is: bool) -> None:
    steps, values = np.array(line.series.steps), np.array(line.series.values)
    few = len(values) <= FEW
    if line.stage == "val":
        axes.plot(steps, values, color=color, linewidth=1.3, linestyle="--", marker="o", markersize=3)
    elif few or as_it_is:
        axes.plot(steps, values, color=color, linewidth=1.5, marker="o" if few else "", markersize=3)
    else:
        axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.3)
        axes.plot(steps, smooth(values, max(2, len(values) // 20)), color=color, linewidth=1.5)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    labels = _labels(panel.lines)
    for line in panel.lines:
        color = PALETTE[labels.index(line.label) % len(PALETTE)]
        _draw_line(axes, line, color, as_it_is=panel.kind == "learning rate")
    everything = np.concatenate([line.series.values for line in panel.lines])
    finite = everything[np.isfinite(everything)]
    if panel.kind != "learning rate" and finite.min() > 0 and finite.max() > 30 * finite.min():
        axes.set_yscale("log")
    single = len(labels) == 1 and panel.kind == "loss"
    axes.set_title(f"{panel.title}: {labels[0]}" if single else panel.title, fontsize=10, loc="left", parse_math=False)
    axes.set_xlabel("step", fontsize=8, color=MUTED_COLOR, labelpad=1)
    axes.tick_params(labelsize=8, colors=MUTED_COLOR)
    axes.grid(visible=True, linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if panel.kind == "rate" and axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    if axes.get_yscale() == "linear":
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    if len(labels) > 1:
        _write_legend(axes, labels)


def _write_legend(axes: Axes, labels: Sequence[str]) -> None:
    for index, label in enumerate(labels):
        axes.plot([], [], color=PALETTE[index % len(PALETTE)], linewidth=1.5, label=label)
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
