"""A canvas for images and text with exact pixels, and the operations on tiles that plots share.

Matplotlib's object interface with the Agg canvas draws the text; no pyplot, so no global state and no window.
"""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Shaped, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image
from torch import Tensor

DPI = 100
FONT_SIZE = 9.5
INVALID = (128, 128, 128)
"""Colour of pixels without ground truth."""
TRUTH_COLOR = (31, 119, 180)
PREDICTION_COLOR = (214, 93, 14)
TEXT_COLOR = "#1b1f24"
MUTED_COLOR = "#5b6470"


def to_frames(images: Shaped[Tensor, "*B 3 H W"]) -> UInt8[np.ndarray, "*B H W 3"]:
    """Channels-last uint8 copy of images that are uint8 already, or floating point in [0, 1].

    Raises:
        ValueError: If the images have another data type.
    """
    if images.is_floating_point():
        images = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    if images.dtype != torch.uint8:
        raise ValueError(f"plots: expected uint8 or floating-point images, got {images.dtype}")
    return rearrange(images.detach().cpu().numpy(), "... c h w -> ... h w c")


def fit(tile: UInt8[np.ndarray, "H W 3"], size: int = 176, *, smooth: bool = True) -> UInt8[np.ndarray, "h w 3"]:
    """Tile whose longer side is about `size`: enlarged by a whole number (nearest), or reduced to exactly `size`.

    Args:
        tile: Any image.
        size: Wanted longer side in pixels.
        smooth: Average when reducing; off for colour-coded values, which must not be mixed.
    """
    longer = max(tile.shape[:2])
    if longer <= size:
        return repeat(tile, "h w c -> (h i) (w j) c", i=round(size / longer), j=round(size / longer))
    shape = (max(1, round(tile.shape[1] * size / longer)), max(1, round(tile.shape[0] * size / longer)))
    method = Image.Resampling.BOX if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(tile).resize(shape, method))


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` indices spread evenly over `range(count)`, first and last included."""
    return [round(i) for i in np.linspace(0, count - 1, min(count, limit)).tolist()]


@dataclass(frozen=True)
class Scale:
    """A linear colour scale; equal values have equal colours in all plots that share it."""

    low: float
    high: float
    colormap: str

    def __post_init__(self) -> None:
        """Check that the scale has an extent."""
        if not self.low < self.high:
            raise ValueError(f"colour scale: expected low < high, got {self.low} and {self.high}")

    def colors(
        self, values: Float[Tensor, "H W"], valid: Bool[Tensor, "H W"] | None = None
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Colours of `values`, clipped to the scale; grey where not `valid` or not finite."""
        good = values.isfinite() if valid is None else values.isfinite() & valid
        unit = ((values.double() - self.low) / (self.high - self.low)).clamp(0, 1).nan_to_num(0)
        colors = colormaps[self.colormap](unit.cpu().numpy(), bytes=True)[..., :3]
        return np.where(good.cpu().numpy()[..., None], colors, np.array(INVALID, np.uint8))

    def bar(self, height: int, width: int = 14) -> UInt8[np.ndarray, "H W 3"]:
        """A vertical colour bar, `high` on top."""
        return self.colors(torch.linspace(self.high, self.low, height)[:, None].expand(height, width))


def robust_scale(values: Float[Tensor, "..."], valid: Bool[Tensor, "..."], colormap: str) -> Scale:
    """Scale over 2-98 % of the valid finite values; [0, 1] where there is none, widened if they are constant."""
    chosen = values[valid & values.isfinite()].double().cpu().numpy()
    if chosen.size == 0:
        return Scale(0.0, 1.0, colormap)
    low, high = np.percentile(chosen, [2, 98]).tolist()
    margin = 1e-3 * max(abs(low), 1e-6)  # a constant depth still needs a scale with an extent
    return Scale(low, high, colormap) if high - low > margin else Scale(low - margin, high + margin, colormap)


class Sheet:
    """A white sheet; coordinates are pixels from the top left corner.

    Args:
        width: In pixels.
        height: In pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        self._canvas = FigureCanvasAgg(self.figure)
        self._tiles: list[tuple[int, int, np.ndarray]] = []

    def paste(self, tile: UInt8[np.ndarray, "H W 3"], x: int, y: int) -> None:
        """Put a tile with its top left corner at (x, y), pixel for pixel."""
        self._tiles.append((x, y, tile))

    def write(
        self,
        text: str,
        x: float,
        y: float,
        *,
        size: float = FONT_SIZE,
        color: str = TEXT_COLOR,
        bold: bool = False,
        **style: str,
    ) -> None:
        """Write text with its top left corner (or as `ha` and `va` set) at (x, y); `$` is an ordinary character."""
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            text,
            fontsize=size,
            color=color,
            fontweight="bold" if bold else "normal",
            ha=style.get("ha", "left"),
            va=style.get("va", "top"),
            linespacing=1.35,
            parse_math=False,
        )

    def axes(self, x: int, y: int, width: int, height: int) -> Axes:
        """Matplotlib axes over this rectangle."""
        box = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def pixels(self) -> UInt8[np.ndarray, "H W 3"]:
        """The sheet as an image."""
        self._canvas.draw()
        image = np.asarray(self._canvas.buffer_rgba())[..., :3].copy()
        for x, y, tile in self._tiles:  # after the text: resampling by the renderer would change colours
            image[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        return image


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """Width in pixels of one line of text on a sheet."""
    renderer = FigureCanvasAgg(Figure(dpi=DPI)).get_renderer()
    return float(renderer.get_text_width_height_descent(text, FontProperties(size=size), False)[0])


def wrap(text: str, width: int, lines: int) -> str:
    """Text broken to `width` pixels, inside words where need be, and cut to `lines` lines with an ellipsis."""
    parts: list[str] = []
    for paragraph in text.splitlines() or [""]:
        parts += _broken(paragraph, width, lines + 1 - len(parts))
    if len(parts) > lines:
        parts = [*parts[: lines - 1], _fitting(parts[lines - 1], width - 16) + " …"]
    return "\n".join(parts)


def _broken(paragraph: str, width: int, limit: int) -> list[str]:
    """At most `limit` lines of one paragraph."""
    rest = paragraph.strip()
    parts: list[str] = []
    while rest and len(parts) < limit:
        part = _fitting(rest, width)
        if len(part) < len(rest) and rest[len(part)] != " " and " " in part:
            part = part[: part.rindex(" ")]
        parts.append(part.rstrip())
        rest = rest[len(part) :].lstrip()
    return parts if parts or limit <= 0 else [""]


def _fitting(text: str, width: int) -> str:
    """The longest prefix of `text` that is at most `width` pixels wide, at least one character."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text_width(text[:middle]) <= width else (low, middle - 1)
    return text[:low]
