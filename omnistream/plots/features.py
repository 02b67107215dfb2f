"""Plot of patch features: the first three principal components of a clip as colours."""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from omnistream.plots.sheet import MUTED_COLOR, Sheet, fit, spread, text_width, to_frames
from omnistream.tasks.plots import FeaturesPlot


@dataclass(frozen=True)
class PcaColors:
    """Three principal components as colours: a basis and a range, fitted once and used for any number of frames."""

    mean: Float[Tensor, " D"]
    basis: Float[Tensor, "D 3"]
    low: Float[Tensor, " 3"]
    high: Float[Tensor, " 3"]
    share: float
    """Share of the variance that the three components explain; 0 where the features are constant."""

    @classmethod
    def fit(cls, features: Float[Tensor, "T h w D"]) -> "PcaColors":
        """First three components over all patches of all frames, each stretched from its 2-98 % range to [0, 1].

        The sign of a component is chosen so that its largest coefficient is positive, which keeps colours stable
        between calls.

        Raises:
            ValueError: If the features are not finite or have fewer than three channels.
        """
        if features.shape[-1] < 3:
            raise ValueError(f"PCA plot: expected at least 3 channels, got {features.shape[-1]}")
        if not features.isfinite().all():
            raise ValueError("PCA plot: features contain NaN or infinity")
        rows = rearrange(features.detach().double().cpu(), "t h w d -> (t h w) d")
        mean = rows.mean(dim=0)
        rows = rows - mean
        variances, vectors = torch.linalg.eigh(rows.T @ rows)  # ascending
        basis = vectors.flip(-1)[:, :3]
        basis = basis * basis.gather(0, basis.abs().argmax(dim=0, keepdim=True)).sign()
        low, high = torch.quantile(_sampled(rows @ basis), torch.tensor([0.02, 0.98], dtype=torch.float64), dim=0)
        total = variances.clamp_min(0).sum()
        return cls(mean, basis, low, high, float(variances[-3:].sum() / total) if total > 0 else 0.0)

    def colors(self, features: Float[Tensor, "T h w D"]) -> Float[Tensor, "T h w 3"]:
        """Colours in [0, 1]; equal features have equal colours in every frame."""
        scores = (features.detach().double().cpu() - self.mean) @ self.basis
        return ((scores - self.low) / (self.high - self.low).clamp_min(1e-12)).clamp(0, 1).float()


def pca_colors(features: Float[Tensor, "T h w D"]) -> tuple[Float[Tensor, "T h w 3"], float]:
    """Colours of a clip in its own basis, and the share of the variance they show; see `PcaColors.fit`."""
    pca = PcaColors.fit(features)
    return pca.colors(features), pca.share


def _sampled(scores: Tensor, limit: int = 1_000_000) -> Tensor:
    """Every n-th row, because torch.quantile does not accept more than 16 million elements."""
    return scores[:: 1 + len(scores) // limit]


def draw_features(plot: FeaturesPlot, *, max_frames: int = 8, tile: int | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Frames above, their patch features below.

    Args:
        plot: One clip.
        max_frames: Frames shown, evenly spread; the PCA runs over all frames.
        tile: Approximate longer side of a frame in the plot; None chooses, larger for short clips.
    """
    shown = spread(len(plot.images), max_frames)
    tile = tile or (192 if len(shown) <= 4 else 144)
    colors, share = pca_colors(plot.features)
    frames = [fit(frame, tile) for frame in to_frames(plot.images[shown])]
    height, width = frames[0].shape[:2]
    label_width, gap, top = 76, 4, 52
    _, h, w, d = plot.features.shape
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
