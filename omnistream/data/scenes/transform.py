"""Resizing and cropping a frame together with its depth and camera."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from torch import Tensor

from omnistream.cameras import crop_intrinsics, resize_intrinsics
from omnistream.data.media.resize import resize_images


@dataclass(frozen=True)
class CropPlan:
    """Where one frame is scaled to and cut; the same for image, depth and camera."""

    old_size: tuple[int, int]
    """Height and width of the frame as stored."""
    resized: tuple[int, int]
    """Height and width after scaling."""
    top: int
    """Rows cut off above."""
    left: int
    """Columns cut off on the left."""
    size: tuple[int, int]
    """Height and width of the result."""


def plan_crop(
    old_size: tuple[int, int], intrinsics: Float32[Tensor, "3 3"], size: tuple[int, int], enlarge: int = 0
) -> CropPlan:
    """Scale so that the frame just covers the target, then cut as central on the principal point as possible.

    Args:
        old_size: Height and width of the stored frame.
        intrinsics: Its K; pixel i has its centre at i + 0.5.
        size: Height and width of the result.
        enlarge: Cover a target that is so many pixels larger on each side, which cuts more of the frame off.

    Source: reference rule of integer sizes and a principal-point crop as CUT3R, without its common scale for both axes.
    """
    target = (size[0] + enlarge, size[1] + enlarge)
    scale = max(target[0] / old_size[0], target[1] / old_size[1])
    resized = (max(target[0], round(old_size[0] * scale)), max(target[1], round(old_size[1] * scale)))
    scaled = resize_intrinsics(intrinsics, old_size, resized)
    top = _first_pixel(float(scaled[1, 2]), size[0], resized[0])
    left = _first_pixel(float(scaled[0, 2]), size[1], resized[1])
    return CropPlan(old_size=old_size, resized=resized, top=top, left=left, size=size)


def _first_pixel(centre: float, length: int, available: int) -> int:
    return min(max(round(centre - length / 2), 0), available - length)


def apply_to_image(plan: CropPlan, image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 h w"]:
    """The picture, resampled bicubically with a filter against aliasing."""
    return _cut(plan, resize_images(image, plan.resized))


def apply_to_depth(plan: CropPlan, depth: Float32[Tensor, "H W"]) -> Float32[Tensor, "h w"]:
    """The depth map, each pixel taken from the nearest stored one: mixing would invent surfaces between two depths.

    `nearest-exact` compares pixel centres; plain `nearest` would shift the map up and to the left.
    """
    return _cut(plan, F.interpolate(depth[None, None], size=plan.resized, mode="nearest-exact")[0, 0])


def apply_to_intrinsics(plan: CropPlan, intrinsics: Float32[Tensor, "3 3"]) -> Float32[Tensor, "3 3"]:
    """K of the result."""
    return crop_intrinsics(resize_intrinsics(intrinsics, plan.old_size, plan.resized), plan.top, plan.left)


def _cut(plan: CropPlan, pixels: Tensor) -> Tensor:
    height, width = plan.size
    return pixels[..., plan.top : plan.top + height, plan.left : plan.left + width].contiguous()
