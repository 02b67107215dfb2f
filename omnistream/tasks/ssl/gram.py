"""Gram anchoring: the student keeps the gram teacher's patch-to-patch similarities, so that features stay local."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def gram_loss(
    student: Float[Tensor, "B N D"],
    teacher: Float[Tensor, "B N D"],
    *,
    normalize: bool = True,
    image_level: bool = True,
    remove_negative: bool = False,
    remove_only_teacher_negative: bool = False,
) -> Float[Tensor, ""]:
    """Mean squared difference of the two matrices of dot products between patches.

    Args:
        student: Patch features after the final norm, masked positions included.
        teacher: Patch features of the gram teacher, on the same grid.
        normalize: Use cosine similarities.
        image_level: One N x N matrix per image; otherwise one over all patches of the batch.
        remove_negative: Replace negative similarities by 0 in both.
        remove_only_teacher_negative: Replace them in the teacher's matrix only.

    Source: paper eq. 14 (a squared Frobenius norm there); the mean is that of
    facebookresearch/dinov3: dinov3/loss/gram_loss.py.
    """
    with torch.autocast(student.device.type, enabled=False):
        students = _similarities(student.float(), normalize, image_level)
        teachers = _similarities(teacher.detach().float(), normalize, image_level)
        if remove_negative or remove_only_teacher_negative:
            teachers = teachers.clamp_min(0)
        if remove_negative:
            students = students.clamp_min(0)
        return F.mse_loss(students, teachers)


def _similarities(features: Float[Tensor, "B N D"], normalize: bool, image_level: bool) -> Float[Tensor, "A M M"]:
    if normalize:
        features = F.normalize(features, dim=-1)
    if not image_level:
        features = rearrange(features, "b n d -> 1 (b n) d")
    return features @ features.transpose(-1, -2)


def resize_patches(patches: Float[Tensor, "B h w D"], size: tuple[int, int]) -> Float[Tensor, "B h2 w2 D"]:
    """Feature map on another grid, bicubic; the same grid is returned unchanged.

    Source: facebookresearch/dinov3: gram options global_teacher_resize_method bicubic, antialias off.
    """
    if patches.shape[1:3] == size:
        return patches
    maps = rearrange(patches.float(), "b h w d -> b d h w")
    maps = F.interpolate(maps, size=size, mode="bicubic", align_corners=False)
    return rearrange(maps, "b d h w -> b h w d")
