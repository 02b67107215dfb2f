"""Plot of generated text beside the truth, with boxes drawn on the image."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from omnistream.boxes import Box
from omnistream.plots.sheet import (
    MUTED_COLOR,
    PREDICTION_COLOR,
    TRUTH_COLOR,
    Sheet,
    fit,
    spread,
    to_frames,
    wrap,
)
from omnistream.tasks.plots import CaptionItem, CaptionPlot

TEXT_WIDTH, TOP, GAP = 470, 56, 12
LINE_HEIGHT = 18


def draw_boxes(
    image: UInt8[np.ndarray, "H W 3"], boxes: Sequence[Box], color: tuple[int, int, int], thickness: int = 2
) -> UInt8[np.ndarray, "H W 3"]:
    """Image with the outlines of boxes; parts outside the image are clipped, swapped corners are sorted.

    Args:
        image: Drawn on a copy.
        boxes: x1, y1, x2, y2 in [0, 1].
        color: Colour of the outline.
        thickness: Thickness of the outline in pixels, inwards.
    """
    image = image.copy()
    height, width = image.shape[:2]
    for x1, y1, x2, y2 in boxes:
        left, right = _span(x1, x2, width)
        top, bottom = _span(y1, y2, height)
        inner = image[top + thickness : bottom - thickness, left + thickness : right - thickness].copy()
        image[top:bottom, left:right] = color
        if inner.size:
            image[top + thickness : bottom - thickness, left + thickness : right - thickness] = inner
    return image


def _span(a: float, b: float, size: int) -> tuple[int, int]:
    low, high = sorted((min(max(a, 0.0), 1.0), min(max(b, 0.0), 1.0)))
    start = min(round(low * size), size - 1)
    return start, max(round(high * size), start + 1)


def draw_captions(plot: CaptionPlot, *, max_frames: int = 3, tile: int = 192) -> UInt8[np.ndarray, "H W 3"]:
    """Each sample's image, or some frames of its clip, with instruction, truth and generated text to the right.

    True boxes and text are blue, generated ones orange; boxes are drawn on every shown frame.

    Args:
        plot: The samples, drawn one below the other.
        max_frames: Frames shown of a clip, evenly spread.
        tile: Approximate longer side of an image in the plot.
    """
    strips = [_strip(item, max_frames, tile) for item in plot.items]
    texts = [_paragraphs(item) for item in plot.items]
    left = max(strip.shape[1] for strip in strips) + 2 * GAP
    heights = [
        max(strip.shape[0], sum(_text_height(text) for _, text, _ in parts))
        for strip, parts in zip(strips, texts, strict=True)
    ]
    sheet = Sheet(left + TEXT_WIDTH, TOP + sum(heights) + GAP * len(heights))
    sheet.write("Generated text against truth", GAP, 8, size=11, bold=True)
    sheet.write("boxes: blue truth, orange generated", GAP, 30, color=MUTED_COLOR)
    y = TOP
    for strip, parts, height in zip(strips, texts, heights, strict=True):
        sheet.paste(strip, GAP, y)
        line = y
        for label, text, color in parts:
            sheet.write(label, left, line, size=8, color=MUTED_COLOR)
            sheet.write(text, left, line + 14, color=color)
            line += _text_height(text)
        y += height + GAP
    return sheet.pixels()


def _strip(item: CaptionItem, max_frames: int, tile: int) -> np.ndarray:
    frames = to_frames(item.images[spread(len(item.images), max_frames)])
    drawn = []
    for frame in frames:
        image = draw_boxes(fit(frame, tile), item.truth_boxes, TRUTH_COLOR)
        drawn.append(draw_boxes(image, item.generated_boxes, PREDICTION_COLOR))
        drawn.append(np.full((image.shape[0], 4, 3), 255, np.uint8))
    return np.concatenate(drawn[:-1], axis=1)


def _paragraphs(item: CaptionItem) -> list[tuple[str, str, str]]:
    parts = [("instruction", wrap(item.instruction, TEXT_WIDTH - 2 * GAP, 3), MUTED_COLOR)] if item.instruction else []
    parts.append(("truth", wrap(_visible(item.truth), TEXT_WIDTH - 2 * GAP, 6), _hex(TRUTH_COLOR)))
    parts.append(("generated", wrap(_visible(item.generated), TEXT_WIDTH - 2 * GAP, 6), _hex(PREDICTION_COLOR)))
    return parts


def _visible(text: str) -> str:
    """Text with a dot for every character that cannot be printed; an untrained decoder writes many."""
    shown = "".join(character if character.isprintable() or character == "\n" else "·" for character in text)
    return shown if shown.strip() else "(nothing)"


def _text_height(text: str) -> int:
    return 22 + LINE_HEIGHT * (text.count("\n") + 1)


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
