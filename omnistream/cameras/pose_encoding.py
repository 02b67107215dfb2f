"""The nine numbers that the camera head predicts: translation, quaternion, field of view."""

import torch
from jaxtyping import Float
from torch import Tensor

from omnistream.cameras.intrinsics import fov_from_intrinsics, intrinsics_from_fov
from omnistream.cameras.rotations import invert_pose, make_pose, matrix_from_quaternion, quaternion_from_matrix


def encode_pose(
    camera_to_world: Float[Tensor, "*B 4 4"],
    intrinsics: Float[Tensor, "*B 3 3"],
    size: tuple[int, int],
    world_to_camera: bool = False,
) -> Float[Tensor, "*B 9"]:
    """Pose and field of view as [t(3), q xyzw(4), fov_h, fov_w].

    Args:
        camera_to_world: OpenCV axes.
        intrinsics: K in pixels; its principal point is not kept.
        size: Height and width of the image in pixels.
        world_to_camera: Encode the inverse pose, which is VGGT's choice; DA3 and this library use camera-to-world,
            whose translation is the origin of the camera's rays.

    Returns:
        Quaternion of unit length with w >= 0, angles in radians; dtype of the inputs.

    Source: layout of facebookresearch/vggt: vggt/utils/pose_enc.py. The paper (Sec. 3.3) names the parts, not their
    order or direction.
    """
    pose = invert_pose(camera_to_world) if world_to_camera else camera_to_world
    fov = fov_from_intrinsics(intrinsics, size)
    return torch.cat([pose[..., :3, 3], quaternion_from_matrix(pose[..., :3, :3]), fov], -1)


def decode_pose(
    encoding: Float[Tensor, "*B 9"], size: tuple[int, int], world_to_camera: bool = False
) -> tuple[Float[Tensor, "*B 4 4"], Float[Tensor, "*B 3 3"]]:
    """Camera-to-world pose and K (principal point at the centre) from `encode_pose`'s numbers.

    The quaternion may have any non-zero length; the tangent of half the field of view is kept above 1e-6.
    """
    translation, quaternion, fov = encoding.split([3, 4, 2], -1)
    pose = make_pose(matrix_from_quaternion(quaternion), translation)
    return invert_pose(pose) if world_to_camera else pose, intrinsics_from_fov(fov, size)
