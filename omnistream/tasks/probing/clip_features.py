"""Tokens and labels of clips."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from omnistream.data.batch import FrameClip


def clip_tokens(
    backbone: nn.Module,
    images: UInt8[Tensor, "B F 3 H W"],
    *,
    frames_per_segment: int | None = None,
    token_grid: int | None = None,
    per_frame: bool = False,
) -> Float[Tensor, "B N D"]:
    """Patch tokens of the last layer, after the final norm, of all frames.

    The tokens are in the order segment, frame, row, column; of a clip encoder, a time step stands for several frames.
    Each segment is its own stream: time starts from zero.

    Args:
        backbone: A `Backbone`.
        images: Frames of all segments, one segment after the other.
        frames_per_segment: Frames of a segment; None if the clip is one segment.
        token_grid: Average every frame to this many tokens per side; None keeps all patches.
        per_frame: Encode every frame by itself, as an image model does: nothing in the tokens tells of time.

    Raises:
        ValueError: If the frames do not make whole segments.
    """
    frames = frames_per_segment or images.shape[1]
    if images.shape[1] % frames:
        raise ValueError(f"{images.shape[1]} frames do not make segments of {frames}; sample whole segments")
    segments = rearrange(images, "B (S T) C H W -> (B S) T C H W", T=1 if per_frame else frames)
    patches = backbone(backbone.normalize(segments)).last  # type: ignore[operator]
    if token_grid is not None:
        B = len(patches)
        planes = rearrange(patches, "B T h w D -> (B T) D h w")
        patches = rearrange(F.adaptive_avg_pool2d(planes, token_grid), "(B T) D h w -> B T h w D", B=B)
    return rearrange(patches, "(B S) T h w D -> B (S T h w) D", B=len(images))


def class_labels(batch: FrameClip, num_classes: int) -> Int64[Tensor, " B"]:
    """The labels of a batch.

    Raises:
        ValueError: If one is not in [0, num_classes).
    """
    low, high = int(batch.label.min()), int(batch.label.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must be in [0, {num_classes}), got {low} to {high}; check num_classes")
    return batch.label
