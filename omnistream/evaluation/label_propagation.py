"""Propagation of labels through a video by the similarity of frozen features: segmentation without any training."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

Neighborhood = Literal["square", "circle"]
Upsampling = Literal["bilinear", "nearest"]
_SIMILARITIES_AT_ONCE = 2**22
"""In memory (16 MB, a few times); a frame of 832x480 with eight context frames has 20 million."""


@dataclass(frozen=True)
class PropagationConfig:
    """Constants of label propagation; the defaults are DINO's.

    DINOv3's notebook differs in `shape` (`circle`), `temperature` (0.2) and `upsampling` (`nearest`). The OmniStream
    paper does not give its own.

    Source: facebookresearch/dino: eval_video_segmentation.py; facebookresearch/dinov3:
    notebooks/segmentation_tracking.ipynb.
    """

    num_context_frames: int = 7
    """Previous frames that labels are taken from, with their predicted labels; the first frame is added to them."""
    radius: int = 12
    """Labels come from patches at most so many rows and columns away; 0 for the whole frame."""
    shape: Neighborhood = "square"
    """Neighborhood within the radius: all of the square, or the circle in it."""
    top_k: int = 5
    """Most similar patches, over all context frames, whose labels are averaged."""
    temperature: float = 0.1
    """Of the softmax over their cosine similarities."""
    upsampling: Upsampling = "bilinear"
    """From patches to pixels: `bilinear` to the resized frame and then the nearest pixel (DINO), or `nearest` to the
    size of the masks (DINOv3)."""

    def __post_init__(self) -> None:
        if self.num_context_frames < 0 or self.radius < 0 or self.top_k < 1 or self.temperature <= 0:
            raise ValueError(
                "needs num_context_frames and radius >= 0, top_k >= 1 and temperature > 0; got "
                f"{self.num_context_frames}, {self.radius}, {self.top_k} and {self.temperature}"
            )


def propagate_labels(
    query: Float[Tensor, "h w D"],
    context: Float[Tensor, "N h w D"],
    labels: Float[Tensor, "N h w C"],
    config: PropagationConfig = PropagationConfig(),
) -> Float[Tensor, "h w C"]:
    """Labels of a frame: the mean of those of its most similar context patches, weighted by similarity.

    Of every patch, the `top_k` candidates within the neighborhood of its place in all context frames count, and those
    equal to the last of them; their weights are softmax(cosine / temperature).

    Only some rows of the frame are compared at a time, each with the rows of the context within the radius.

    Args:
        query: Features of the frame, of unit length.
        context: Features of the context frames, of unit length.
        labels: Their labels, which sum to 1.
        config: Constants.
    """
    h, w, _ = query.shape
    radius = config.radius or max(h, w)
    step = max(1, _SIMILARITIES_AT_ONCE // (w * len(context) * min(h, 2 * radius + 1) * w))
    parts = []
    for start in range(0, h, step):
        stop = min(start + step, h)
        first, last = max(0, start - radius), min(h, stop + radius)
        band, band_labels = context[:, first:last].flatten(0, 2), labels[:, first:last].flatten(0, 2)
        similarity = query[start:stop].flatten(0, 1) @ band.T
        if config.radius:
            near = _neighborhood((start, stop), (first, last), w, config, similarity.device)
            similarity = similarity.view(len(near), len(context), -1).masked_fill(~near[:, None], -math.inf).flatten(1)
        parts.append(_weights(similarity, config) @ band_labels)
    return torch.cat(parts).view(h, w, -1)


def _weights(similarity: Float[Tensor, "Q M"], config: PropagationConfig) -> Float[Tensor, "Q M"]:
    best = similarity.topk(min(config.top_k, similarity.shape[1]), dim=1).values
    return similarity.masked_fill(similarity < best[:, -1:], -math.inf).div_(config.temperature).softmax(1)


def _neighborhood(
    rows: tuple[int, int], context_rows: tuple[int, int], width: int, config: PropagationConfig, device: torch.device
) -> Bool[Tensor, "Q M"]:
    """Which patches of some rows of a context frame are near each patch of some rows of the frame."""
    columns, radius = torch.arange(width, device=device), config.radius
    dy = torch.arange(*rows, device=device)[:, None] - torch.arange(*context_rows, device=device)
    dx = columns[:, None] - columns
    if config.shape == "circle":
        near = dy.square()[:, None, :, None] + dx.square()[:, None] <= radius**2
    else:
        near = (dy.abs() <= radius)[:, None, :, None] & (dx.abs() <= radius)[:, None]
    return near.flatten(2).flatten(0, 1)


class LabelPropagation:
    """Propagates the labels of the first frame of a video, frame by frame.

    Keeps the features and predicted labels of the first frame and of the last few, so memory does not grow.

    Args:
        features: Patch features of the first frame.
        labels: Its labels, one-hot.
        config: Constants.
    """

    def __init__(
        self,
        features: Float[Tensor, "h w D"],
        labels: Float[Tensor, "h w C"],
        config: PropagationConfig = PropagationConfig(),
    ) -> None:
        self.config = config
        self._first = F.normalize(features.float(), dim=-1), labels.float()
        self._last: deque[tuple[Tensor, Tensor]] = deque(maxlen=config.num_context_frames)

    def step(self, features: Float[Tensor, "h w D"]) -> Float[Tensor, "h w C"]:
        """Labels of the next frame, which sum to 1."""
        query = F.normalize(features.float(), dim=-1)
        context, labels = (torch.stack(parts) for parts in zip(self._first, *self._last, strict=True))
        with torch.autocast(query.device.type, enabled=False):  # bfloat16 would mix up the most similar patches
            found = propagate_labels(query, context, labels, self.config)
        self._last.append((query, found))
        return found


def patch_labels(
    mask: UInt8[Tensor, "H W"], grid: tuple[int, int], num_objects: int
) -> Float[Tensor, "h w {num_objects}+1"]:
    """One-hot labels of patches: those of the pixels nearest to their centres; void (255) is background.

    An object that no patch shows keeps its channel, which is zero everywhere.
    """
    ids = mask.masked_fill(mask > num_objects, 0)[None, None].float()
    nearest = F.interpolate(ids, grid, mode="nearest-exact")[0, 0].long()
    return F.one_hot(nearest, num_objects + 1).float()


def labels_to_mask(
    labels: Float[Tensor, "h w C"],
    size: tuple[int, int],
    frame_size: tuple[int, int],
    upsampling: Upsampling = "bilinear",
) -> UInt8[Tensor, "H W"]:
    """Mask of object ids from the labels of patches.

    Labels are upsampled, those of each object stretched to [0, 1] over the frame, and the largest one wins. An object
    whose label is the same everywhere is not stretched (the originals divide by zero there).

    Args:
        labels: Soft labels; channel 0 is background.
        size: Height and width of the mask.
        frame_size: Those of the frame that the patches are of, before `size`; for `bilinear`.
        upsampling: See `PropagationConfig`.
    """
    planes = labels.float().permute(2, 0, 1)[None]
    if upsampling == "bilinear":
        planes = F.interpolate(planes, frame_size, mode="bilinear", align_corners=False)
    ids = _stretch(planes).argmax(1, keepdim=True).to(torch.uint8)
    # Pillow's nearest neighbour, which DINO uses for the last step, is PyTorch's nearest-exact.
    return F.interpolate(ids, size, mode="nearest" if upsampling == "nearest" else "nearest-exact")[0, 0]


def _stretch(planes: Float[Tensor, "1 C H W"]) -> Float[Tensor, "1 C H W"]:
    low, high = planes.amin((-2, -1), keepdim=True), planes.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (planes - low) / (high - low), planes)
