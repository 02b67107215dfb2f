"""Writing videos of a stream: principal components of the features, and depth."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from omnistream.data.media.resize import resize_images
from omnistream.plots.depth import DEPTH_COLORMAP
from omnistream.plots.features import PcaColors
from omnistream.plots.mp4 import Mp4File
from omnistream.plots.sheet import Scale, robust_scale
from omnistream.plots.video_frames import bar_labels, color_bar, side_by_side
from omnistream.streaming.depth import UNIT
from omnistream.streaming.frames import Frame
from omnistream.streaming.writer import Step

DepthRange = Literal["first", "running"] | tuple[float, float]

RUNNING_SHARE = 0.05
"""Weight of a new frame in the running range of depth."""


class _DelayedVideo(ABC):
    """A video whose colours are fitted to its first frames, which are held back until there are enough of them."""

    def __init__(self, path: Path, fps: float, fit_frames: int) -> None:
        self.path, self.fps, self.fit_frames = path, fps, fit_frames
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._size: tuple[int, int] | None = None
        self._video: Mp4File | None = None
        self._fitted = False

    @abstractmethod
    def _fit(self, values: list[Tensor]) -> None:
        """Fit the colours to the features or depth of the first frames."""

    @abstractmethod
    def _color(self, value: Float[Tensor, "h w *D"], size: tuple[int, int]) -> UInt8[np.ndarray, "_h _w 3"]:
        """Features or depth of one frame as colours, to be shown at this size."""

    def _add(self, frames: list[Frame], values: Tensor) -> None:
        for frame, value in zip(frames, values, strict=True):
            if self._fitted:
                self._show(frame.image, value)
            else:
                self._waiting.append((frame.image, value.clone()))
                if len(self._waiting) >= self.fit_frames:
                    self._flush()

    def _flush(self) -> None:
        self._fit([value for _, value in self._waiting])
        self._fitted = True
        for pair in self._waiting:
            self._show(*pair)
        self._waiting.clear()

    def _show(self, image: UInt8[Tensor, "3 H W"], value: Tensor) -> None:
        if self._video is None or self._size is None:
            self._video, self._size = Mp4File(self.path, self.fps), (image.shape[-2], image.shape[-1])
        shown = rearrange(resize_images(image, self._size), "c h w -> h w c").numpy()
        self._video.add(self._with_legend(side_by_side(shown, self._color(value, self._size))))

    def _with_legend(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H _W 3"]:
        """The frame of the video with a legend of its colours."""
        return image

    def close(self) -> None:
        """Complete the file; if the stream was short, the colours are fitted to fewer frames."""
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
    """Writes `features_pca.mp4`: frames beside their patch features, three principal components as red, green and blue.

    Basis, signs and range are fitted to the first frames and then fixed, so that a colour keeps its meaning. Features
    of later frames may be clipped, or lie outside the basis.

    Args:
        path: File to write.
        fps: Frames per second.
        fit_frames: Number of frames to which the basis is fitted.
    """

    def __init__(self, path: Path, fps: float, fit_frames: int = 16) -> None:
        super().__init__(path, fps, fit_frames)
        self._pca: PcaColors | None = None

    def write(self, step: Step) -> None:
        """Add the frames of a step."""
        self._add(step.frames, step.output.last[0].float().cpu())

    def _fit(self, values: list[Tensor]) -> None:
        self._pca = PcaColors.fit(torch.stack(values))

    def _color(self, value: Float[Tensor, "h w D"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        assert self._pca is not None
        return (self._pca.colors(value[None])[0] * 255).round().to(torch.uint8).numpy()

    def summary(self) -> dict[str, object]:
        """How the colours were fitted."""
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
    """Writes `depth.mp4`: frames beside their predicted z-depth and a colour bar (turbo: near is blue, far is red).

    Args:
        path: File to write.
        fps: Frames per second.
        depth_range: Two depths in scene units; `first`, the 2-98 % range of the first frames; or `running`, a range
            that adapts slowly, for scenes whose depth changes a lot.
        fit_frames: Number of frames that `first` uses.

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
        self._bar: tuple[tuple[str, ...], np.ndarray] | None = None

    def write(self, step: Step) -> None:
        """Add the frames of a step."""
        self._add(step.frames, step.output.heads["geometry"].depth[0].float().cpu())

    def _fit(self, values: list[Tensor]) -> None:
        if self._scale is None:
            self._scale = _scale_of(torch.stack(values))

    def _color(self, value: Float[Tensor, "h w"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
        assert self._scale is not None
        if self.depth_range == "running":
            new, old, share = _scale_of(value), self._scale, RUNNING_SHARE
            low, high = (1 - share) * old.low + share * new.low, (1 - share) * old.high + share * new.high
            self._scale = Scale(low, high, DEPTH_COLORMAP)
        # Depth is resized rather than its colours, because interpolated colours would mean other depths.
        return self._scale.colors(F.interpolate(value[None, None], size, mode="bilinear")[0, 0])

    def _with_legend(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H _W 3"]:
        assert self._scale is not None
        labels = bar_labels(self._scale)
        if self._bar is None or self._bar[0] != labels:  # drawing text takes as long as encoding a frame
            self._bar = labels, color_bar(self._scale, len(image), "depth", UNIT)
        return np.concatenate([image, self._bar[1]], axis=1)

    def summary(self) -> dict[str, object]:
        """The colour scale."""
        if self._scale is None or self._video is None:
            return {}
        kind = self.depth_range if isinstance(self.depth_range, str) else "fixed"
        scale = {"range": kind, "low": self._scale.low, "high": self._scale.high, "colormap": DEPTH_COLORMAP}
        return {self.path.name: {**self._facts(), **scale, "unit": UNIT}}


def _scale_of(depth: Float[Tensor, "..."]) -> Scale:
    return robust_scale(depth, torch.ones_like(depth, dtype=torch.bool), DEPTH_COLORMAP)
