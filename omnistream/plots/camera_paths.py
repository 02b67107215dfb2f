"""Plot of a predicted camera path against the true one, from above and from the side."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from torch import Tensor

from omnistream.cameras import apply_similarity_to_poses
from omnistream.metrics import position_rmse, trajectory_similarity
from omnistream.plots.sheet import MUTED_COLOR, PREDICTION_COLOR, TRUTH_COLOR, Sheet, spread
from omnistream.tasks.plots import CameraPlot

PANEL, TOP, MARGIN = 340, 78, 68
MANY = 40
"""Frames of which each is marked, and viewing directions that are drawn at most."""
STRAIGHT = 0.02
"""A path whose second principal extent is below this share of the first counts as straight."""


@dataclass(frozen=True)
class AlignedPaths:
    """Both paths in the frame of the first true camera, the prediction moved there by one similarity."""

    truth: Float[Tensor, "T 3"]
    prediction: Float[Tensor, "T 3"]
    truth_axis: Float[Tensor, "T 3"]
    """Unit viewing directions."""
    prediction_axis: Float[Tensor, "T 3"]
    scale: float
    """Factor that the prediction was multiplied with; 1 where it came aligned, NaN where it does not move, so that
    nothing can be aligned."""
    error: float
    """Root mean square distance of the camera centres after alignment, in the unit of the truth."""
    straight: bool
    """The true path is nearly a line, about which the alignment may rotate: viewing directions are arbitrary."""


def align_paths(plot: CameraPlot) -> AlignedPaths:
    """Best similarity from predicted to true camera centres, applied to centres and viewing directions.

    A prediction that does not move cannot be aligned; all its centres are then placed at the mean true centre. One that
    came aligned stays where it is.
    """
    truth = plot.truth.detach().double().cpu()
    prediction = plot.prediction.detach().double().cpu()
    first = torch.linalg.inv(truth[0])
    truth = first @ truth
    extents = torch.linalg.svdvals(truth[:, :3, 3] - truth[:, :3, 3].mean(dim=0))
    if plot.aligned:
        aligned, scale = first @ prediction, 1.0
    else:
        similarity = trajectory_similarity(prediction, truth)
        aligned, scale = apply_similarity_to_poses(similarity, prediction), float(similarity.scale) or float("nan")
    return AlignedPaths(
        truth=truth[:, :3, 3],
        prediction=aligned[:, :3, 3],
        truth_axis=truth[:, :3, 2],
        prediction_axis=aligned[:, :3, 2],
        scale=scale,
        error=float(position_rmse(aligned, truth)),
        straight=bool(extents.numel() < 2 or extents[1] <= STRAIGHT * extents[0]),
    )


def draw_paths(plot: CameraPlot) -> UInt8[np.ndarray, "H W 3"]:
    """Top view (x right, z forward) and side view (z forward, y down) with the viewing direction of every camera."""
    paths = align_paths(plot)
    sheet = Sheet(2 * (PANEL + MARGIN) + 24, TOP + PANEL + 52)
    unit = f" {plot.unit}" if plot.unit else ""
    length = float((paths.truth[1:] - paths.truth[:-1]).norm(dim=-1).sum())
    sheet.write(plot.title or "Camera path against truth, after similarity alignment", 8, 8, size=11, bold=True)
    scale = "the prediction does not move" if np.isnan(paths.scale) else f"prediction scaled by {paths.scale:.3g}"
    scale = f"{len(paths.truth)} frames" if plot.aligned else scale
    text = f"{scale}; RMS error {paths.error:.3g}{unit} on a path of {length:.3g}{unit}"
    sheet.write(text + ("; nearly straight path" if paths.straight else ""), 8, 30, color=MUTED_COLOR)
    for index, (title, horizontal, vertical) in enumerate((("top view", 0, 2), ("side view", 2, 1))):
        axes = sheet.axes(x=MARGIN + index * (PANEL + MARGIN), y=TOP, width=PANEL, height=PANEL)
        _draw_view(axes, paths, horizontal, vertical, plot.unit)
        axes.set_title(title, fontsize=9.5, loc="left")
    return sheet.pixels()


def _draw_view(axes: Axes, paths: AlignedPaths, horizontal: int, vertical: int, unit: str) -> None:
    names = ("x", "y", "z")
    everything = torch.cat([paths.truth, paths.prediction])[:, [horizontal, vertical]]
    centre = (everything.amax(dim=0) + everything.amin(dim=0)) / 2
    reach = max(0.62 * float((everything.amax(dim=0) - everything.amin(dim=0)).max()), 1e-6)
    drawn = ((paths.truth, paths.truth_axis, TRUTH_COLOR), (paths.prediction, paths.prediction_axis, PREDICTION_COLOR))
    for label, (centres, directions, color) in zip(("truth", "prediction"), drawn, strict=True):
        x, y = centres[:, horizontal].numpy(), centres[:, vertical].numpy()
        paint = tuple(channel / 255 for channel in color)
        marker = "o" if len(x) <= MANY else ""
        axes.plot(x, y, color=paint, linewidth=1.4, marker=marker, markersize=2.5, label=label)
        axes.plot(x[:1], y[:1], color=paint, marker="s", markersize=8, markerfacecolor="white", linestyle="none")
        tips = centres + 0.16 * reach * directions
        lines = np.stack([centres[:, [horizontal, vertical]].numpy(), tips[:, [horizontal, vertical]].numpy()], axis=1)
        for start, tip in lines[spread(len(lines), MANY)]:
            axes.plot([start[0], tip[0]], [start[1], tip[1]], color=paint, linewidth=0.9, alpha=0.6)
    axes.set_xlim(float(centre[0]) - reach, float(centre[0]) + reach)
    axes.set_ylim(float(centre[1]) - reach, float(centre[1]) + reach)
    if names[vertical] == "y":
        axes.invert_yaxis()  # y points down
    axes.set_aspect("equal")
    suffix = f" [{unit}]" if unit else ""
    axes.set_xlabel(names[horizontal] + suffix, fontsize=8.5, labelpad=1)
    axes.set_ylabel(names[vertical] + suffix, fontsize=8.5, labelpad=1)
    axes.tick_params(labelsize=8, colors=MUTED_COLOR)
    axes.grid(visible=True, linewidth=0.4, alpha=0.5)
    axes.legend(fontsize=8, frameon=False, loc="best", title="square: first frame", title_fontsize=7)
