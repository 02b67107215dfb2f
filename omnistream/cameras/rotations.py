"""Rotations as matrices and quaternions, and rigid camera poses.

Quaternions are (x, y, z, w), scalar last, as in facebookresearch/vggt: vggt/utils/rotation.py. A pose is a 4x4 matrix
with OpenCV axes (x right, y down, z forward); its name states the direction, `camera_to_world` unless noted otherwise.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def matrix_from_quaternion(quaternion: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation matrix of a quaternion (x, y, z, w) of any non-zero length.

    Multiplying the quaternion by any non-zero number gives the same matrix, so a network need not normalise its output.
    """
    x, y, z, w = quaternion.unbind(-1)
    s = 2.0 / quaternion.square().sum(-1)
    rows = [
        1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w),
        s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w),
        s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def quaternion_from_matrix(rotation: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 4"]:
    """Unit quaternion (x, y, z, w) with w >= 0 of a rotation matrix.

    The matrix determines the products 4 q_i q_j; the row of the largest component, normalised, is the quaternion. No
    square root of a vanishing number is taken, so value and gradient are accurate at every angle. At exactly
    180 degrees (w = 0) the sign is chosen so that the largest component is positive.
    """
    m = rotation
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m.flatten(-2).unbind(-1)
    xx, yy, zz, ww = 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22, 1 + m00 + m11 + m22
    xy, xz, yz = m01 + m10, m02 + m20, m12 + m21
    xw, yw, zw = m21 - m12, m02 - m20, m10 - m01
    entries = [xx, xy, xz, xw, xy, yy, yz, yw, xz, yz, zz, zw, xw, yw, zw, ww]
    products = torch.stack(entries, -1).unflatten(-1, (4, 4))  # 4 q_i q_j
    largest = torch.stack([xx, yy, zz, ww], -1).argmax(-1)[..., None, None].expand(*m.shape[:-2], 1, 4)
    row = products.gather(-2, largest).squeeze(-2)
    quaternion = row / row.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def nearest_rotation(matrix: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 3 3"]:
    """The rotation closest to a matrix, in the least-squares sense, such as that of a file with rounded numbers.

    Raises:
        torch.linalg.LinAlgError: If a number is not finite.
    """
    left, _, right = torch.linalg.svd(matrix)
    flip = torch.linalg.det(left @ right)  # -1 for a matrix that mirrors: the weakest direction is turned
    return torch.cat([left[..., :2], left[..., 2:] * flip[..., None, None]], -1) @ right


def rotation_angle(
    first: Float[Tensor, "*B 3 3"], second: Float[Tensor, "*B 3 3"], degrees: bool = True
) -> Float[Tensor, "*B"]:
    """Angle between two rotations, in [0, 180] degrees or [0, pi] radians.

    Uses sine and cosine together, so small angles and angles near 180 degrees are accurate (an arc cosine of
    the trace loses half of the digits).
    """
    between = first.mT @ second
    cosine = (between.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    skew = between - between.mT
    sine = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1).norm(dim=-1) / 2
    angle = torch.atan2(sine, cosine)
    return angle * (180 / math.pi) if degrees else angle


def constant(values: Sequence[float] | Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """Numbers in the dtype and on the device of a tensor; `like.new_tensor` would wait for the device."""
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


def make_pose(rotation: Float[Tensor, "*B 3 3"], translation: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 4 4"]:
    """4x4 rigid transform with this rotation and translation."""
    top = torch.cat([rotation, translation[..., None]], -1)
    bottom = constant([0.0, 0.0, 0.0, 1.0], like=top).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, bottom], -2)


def invert_pose(pose: Float[Tensor, "*B 4 4"]) -> Float[Tensor, "*B 4 4"]:
    """Inverse of a rigid transform: camera-to-world becomes world-to-camera and vice versa."""
    rotation = pose[..., :3, :3].mT
    return make_pose(rotation, -(rotation @ pose[..., :3, 3:]).squeeze(-1))


def relative_to_first(camera_to_world: Float[Tensor, "*B T 4 4"]) -> Float[Tensor, "*B T 4 4"]:
    """The poses expressed in the frame of the first camera of each clip: `inverse(pose_0) @ pose_t`."""
    return invert_pose(camera_to_world[..., :1, :, :]) @ camera_to_world
