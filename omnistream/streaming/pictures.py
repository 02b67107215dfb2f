"""Videos of a stream: principal components of the features, and depth."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from torch import Tensor

from omnistream.plots.depth import DEPTH_COLORMAP
from omnistream.plots.features import PcaColors
from omnistream.plots.sheet import Scale, robust_scale
from omnistream.streaming.mp4 import Mp4File
from omnistream.streaming.writer import Step

DepthRange = Literal["first", "running"] | tuple[float, float]

MIN_SHOWN_SIDE = 224
"""Smaller frames are shown enlarged by a whole number."""

RUNNING_SHARE = 0.05
"""Weight of a new frame in the running range of depth."""


def side_by_side(left: UInt8[np.ndarray, "H W 3"], right: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "_H _W 3"]:
    """Two pictures next to each other, both enlarged without smoothing; the right one gets the size of the left."""
    height, width = left.shape[:2]
    rows = np.arange(height) * right.shape[0] // height
    columns = np.arange(width) * right.shape[1] // width
    both = np.concatenate([left, right[rows][:, columns]], axis=1)
    factor = -(-MIN_SHOWN_SIDE // min(height, width))
    return repeat(both, "h w c -> (h i) (w j) c", i=factor, j=factor)


class _DelayedVideo(ABC):
    """A video whose colours are fixed by its first frames, which wait until there are enough of them."""

    def __init__(self, path: Path, fps: float, fit_frames: int) -> None:
        if fit_frames < 1:
            raise ValueError(f"colours need at least one frame to be fitted on, got {fit_frames}")
        self.path, self.fps, self.fit_frames = path, fps, fit_frames
        self._waiting: list[tuple[np.ndarray, Tensor]] = []
        self._video: Mp4File | None = None
        self._fitted = False

    @abstractmethod
    def _fit(self, values: list[Tensor]) -> None:
        """Fix the colours on the features or depth of the first frames."""

    @abstractmethod
    def _color(self, value: Tensor) -> np.ndarray:
        """The picture of one frame's features or depth, (h, w, 3) uint8."""

    def _add(self, images: UInt8[Tensor, "S 3 H W"], values: Tensor) -> None:
        for image, value in zip(rearrange(images, "s c h w -> s h w c").numpy(), values, strict=True):
            if self._fitted:
                self._show(image, value)
            else:
                self._waiting.append((image, value.clone()))
                if len(self._waiting) >= self.fit_frames:
                    self._flush()

    def _flush(self) -> None:
        self._fit([value for _, value in self._waiting])
        self._fitted = True
        for pair in self._waiting:
            self._show(*pair)
        self._waiting.clear()

    def _show(self, image: np.ndarray, value: Tensor) -> None:
        if self._video is None:
            self._video = Mp4File(self.path, self.fps)
        self._video.add(side_by_side(image, self._color(value)))

    def close(self) -> None:
        """Fit on fewer frames if the stream was short, and complete the file."""
        try:
            if self._waiting:
                self._flush()
        finally:
            if self._video is not None:
                self._video.close()

    def _facts(self) -> dict[str, object]:
        assert self._video is not None
        return {"frames": self._video.num_frames, "fps": float(self._video.rate), "codec": self._video.codec}


class FeaturesVideo(_DelayedVideo):
    """`features_pca.mp4`: each frame beside its patch features, three principal components as red, green and blue.

    Basis, signs and stretch come from the first frames and are frozen then: later frames do not change the meaning of a
    colour, and what the first frames did not show may be outside the range (clipped) or outside the basis.

    Args:
        path: File to write.
        fps: Frames per second.
        fit_frames: Frames the basis is fitted on.
    """

    def __init__(self, path: Path, fps: float, fit_frames: int = 16) -> None:
        super().__init__(path, fps, fit_frames)
        self._pca: PcaColors | None = None

    def write(self, step: Step) -> None:
        """Add the frames of a step."""
        self._add(step.images, step.output.last[0].float().cpu())

    def _fit(self, values: list[Tensor]) -> None:
        self._pca = PcaColors.fit(torch.stack(values))

    def _color(self, value: Float[Tensor, "h w D"]) -> UInt8[np.ndarray, "h w 3"]:
        assert self._pca is not None
        return (self._pca.colors(value[None])[0] * 255).round().to(torch.uint8).numpy()

    def summary(self) -> dict[str, object]:
        """What the colours are."""
        if self._pca is None or self._video is None:
            return {}
        return {
            self.path.name: {
                **self._facts(),
                "basis": f"fitted on the first {self.fit_frames} frames (or all, if fewer), then frozen",
                "variance_explained_there": self._pca.share,
            }
        }


class DepthVideo(_DelayedVideo):
    """`depth.mp4`: each frame beside its predicted z-depth on one colour scale (turbo: near is blue, far is red).

    Args:
        path: File to write.
        fps: Frames per second.
        depth_range: Two depths, in the unit of the prediction; or `first`, the 2-98 % range of the first frames,
            frozen then; or `running`, a range that follows slowly, for scenes whose depth changes a lot.
        fit_frames: Frames that `first` looks at.

    Raises:
        ValueError: If the range is empty.
    """

    def __init__(
        self,
        path: Path,
        fps: float,
        depth_range: DepthRange = "first",
        fit_frames: int = 16,
    ) -> None:
        super().__init__(path, fps, fit_frames if depth_range == "first" else 1)
        self.depth_range = depth_range
        self._scale = Scale(*depth_range, DEPTH_COLORMAP) if isinstance(depth_range, tuple) else None

    def write(self, step: Step) -> None:
        """Add the frames of a step."""
        self._add(step.images, step.output.heads["geometry"].depth[0].float().cpu())

    def _fit(self, values: list[Tensor]) -> None:
        if self._scale is None:
            self._scale = _scale_of(torch.stack(values))

    def _color(self, value: Float[Tensor, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
        assert self._scale is not None
        if self.depth_range == "running":
            new, old, share = _scale_of(value), self._scale, RUNNING_SHARE
            low, high = (1 - share) * old.low + share * new.low, (1 - share) * old.high + share * new.high
            self._scale = Scale(low, high, DEPTH_COLORMAP)
        return self._scale.colors(value)

    def summary(self) -> dict[str, object]:
        """The colour scale."""
        if self._scale is None or self._video is None:
            return {}
        kind = self.depth_range if isinstance(self.depth_range, str) else "fixed"
        scale = {"range": kind, "low": self._scale.low, "high": self._scale.high, "colormap": DEPTH_COLORMAP}
        return {self.path.name: {**self._facts(), **scale}}


def _scale_of(depth: Float[Tensor, "..."]) -> Scale:
    return robust_scale(depth, torch.ones_like(depth, dtype=torch.bool), DEPTH_COLORMAP)
