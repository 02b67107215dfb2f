"""Similarity (Sim(3)) alignment of point sets and trajectories."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from omnistream.cameras.rotations import make_pose


class Similarity(NamedTuple):
    """x -> scale * rotation @ x + translation."""

    scale: Tensor
    """Scale factor, `[*B]`."""
    rotation: Tensor
    """Rotation matrix, `[*B, 3, 3]`."""
    translation: Tensor
    """Translation in the units of the target, `[*B, 3]`."""


def align_similarity(
    source: Float[Tensor, "*B N 3"],
    target: Float[Tensor, "*B N 3"],
    weights: Float[Tensor, "*B N"] | None = None,
    with_scale: bool = True,
) -> Similarity:
    """The similarity that best maps `source` to `target` in the (weighted) least-squares sense.

    The result is never a reflection: the weakest singular direction is flipped where needed. If all points coincide or
    lie on a line, the rotation is not unique and one of the solutions is returned.

    Args:
        source: Points to align.
        target: The point that each corresponds to.
        weights: Non-negative weight of every pair; None for equal weights.
        with_scale: False fixes the scale at 1 (a rigid motion).

    Raises:
        ValueError: If there are no points.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991.
    """
    if source.shape[-2] == 0:
        raise ValueError("align_similarity needs at least one pair of points; got none")
    weights = torch.ones_like(source[..., 0]) if weights is None else weights
    share = (weights / weights.sum(-1, keepdim=True))[..., None]  # [*B, N, 1]
    source_mean, target_mean = (share * source).sum(-2), (share * target).sum(-2)
    source_part, target_part = source - source_mean[..., None, :], target - target_mean[..., None, :]
    left, singular, right = torch.linalg.svd((share * target_part).mT @ source_part)
    sign = torch.ones_like(singular)
    sign[..., 2] = torch.where(torch.linalg.det(left) * torch.linalg.det(right) < 0, -1.0, 1.0).to(sign.dtype)
    rotation = (left * sign[..., None, :]) @ right
    scale = torch.ones_like(singular[..., 0])
    if with_scale:
        variance = (share * source_part.square()).sum((-2, -1))
        scale = (singular * sign).sum(-1) / variance.clamp_min(torch.finfo(variance.dtype).tiny)
    translation = target_mean - scale[..., None] * (rotation @ source_mean[..., None]).squeeze(-1)
    return Similarity(scale, rotation, translation)


def apply_similarity(similarity: Similarity, points: Float[Tensor, "*B N 3"]) -> Float[Tensor, "*B N 3"]:
    """Apply a similarity to points."""
    moved = similarity.scale[..., None, None] * (points @ similarity.rotation.mT)
    return moved + similarity.translation[..., None, :]


def apply_similarity_to_poses(
    similarity: Similarity, camera_to_world: Float[Tensor, "*B N 4 4"]
) -> Float[Tensor, "*B N 4 4"]:
    """Apply a similarity to cameras: centres are mapped like points, orientations are rotated."""
    centres = apply_similarity(similarity, camera_to_world[..., :3, 3])
    return make_pose(similarity.rotation[..., None, :, :] @ camera_to_world[..., :3, :3], centres)
