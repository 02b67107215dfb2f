"""Plot of the crops of self-supervision with the masked patches tinted."""

import numpy as np
from einops import repeat
from jaxtyping import Bool, UInt8

from omnistream.plots.sheet import MUTED_COLOR, Sheet, fit, spread, to_frames
from omnistream.tasks.plots import ViewsPlot

MASK_COLOR = (224, 36, 124)
LABEL_WIDTH = 118
GAP = 6


def overlay_mask(
    image: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "h w"], strength: float = 0.6
) -> UInt8[np.ndarray, "H W 3"]:
    """Image with its masked patches tinted.

    Args:
        image: Its sides are whole multiples of the mask's.
        mask: True where a patch is masked.
        strength: Share of the tint in the mixed colour.

    Raises:
        ValueError: If the patches do not tile the image.
    """
    (height, width), (rows, columns) = image.shape[:2], mask.shape
    if height % rows or width % columns:
        raise ValueError(f"mask of {rows}x{columns} patches does not tile an image of {height}x{width} pixels")
    pixels = repeat(mask, "h w -> (h i) (w j) 1", i=height // rows, j=width // columns)
    tinted = (1 - strength) * image + strength * np.array(MASK_COLOR)
    return np.where(pixels, tinted.round().astype(np.uint8), image)


def draw_views(
    plot: ViewsPlot, *, max_frames: int = 8, max_local: int = 8, tile: int = 160
) -> UInt8[np.ndarray, "H W 3"]:
    """Global crops, the same with their masks, and local crops.

    An image has its crops side by side; a clip has one strip of frames per crop. Local crops are drawn smaller in
    proportion, so the plot shows their size.

    Args:
        plot: One sample.
        max_frames: Frames shown of a clip, evenly spread.
        max_local: Local crops shown.
        tile: Approximate side of a global crop in the plot.
    """
    rows = _image_rows(plot, max_local) if plot.global_crops.shape[1] == 1 else _clip_rows(plot, max_frames)
    global_side = plot.global_crops.shape[-1]
    drawn = [(label, [fit(image, _drawn_side(image, global_side, tile)) for image in row]) for label, row in rows]
    width = max(sum(image.shape[1] + GAP for image in row) for _, row in drawn)
    height = sum(max(image.shape[0] for image in row) + GAP for _, row in drawn)
    sheet = Sheet(LABEL_WIDTH + max(width, 360), height + 34)
    frames = "image" if plot.global_crops.shape[1] == 1 else f"clip of {plot.global_crops.shape[1]} frames"
    sheet.write(f"Crops of one {frames}: global {global_side} px, masked patches tinted", GAP, 8, size=11, bold=True)
    y = 34
    for label, row in drawn:
        sheet.write(label, GAP, y + 2, color=MUTED_COLOR)
        x = LABEL_WIDTH
        for image in row:
            sheet.paste(image, x, y)
            x += image.shape[1] + GAP
        y += max(image.shape[0] for image in row) + GAP
    return sheet.pixels()


def _drawn_side(image: np.ndarray, global_side: int, tile: int) -> int:
    return max(64, round(tile * image.shape[0] / global_side))


def _image_rows(plot: ViewsPlot, max_local: int) -> list[tuple[str, list[np.ndarray]]]:
    crops = to_frames(plot.global_crops)[:, 0]  # [G, S, S, 3]
    first = list(crops)
    if plot.masks is not None:
        masks = plot.masks[:, 0].cpu().numpy()
        first = [image for crop, mask in zip(crops, masks, strict=True) for image in (crop, overlay_mask(crop, mask))]
    share = "" if plot.masks is None else f"\nmasked {plot.masks.float().mean():.0%}"
    rows = [(f"global crops{share}", first)]
    if plot.local_crops is not None:
        local = to_frames(plot.local_crops)[:max_local, 0]
        rows.append((f"local crops\n{len(local)} of {len(plot.local_crops)}", list(local)))
    return rows


def _clip_rows(plot: ViewsPlot, max_frames: int, max_local_strips: int = 2) -> list[tuple[str, list[np.ndarray]]]:
    shown = spread(plot.global_crops.shape[1], max_frames)
    rows = []
    for index, crop in enumerate(to_frames(plot.global_crops[:, shown])):
        label = f"global {index + 1}"
        images = list(crop)
        if plot.masks is not None:
            masks = plot.masks[index, shown].cpu().numpy()
            images = [overlay_mask(image, mask) for image, mask in zip(images, masks, strict=True)]
            label += f"\nmasked {plot.masks[index].float().mean():.0%}"
        rows.append((label, images))
    if plot.local_crops is not None:
        frames = [i for i in shown if i < plot.local_crops.shape[1]]
        strips = to_frames(plot.local_crops[:max_local_strips, frames])
        count = len(plot.local_crops)
        rows += [(f"local {i + 1} of {count}", list(strip)) for i, strip in enumerate(strips)]
    return rows
