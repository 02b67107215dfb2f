"""Plots of one video of a reconstruction evaluation: its depth, its camera path, and its errors over time."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from torch import Tensor

from omnistream.metrics import sequence_depth_errors
from omnistream.plots.sheet import MUTED_COLOR, PREDICTION_COLOR, Sheet
from omnistream.tasks.plots import CameraPlot, DepthPlot
from omnistream.tasks.reconstruction.outcome import ReconstructedVideo

ERROR_NAMES: Mapping[str, tuple[str, str | None]] = {
    "abs_rel": ("Abs Rel", ""),
    "delta1": ("δ₁", ""),
    "accuracy": ("distance from the true points", None),
    "position": ("position error", None),
    "rotation": ("rotation error", "°"),
    "rpe_translation": ("RPE translation", None),
    "rpe_rotation": ("RPE rotation", "°"),
}
"""Title and unit of the errors of `ReconstructedVideo`; a unit of None is that of the scene."""
POSE_ERRORS = {"position", "rotation", "rpe_translation", "rpe_rotation"}
"""Errors of the camera; all others are of the depth."""
_WIDTH, _PANEL, _TOP, _LEFT = 760, 150, 76, 74
_LINE_COLOR = tuple(channel / 255 for channel in PREDICTION_COLOR)
_FEW = 60
"""Up to this many frames, each is marked."""


def error_title(name: str, unit: str) -> str:
    """Title of an error with its unit: "position error [m]"."""
    title, own = ERROR_NAMES.get(name, (name.replace("_", " "), ""))
    shown = unit if own is None else own
    return f"{title} [{shown}]" if shown else title


def mean_errors(video: ReconstructedVideo) -> dict[str, float]:
    """Mean of every error over the frames that have one; NaN if none has."""
    return {name: float(errors[~errors.isnan()].double().mean()) for name, errors in video.frame_errors.items()}


def headline(video: ReconstructedVideo, unit: str, of: Literal["depth", "pose", "all"] = "all") -> str:
    """Name of the video and its errors: "market_2: Abs Rel 0.213, mean over 40 frames".

    Args:
        video: One video.
        unit: Of the truth.
        of: Which errors are named.
    """
    chosen = {
        name: errors
        for name, errors in video.frame_errors.items()
        if of == "all" or (name in POSE_ERRORS) == (of == "pose")
    }
    if not chosen:
        return video.name
    means, parts = mean_errors(video), []
    for name in chosen:
        title, own = ERROR_NAMES.get(name, (name.replace("_", " "), ""))
        shown = {None: f" {unit}", "°": "°", "": ""}[own]
        parts.append(f"{title} unknown" if math.isnan(means[name]) else f"{title} {means[name]:.3g}{shown}".rstrip())
    count = max(int((~errors.isnan()).sum()) for errors in chosen.values())
    return f"{video.name}: {', '.join(parts)} (mean over {count} frames)"


def depth_plot(video: ReconstructedVideo, unit: str = "m") -> DepthPlot | None:
    """Depth of the video's frames as data of a plot; None if none was predicted.

    In an evaluation of poses alone, depth comes in the scale of the camera path, and is brought to the truth's by one
    more factor. The truth, which has its own size, is sampled at the centres of the predicted pixels: depth of two
    surfaces is never mixed.

    Args:
        video: One video.
        unit: Of the truth.
    """
    if video.depth is None:
        return None
    truth = torch.zeros_like(video.depth) if video.true_depth is None else _sampled(video.true_depth, video.depth)
    scored = not video.frame_errors or not video.frame_errors.keys() <= POSE_ERRORS
    scale = 1.0 if scored else sequence_depth_errors(video.depth, truth, "scale").scale.nan_to_num(1.0).float()
    return DepthPlot(
        images=video.images,
        truth=truth,
        valid=_known(truth),
        prediction=video.depth * scale,
        confidence=video.confidence,
        unit=unit,
        title=headline(video, unit, "depth"),
        note="aligned as the evaluation does" if scored else "not scored here; aligned by one scale",
        labels=tuple(f"frame {position}" for position in video.positions),
    )


def _sampled(truth: Float[Tensor, "K H W"], like: Float[Tensor, "K h w"]) -> Float[Tensor, "K h w"]:
    return F.interpolate(truth[:, None], like.shape[-2:], mode="nearest-exact")[:, 0]


def _known(truth: Float[Tensor, "K h w"]) -> Bool[Tensor, "K h w"]:
    return (truth > 0) & truth.isfinite()


def path_plot(video: ReconstructedVideo, unit: str = "m") -> CameraPlot | None:
    """Camera path of the video as data of a plot; None if there are not both a prediction and a truth.

    Frames without a finite pose in either are left out, which the title says.

    Args:
        video: One video.
        unit: Of the truth.
    """
    prediction, truth = video.camera_to_world, video.true_camera_to_world
    if prediction is None or truth is None:
        return None
    good = prediction.isfinite().flatten(1).all(1) & truth.isfinite().flatten(1).all(1)
    if not good.any():
        return None
    left_out = int((~good).sum())
    title = headline(video, unit, "pose") + (f"; {left_out} frames without a pose" if left_out else "")
    return CameraPlot(truth=truth[good], prediction=prediction[good], unit=unit, title=title, aligned=True)


def draw_errors(video: ReconstructedVideo, unit: str = "m") -> UInt8[np.ndarray, "H W 3"]:
    """One panel per error of the video over its frames, with the mean; gaps where a frame has no error.

    Args:
        video: With at least one error.
        unit: Of the truth.

    Raises:
        ValueError: If the video has no errors.
    """
    if not video.frame_errors:
        raise ValueError(f"{video.name}: there are no errors to draw")
    sheet = Sheet(_WIDTH, _TOP + len(video.frame_errors) * (_PANEL + 44) + 8)
    sheet.write(f"{video.name}: errors over time", 8, 8, size=11, bold=True)
    sheet.write("errors of every frame, dashed: their mean", 8, 30, color=MUTED_COLOR)
    axes = None
    for index, (name, errors) in enumerate(video.frame_errors.items()):
        axes = sheet.axes(x=_LEFT, y=_TOP + index * (_PANEL + 44), width=_WIDTH - _LEFT - 24, height=_PANEL)
        _draw_errors(axes, errors, error_title(name, unit), higher_is_better=name.startswith("delta"))
    assert axes is not None
    axes.set_xlabel("frame", fontsize=9, color=MUTED_COLOR, labelpad=1)
    return sheet.pixels()


def _draw_errors(axes: Axes, errors: Float[Tensor, " T"], title: str, *, higher_is_better: bool) -> None:
    values = errors.double().numpy()
    known = np.isfinite(values)
    axes.plot(values, color=_LINE_COLOR, linewidth=1.4, marker="o" if len(values) <= _FEW else "", markersize=3)
    if known.any():
        mean, badness = float(values[known].mean()), -values if higher_is_better else values
        worst = int(np.where(known, badness, -np.inf).argmax())
        title += f": mean {mean:.3g}, worst {values[worst]:.3g} at frame {worst}"
        axes.axhline(mean, color=MUTED_COLOR, linewidth=1, linestyle="--")
        axes.set_ylim(0, max(1.08 * float(values[known].max()), 1e-6))
    axes.set_xlim(-0.5, max(len(values) - 0.5, 0.5))
    count = "" if known.all() else f"; {int((~known).sum())} frames have none"
    axes.set_title(title + count, fontsize=9.5, loc="left", parse_math=False)
    axes.tick_params(labelsize=8.5, colors=MUTED_COLOR)
    axes.grid(visible=True, linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
