"""Camera pose and intrinsics from a (predicted) ray map."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from omnistream.cameras.intrinsics import make_intrinsics
from omnistream.cameras.rotations import make_pose


def _canonical_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Pixel centres of an image that spans [-1, 1] x [-1, 1], homogeneous; [h*w, 3], row by row."""
    y = (2 * torch.arange(height, device=like.device, dtype=like.dtype) + 1) / height - 1
    x = (2 * torch.arange(width, device=like.device, dtype=like.dtype) + 1) / width - 1
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1).flatten(0, 1)
    return torch.cat([grid, torch.ones_like(grid[:, :1])], -1)


def _rotation_times_upper(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """QR decomposition with a positive diagonal, which makes it unique."""
    rotation, upper = torch.linalg.qr(matrix)
    sign = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(matrix.dtype)
    return rotation * sign[..., None, :], upper * sign[..., :, None]


def cameras_from_rays(
    rays: Float[Tensor, "*B h w 6"],
    confidence: Float[Tensor, "*B h w"] | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[Float[Tensor, "*B 4 4"], Float[Tensor, "*B 3 3"]]:
    """The pinhole camera that best fits a ray map.

    Directions are affine in the pixel position, d = H p with H = R K^-1, scale included. H is the weighted
    least-squares solution over all pixels; since K^-1 is upper triangular, the QR decomposition of H gives R and K,
    and skew is ignored. The camera centre is the weighted mean of the origins. Differentiable.

    Args:
        rays: Origin, then direction with camera z of 1 (not unit length).
        confidence: Non-negative weight of every ray; None for equal weights.
        size: Height and width of the image that K refers to; None for the size of the ray map.

    Returns:
        camera_to_world, and K in pixels of `size`. Both are NaN where no camera fits because the determinant
        of H is not positive (the map is mirrored or degenerate).

    Source: replaces the homography search of ByteDance-Seed/Depth-Anything-3: src/depth_anything_3/utils/ray_utils.py;
    the linear solution is exact for an off-centre principal point and does not degrade when a direction's z nears 0.
    """
    height, width = rays.shape[-3:-1]
    flat = rearrange(rays, "... h w c -> ... (h w) c")
    origin, direction = flat.split(3, -1)
    weight = torch.ones_like(flat[..., 0]) if confidence is None else confidence.flatten(-2)
    weight = weight / weight.sum(-1, keepdim=True)
    grid = _canonical_grid(height, width, like=flat)  # [N, 3]
    weighted = weight[..., None] * grid
    homography = torch.linalg.solve(weighted.mT @ grid, weighted.mT @ direction).mT  # [*B, 3, 3]
    rotation, upper = _rotation_times_upper(homography)
    pose = make_pose(rotation, (weight[..., None] * origin).sum(-2))
    half_height, half_width = (side / 2 for side in (size or (height, width)))
    intrinsics = make_intrinsics(
        focal_x=half_width * upper[..., 2, 2] / upper[..., 0, 0],
        focal_y=half_height * upper[..., 2, 2] / upper[..., 1, 1],
        centre_x=half_width * (1 - upper[..., 0, 2] / upper[..., 0, 0]),
        centre_y=half_height * (1 - upper[..., 1, 2] / upper[..., 1, 1]),
    )
    unusable = (torch.linalg.det(homography) <= 0)[..., None, None]
    return pose.masked_fill(unusable, torch.nan), intrinsics.masked_fill(unusable, torch.nan)
