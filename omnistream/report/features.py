"""Picture of patch features: the first three principal components of a clip as colours."""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from omnistream.report.sheet import MUTED_COLOR, Sheet, fit, spread, text_width, to_frames
from omnistream.tasks.pictures import FeaturesPicture


def pca_colors(features: Float[Tensor, "T h w D"]) -> tuple[Float[Tensor, "T h w 3"], float]:
    """First three principal components over all patches of all frames, each stretched from its 2-98 % range to [0, 1].

    The basis, the signs and the stretch are shared by the frames, so equal features have equal colours in every
    frame. The sign of a component is chosen so that its largest coefficient is positive, which keeps colours stable
    between calls.

    Returns:
        Colours, and the share of the variance that the three components explain (0 where the features are constant).

    Raises:
        ValueError: If the features are not finite or have fewer than three channels.
    """
    if features.shape[-1] < 3:
        raise ValueError(f"PCA picture: expected at least 3 channels, got {features.shape[-1]}")
    if not features.isfinite().all():
        raise ValueError("PCA picture: features contain NaN or infinity")
    rows = rearrange(features.detach().double().cpu(), "t h w d -> (t h w) d")
    rows = rows - rows.mean(dim=0)
    variances, vectors = torch.linalg.eigh(rows.T @ rows)  # ascending
    basis = vectors.flip(-1)[:, :3]
    basis = basis * basis.gather(0, basis.abs().argmax(dim=0, keepdim=True)).sign()
    scores = rows @ basis
    low, high = torch.quantile(_sampled(scores), torch.tensor([0.02, 0.98], dtype=torch.float64), dim=0)
    colors = ((scores - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    total = variances.clamp_min(0).sum()
    share = float(variances[-3:].sum() / total) if total > 0 else 0.0
    t, h, w, _ = features.shape
    return rearrange(colors, "(t h w) c -> t h w c", t=t, h=h, w=w).float(), share


def _sampled(scores: Tensor, limit: int = 1_000_000) -> Tensor:
    """Every n-th row, because torch.quantile refuses more than 16 million elements."""
    return scores[:: 1 + len(scores) // limit]


def draw_features(
    picture: FeaturesPicture, *, max_frames: int = 8, tile: int | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Frames above, their patch features below.

    Args:
        picture: One clip.
        max_frames: Frames shown, evenly spread; the PCA runs over all frames.
        tile: Longer side of a frame in the picture, about; larger where the clip is short if None.
    """
    shown = spread(len(picture.images), max_frames)
    tile = tile or (192 if len(shown) <= 4 else 144)
    colors, share = pca_colors(picture.features)
    frames = [fit(frame, tile) for frame in to_frames(picture.images[shown])]
    height, width = frames[0].shape[:2]
    label_width, gap, top = 76, 4, 52
    _, h, w, d = picture.features.shape
    text = f"one basis for the whole clip; {h}x{w} patches of width {d}; the three explain {share:.0%} of the variance"
    sheet = Sheet(
        max(label_width + len(shown) * (width + gap), round(text_width(text)) + 20), top + 2 * (height + gap) + 6
    )
    sheet.write("Patch features: three principal components as colours", 8, 8, size=11, bold=True)
    sheet.write(text, 8, 29, color=MUTED_COLOR)
    for row, label in enumerate(("frames", "features")):
        sheet.write(label, 8, top + row * (height + gap) + 4, color=MUTED_COLOR)
    patches = (colors[shown] * 255).round().to(torch.uint8).numpy()
    for column, (frame, patch) in enumerate(zip(frames, patches, strict=True)):
        x = label_width + column * (width + gap)
        sheet.paste(frame, x, top)
        sheet.paste(_nearest(patch, height, width), x, top + height + gap)
    return sheet.pixels()


def _nearest(tile: np.ndarray, height: int, width: int) -> np.ndarray:
    rows = np.arange(height) * tile.shape[0] // height
    columns = np.arange(width) * tile.shape[1] // width
    return tile[rows][:, columns]
