"""Ground truth for the geometry losses: first camera as the world, scale of the scene removed, invalid parts masked."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from omnistream.cameras import encode_pose, points_from_depth, rays_from_cameras, relative_to_first, resize_intrinsics
from omnistream.data.batch import SceneClip

ScaleFrames = Literal["clip", "first"]

_MIN_DEPTH = 1e-8
_SCALE_LIMITS = (1e-6, 1e6)
_COUNT_EPS = 1e-3
"""Added to the count that the summed distance is divided by, as in VGGT."""


@dataclass(kw_only=True)
class GeometryTargets:
    """Targets of the heads; values outside the masks are 0 and have no meaning.

    Attributes:
        depth: z-depth [B, T, H, W] in units of `scale`.
        valid: bool [B, T, H, W], where depth and points are known.
        points: [B, T, H, W, 3], in the frame of the first camera, in units of `scale`.
        rays: [B, T, H/r, W/r, 6]; origins in units of `scale`, directions with camera z of 1.
        ray_valid: bool [B, T], frames whose rays are known (at every pixel, also where depth is not).
        pose: [B, T, 9], see `cameras.encode_pose`.
        pose_valid: bool [B, T], frames whose pose and field of view are known.
        scale: [B], mean distance of the valid points from the first camera, in the unit of the clip.
    """

    depth: Tensor
    valid: Tensor
    points: Tensor
    rays: Tensor
    ray_valid: Tensor
    pose: Tensor
    pose_valid: Tensor
    scale: Tensor


def scene_scale(
    points: Float[Tensor, "B T H W 3"], valid: Bool[Tensor, "B T H W"], frames: ScaleFrames = "clip"
) -> Float[Tensor, " B"]:
    """Mean distance of the valid points from the origin, per clip; 1e-6 where there are none.

    Args:
        points: In the frame of the first camera.
        valid: The points to use.
        frames: Over the whole clip, as VGGT, DA3 and the paper do, or over the first frame alone, which is all that a
            causal model knows at that frame.

    Source: facebookresearch/vggt: training/train_utils/normalization.py.
    """
    if frames == "first":
        points, valid = points[:, :1], valid[:, :1]
    distance = points.norm(dim=-1) * valid
    return (distance.sum((1, 2, 3)) / (valid.sum((1, 2, 3)) + _COUNT_EPS)).clamp(*_SCALE_LIMITS)


def _known_cameras(clip: SceneClip) -> Tensor:
    """[B, T], frames with finite pose and intrinsics, in clips whose first frame has them too."""
    known = torch.isfinite(clip.camera_to_world).all((-2, -1)) & torch.isfinite(clip.intrinsics).all((-2, -1))
    return known & known[:, :1]


def _sanitised(clip: SceneClip, known: Tensor) -> tuple[Tensor, Tensor]:
    """Poses relative to the first camera, and intrinsics; identities where they are not known."""
    identity = torch.eye(4, dtype=clip.camera_to_world.dtype, device=clip.camera_to_world.device)
    usable = known[..., None, None]
    poses = relative_to_first(torch.where(usable, clip.camera_to_world, identity))
    return torch.where(usable, poses, identity), torch.where(usable, clip.intrinsics, identity[:3, :3])


@torch.no_grad()
def geometry_targets(
    clip: SceneClip,
    *,
    scale_frames: ScaleFrames = "clip",
    ray_down_ratio: int = 1,
    world_to_camera: bool = False,
    min_first_pixels: int = 100,
) -> GeometryTargets:
    """Targets of a batch of clips, on the batch's device and in its dtype.

    A pixel is valid if it is valid in the clip, its depth is finite and above 1e-8, its point is finite and its camera
    known. A clip whose first frame has no valid pixel has neither reference nor scale: all of it is invalid. Poses are
    supervised only in clips whose first frame has more than `min_first_pixels` valid pixels.

    Args:
        clip: A batch, axes [B, T, ...].
        scale_frames: Which frames determine the scale; see `scene_scale`.
        ray_down_ratio: Rays are those of an image r times smaller (r divides both sides).
        world_to_camera: Direction of the encoded poses.
        min_first_pixels: See above.

    Source: facebookresearch/vggt: training/train_utils/normalization.py and training/data/composed_dataset.py.
    """
    with torch.autocast(clip.depth.device.type, enabled=False):
        H, W = clip.depth.shape[-2:]
        small = (H // ray_down_ratio, W // ray_down_ratio)
        known = _known_cameras(clip)
        poses, intrinsics = _sanitised(clip, known)
        depth = torch.nan_to_num(clip.depth, nan=0.0, posinf=0.0, neginf=0.0)
        points = points_from_depth(depth, rays_from_cameras(intrinsics, poses, (H, W)))
        valid = clip.valid & (depth > _MIN_DEPTH) & torch.isfinite(points).all(-1) & known[..., None, None]
        first_pixels = valid[:, :1].sum((-2, -1))  # [B, 1]
        usable = known & (first_pixels > 0)
        valid = valid & usable[..., None, None]
        points = points.masked_fill(~valid[..., None], 0)
        scale = torch.where(usable[:, 0], scene_scale(points, valid, scale_frames), 1.0)
        poses = poses.clone()
        poses[..., :3, 3] /= scale[:, None, None]
        rays = rays_from_cameras(resize_intrinsics(intrinsics, (H, W), small), poses, small)
        return GeometryTargets(
            depth=depth.masked_fill(~valid, 0) / scale[:, None, None, None],
            valid=valid,
            points=points / scale[:, None, None, None, None],
            rays=rays,
            ray_valid=usable,
            pose=encode_pose(poses, intrinsics, (H, W), world_to_camera=world_to_camera),
            pose_valid=usable & (first_pixels > min_first_pixels),
            scale=scale,
        )
