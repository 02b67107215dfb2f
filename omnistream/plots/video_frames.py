"""Frames of videos: images beside each other, and a colour bar with labels."""

import numpy as np
from einops import repeat
from jaxtyping import UInt8

from omnistream.plots.sheet import DPI, MUTED_COLOR, Scale, Sheet, text_width

MIN_SHOWN_SIDE = 224
"""Smaller frames are enlarged by a whole factor."""


def side_by_side(left: UInt8[np.ndarray, "H W 3"], right: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "_H _W 3"]:
    """Two images next to each other, enlarged without smoothing; the right one gets the size of the left."""
    height, width = left.shape[:2]
    rows = np.arange(height) * right.shape[0] // height
    columns = np.arange(width) * right.shape[1] // width
    both = np.concatenate([left, right[rows][:, columns]], axis=1)
    factor = -(-MIN_SHOWN_SIDE // min(height, width))
    return repeat(both, "h w c -> (h i) (w j) c", i=factor, j=factor)


def bar_labels(scale: Scale) -> tuple[str, str, str]:
    """Labels of the largest, middle and smallest value of a scale."""
    high, middle, low = (f"{number:.3g}" for number in (scale.high, (scale.low + scale.high) / 2, scale.low))
    return high, middle, low


def color_bar(scale: Scale, height: int, title: str, unit: str) -> UInt8[np.ndarray, "H W 3"]:
    """An image with title and unit, and below them a labelled colour bar.

    Args:
        scale: Its ends and its middle are labelled.
        height: Height in pixels; the text is scaled with it.
        title: First line.
        unit: Second line.
    """
    pixels = min(max(height / 24, 12), 40)
    size, line = pixels * 72 / DPI, round(1.4 * pixels)
    labels = bar_labels(scale)
    bar_width, gap = round(1.2 * pixels), round(0.5 * pixels)
    beside = max(text_width(label, size) for label in labels)
    width = round(max(bar_width + gap + beside, *(text_width(text, size) for text in (title, unit)))) + 2 * gap
    top, length = 2 * line + 2 * gap, height - 2 * line - 3 * gap
    sheet = Sheet(width, height)
    sheet.write(title, gap, gap, size=size)
    sheet.write(unit, gap, gap + line, size=size, color=MUTED_COLOR)
    sheet.paste(scale.bar(length, bar_width), gap, top)
    for label, share, va in zip(labels, (0, 0.5, 1), ("top", "center", "bottom"), strict=True):
        sheet.write(label, 2 * gap + bar_width, top + share * length, size=size, va=va)
    return sheet.pixels()
