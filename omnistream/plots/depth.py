"""Plot of predicted depth and its confidence against the truth, on one colour scale."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from omnistream.metrics import abs_rel, relative_depth_error
from omnistream.plots.sheet import MUTED_COLOR, Scale, Sheet, fit, robust_scale, spread, text_width, to_frames
from omnistream.tasks.plots import DepthPlot

ERROR_SCALE = Scale(0.0, 0.5, "magma")
"""Relative error; fixed, so that plots of different steps can be compared."""
DEPTH_COLORMAP = "turbo"
CONFIDENCE_COLORMAP = "viridis"
LABEL_WIDTH, BAR_WIDTH, GAP, TOP = 90, 96, 4, 54
LABEL_HEIGHT = 16
"""Of the line over the frames."""


@dataclass(frozen=True)
class DepthColors:
    """Colours of one clip and the scales they were made with."""

    truth: UInt8[np.ndarray, "T H W 3"]
    prediction: UInt8[np.ndarray, "T H W 3"]
    error: UInt8[np.ndarray, "T H W 3"]
    confidence: UInt8[np.ndarray, "T H W 3"] | None
    depth_scale: Scale
    """Scale of both truth and prediction: 2-98 % of the valid truth of the clip, or of the prediction without truth."""
    confidence_scale: Scale | None
    abs_rel: float
    """Mean of |prediction - truth| / truth over valid pixels; NaN if there are none."""


def color_depth(plot: DepthPlot) -> DepthColors:
    """Coloured maps of a clip; invalid pixels are grey in truth and error, the prediction is shown everywhere."""
    truth, prediction = plot.truth.detach().float().cpu(), plot.prediction.detach().float().cpu()
    valid = plot.valid.cpu()
    has_truth = bool(valid.any())
    scale = robust_scale(*((truth, valid) if has_truth else (prediction, ~valid)), DEPTH_COLORMAP)
    good = valid & (truth > 0)
    error = relative_depth_error(prediction, truth).masked_fill(~good, torch.nan)
    confidence, confidence_scale = None, None
    if plot.confidence is not None:
        values = plot.confidence.detach().float().cpu()
        confidence_scale = robust_scale(values, torch.ones_like(valid), CONFIDENCE_COLORMAP)
        confidence = np.stack([confidence_scale.colors(value) for value in values])
    return DepthColors(
        truth=np.stack([scale.colors(*pair) for pair in zip(truth, valid, strict=True)]),
        prediction=np.stack([scale.colors(value) for value in prediction]),
        error=np.stack([ERROR_SCALE.colors(value) for value in error]),
        confidence=confidence,
        depth_scale=scale,
        confidence_scale=confidence_scale,
        abs_rel=float(abs_rel(prediction, truth, good)),
    )


def draw_depth(plot: DepthPlot, *, max_frames: int = 8, tile: int | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Rows frames, truth, prediction, error and confidence, with a colour bar for each scale.

    A clip without any truth has no rows of truth and error.

    Args:
        plot: One clip.
        max_frames: Frames shown, evenly spread; scales and Abs Rel are of the whole clip.
        tile: Approximate longer side of a frame in the plot; None chooses, larger for short clips.
    """
    shown = spread(len(plot.images), max_frames)
    tile = tile or (192 if len(shown) <= 4 else 144)
    colors = color_depth(plot)
    rows = _rows(plot, colors)
    tiles = [(label, [fit(images[i], tile, smooth=label == "frames") for i in shown]) for label, images in rows]
    height, width = tiles[0][1][0].shape[:2]
    title = plot.title or f"Depth against truth: Abs Rel {colors.abs_rel:.3f}"
    subtitle = _subtitle(plot, colors.depth_scale)
    texts = max(round(text_width(title, 12)), round(text_width(subtitle))) + 20
    right = max(LABEL_WIDTH + len(shown) * (width + GAP) + BAR_WIDTH, texts)
    top = TOP + (LABEL_HEIGHT if plot.labels else 0)
    sheet = Sheet(right, top + len(rows) * (height + GAP) + 6)
    sheet.write(title, 8, 8, size=11, bold=True)
    sheet.write(subtitle, 8, 30, color=MUTED_COLOR)
    for column, index in enumerate(shown if plot.labels else []):
        sheet.write(plot.labels[index], LABEL_WIDTH + column * (width + GAP), TOP - 2, size=8, color=MUTED_COLOR)
    for row, (label, images) in enumerate(tiles):
        y = top + row * (height + GAP)
        sheet.write(label, 8, y + 4, color=MUTED_COLOR)
        for column, image in enumerate(images):
            sheet.paste(image, LABEL_WIDTH + column * (width + GAP), y)
    x = LABEL_WIDTH + len(shown) * (width + GAP) + 4
    bars = _bars(colors, [label for label, _ in rows], plot.unit)
    for first, span, scale, form in bars:
        _write_bar(sheet, scale, form, x=x, y=top + first * (height + GAP), length=span * (height + GAP) - GAP)
    return sheet.pixels()


def _rows(plot: DepthPlot, colors: DepthColors) -> list[tuple[str, np.ndarray]]:
    """Images of all frames by the name of their row."""
    rows = [("frames", to_frames(plot.images)), ("truth", colors.truth), ("prediction", colors.prediction)]
    rows.append(("error", colors.error))
    if colors.confidence is not None:
        rows.append(("confidence", colors.confidence))
    return [row for row in rows if plot.valid.any() or row[0] not in ("truth", "error")]


def _subtitle(plot: DepthPlot, scale: Scale) -> str:
    unit = f" {plot.unit}" if plot.unit else ""
    extent = f"{scale.low:.3g} to {scale.high:.3g}{unit}"
    text = f"one scale for truth and prediction: {extent} (2-98 % of truth); grey: no truth"
    if not plot.valid.any():
        text = f"one scale for all frames: {extent} (2-98 % of the prediction); there is no truth"
    return text + (f"; {plot.note}" if plot.note else "")


def _bars(colors: DepthColors, rows: list[str], unit: str) -> list[tuple[int, int, Scale, str]]:
    """First row, number of rows, scale and format of each bar: truth and prediction share one."""
    depth_form = "{:.3g}" + (f" {unit}" if unit else "")
    depth_rows = [index for index, row in enumerate(rows) if row in ("truth", "prediction")]
    bars = [(depth_rows[0], len(depth_rows), colors.depth_scale, depth_form)]
    if "error" in rows:
        bars.append((rows.index("error"), 1, ERROR_SCALE, "{:.0%}"))
    if colors.confidence_scale is not None:
        bars.append((rows.index("confidence"), 1, colors.confidence_scale, "{:.3g}"))
    return bars


def _write_bar(sheet: Sheet, scale: Scale, form: str, *, x: int, y: int, length: int) -> None:
    """A colour bar with labels at its ends and, if it is long, in the middle."""
    sheet.paste(scale.bar(length), x, y)
    sheet.write(form.format(scale.high), x + 20, y)
    sheet.write(form.format(scale.low), x + 20, y + length, va="bottom")
    if length > 80:
        sheet.write(form.format((scale.low + scale.high) / 2), x + 20, y + length / 2, va="center")
