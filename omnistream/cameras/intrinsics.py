"""Pinhole intrinsics: field of view, resizing, cropping, rotating the image, and OpenCV's pixel convention.

Throughout, the centre of pixel i is at i + 0.5, so the centre of an image is at (W/2, H/2). A size is (height, width),
and the two fields of view are in radians, height first, as in facebookresearch/vggt: vggt/utils/pose_enc.py.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from omnistream.cameras.rotations import constant, invert_pose, make_pose

_MIN_TANGENT = 1e-6
"""Smallest tan(fov / 2) when decoding: a predicted field of view of 0 then gives a long, finite focal length (as
DA3)."""


def make_intrinsics(
    focal_x: Float[Tensor, "*B"],
    focal_y: Float[Tensor, "*B"],
    centre_x: Float[Tensor, "*B"],
    centre_y: Float[Tensor, "*B"],
) -> Float[Tensor, "*B 3 3"]:
    """Matrix K of a camera without skew, from its focal lengths and principal point in pixels."""
    zero, one = torch.zeros_like(focal_x), torch.ones_like(focal_x)
    entries = [focal_x, zero, centre_x, zero, focal_y, centre_y, zero, zero, one]
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def fov_from_intrinsics(intrinsics: Float[Tensor, "*B 3 3"], size: tuple[int, int]) -> Float[Tensor, "*B 2"]:
    """Vertical and horizontal field of view in radians, 2 atan(side / 2f); the principal point is ignored."""
    half = constant(size, like=intrinsics) / 2
    focal = torch.stack([intrinsics[..., 1, 1], intrinsics[..., 0, 0]], -1)
    return 2 * torch.atan(half / focal)


def intrinsics_from_fov(fov: Float[Tensor, "*B 2"], size: tuple[int, int]) -> Float[Tensor, "*B 3 3"]:
    """K with the principal point at the image centre, from (vertical, horizontal) fields of view in radians."""
    half = constant(size, like=fov) / 2
    focal_y, focal_x = (half / torch.tan(fov / 2).clamp_min(_MIN_TANGENT)).unbind(-1)
    centre_y, centre_x = half.unbind()
    return make_intrinsics(focal_x, focal_y, centre_x.expand_as(focal_x), centre_y.expand_as(focal_y))


def resize_intrinsics(
    intrinsics: Float[Tensor, "*B 3 3"], old_size: tuple[int, int], new_size: tuple[int, int]
) -> Float[Tensor, "*B 3 3"]:
    """K after the image is resized; the scale of each axis is the ratio of its sizes."""
    scale = [new_size[1] / old_size[1], new_size[0] / old_size[0], 1.0]
    return intrinsics * constant(scale, like=intrinsics)[:, None]


def _move_centre(intrinsics: Tensor, x: float, y: float) -> Tensor:
    shift = torch.zeros_like(intrinsics)
    shift[..., 0, 2] = x
    shift[..., 1, 2] = y
    return intrinsics + shift


def crop_intrinsics(intrinsics: Float[Tensor, "*B 3 3"], top: float, left: float) -> Float[Tensor, "*B 3 3"]:
    """K after `top` rows and `left` columns are cut off; negative numbers are padding."""
    return _move_centre(intrinsics, x=-left, y=-top)


def from_opencv_intrinsics(intrinsics: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 3 3"]:
    """K in this library's convention from one whose pixel i has its centre at i (OpenCV, most RGB-D data sets)."""
    return _move_centre(intrinsics, x=0.5, y=0.5)


def to_opencv_intrinsics(intrinsics: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 3 3"]:
    """Inverse of `from_opencv_intrinsics`."""
    return _move_centre(intrinsics, x=-0.5, y=-0.5)


def rotate_camera_clockwise(
    intrinsics: Float[Tensor, "*B 3 3"], camera_to_world: Float[Tensor, "*B 4 4"], size: tuple[int, int]
) -> tuple[Float[Tensor, "*B 3 3"], Float[Tensor, "*B 4 4"]]:
    """K and pose after the image is rotated by 90 degrees clockwise.

    Args:
        intrinsics: K of the original image.
        camera_to_world: Pose of the original image.
        size: Height and width of the original image.

    Returns:
        K and pose of the rotated image. The pixel at (u, v) is now at (H - v, u) and still shows the same point of the
        world.
    """
    turned = make_intrinsics(
        focal_x=intrinsics[..., 1, 1],
        focal_y=intrinsics[..., 0, 0],
        centre_x=size[0] - intrinsics[..., 1, 2],
        centre_y=intrinsics[..., 0, 2],
    )
    quarter = constant([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], like=intrinsics)
    return turned, camera_to_world @ invert_pose(make_pose(quarter, torch.zeros_like(quarter[0])))
