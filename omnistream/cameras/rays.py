"""Ray maps, points from depth, projection.

A ray is (origin, direction), six numbers. Directions are not unit length: their z in the camera's frame is 1, so that
`origin + z_depth * direction` is the visible point.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from omnistream.cameras.rotations import invert_pose


def rays_from_cameras(
    intrinsics: Float[Tensor, "*B 3 3"], camera_to_world: Float[Tensor, "*B 4 4"], size: tuple[int, int]
) -> Float[Tensor, "*B H W 6"]:
    """Origin and direction of the ray through every pixel centre.

    Args:
        intrinsics: K in pixels (skew allowed, last row 0 0 1); the centre of pixel (row i, column j) is at (j + 0.5, i
            + 0.5).
        camera_to_world: OpenCV axes, translation in the unit of the scene.
        size: Height and width of the image in pixels.

    Returns:
        Channels 0-2 origin, 3-5 direction, in the world frame. The origin comes first as in the paper; DA3's code
        stores the direction first.

    Source: paper Sec. 3.3 and DA3 (arXiv 2511.10647) Sec. 3.

    Example:
        >>> rays_from_cameras(torch.eye(3), torch.eye(4), (1, 1))[0, 0].tolist()
        [0.0, 0.0, 0.0, 0.5, 0.5, 1.0]
    """
    height, width = size
    rows = torch.arange(height, device=intrinsics.device, dtype=intrinsics.dtype) + 0.5
    columns = torch.arange(width, device=intrinsics.device, dtype=intrinsics.dtype) + 0.5
    k = intrinsics[..., None, None, :, :]
    y = (rows[:, None] - k[..., 1, 2]) / k[..., 1, 1]  # [*B, H, 1]
    x = (columns - k[..., 0, 2] - k[..., 0, 1] * y) / k[..., 0, 0]  # [*B, H, W]
    pixel = torch.stack([x, y.expand_as(x), torch.ones_like(x)], -1)
    direction = pixel @ camera_to_world[..., None, :3, :3].mT
    origin = camera_to_world[..., None, None, :3, 3].expand_as(direction)
    return torch.cat([origin, direction], -1)


def points_from_depth(depth: Float[Tensor, "*B H W"], rays: Float[Tensor, "*B H W 6"]) -> Float[Tensor, "*B H W 3"]:
    """World points `origin + depth * direction` of z-depths, in the unit of depth and origins."""
    return rays[..., :3] + depth[..., None] * rays[..., 3:]


def project(
    points: Float[Tensor, "*B N 3"], intrinsics: Float[Tensor, "*B 3 3"], camera_to_world: Float[Tensor, "*B 4 4"]
) -> tuple[Float[Tensor, "*B N 2"], Float[Tensor, "*B N"]]:
    """Pixel position (x, y) and z-depth of world points; positions of points with depth <= 0 are meaningless."""
    world_to_camera = invert_pose(camera_to_world)
    camera = points @ world_to_camera[..., :3, :3].mT + world_to_camera[..., None, :3, 3]
    image = camera @ intrinsics.mT
    return image[..., :2] / image[..., 2:], camera[..., 2]


def upsample_rays(rays: Float[Tensor, "*B h w 6"], ratio: int) -> Float[Tensor, "*B H W 6"]:
    """Rays of an image `ratio` times larger, bilinear between pixel centres.

    The map is first extrapolated linearly by one pixel on each side. Rays are affine in the pixel position, so the
    result is exact for a pinhole camera, borders included.

    Raises:
        ValueError: If a side has fewer than two pixels.
    """
    if ratio == 1:
        return rays
    if min(rays.shape[-3:-1]) < 2:
        raise ValueError(f"upsample_rays needs at least 2x2 rays; got {tuple(rays.shape[-3:-1])}")
    batch = rays.shape[:-3]
    image = rearrange(rays.reshape(-1, *rays.shape[-3:]), "n h w c -> n c h w")
    for axis in (2, 3):
        first, second = image.narrow(axis, 0, 1), image.narrow(axis, 1, 1)
        last, before = image.narrow(axis, -1, 1), image.narrow(axis, -2, 1)
        image = torch.cat([2 * first - second, image, 2 * last - before], axis)
    image = F.interpolate(image, scale_factor=float(ratio), mode="bilinear", align_corners=False)
    image = image[..., ratio:-ratio, ratio:-ratio]
    return rearrange(image, "n c h w -> n h w c").unflatten(0, batch)
