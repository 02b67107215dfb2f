"""Predictions of the geometry heads for a batch of clips."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from omnistream.cameras import points_from_depth, upsample_rays


@dataclass(kw_only=True)
class GeometryPrediction:
    """Depth, rays and cameras in the frame of the first camera, up to scale, float32.

    In training the scene is scaled so that the mean distance of its points from the first camera is 1.

    Attributes:
        depth: z-depth [B, T, H, W], positive.
        depth_confidence: [B, T, H, W], above 1.
        rays: Origin and direction [B, T, H/r, W/r, 6]; r is the head's `ray_down_ratio`, 1 by default.
        ray_confidence: [B, T, H/r, W/r], above 1; trained only with `GeometryLossConfig.ray_confidence`.
        pose: Camera-to-world [t(3), q xyzw(4), fov_h, fov_w], [B, T, 9]; see `cameras.decode_pose`.
    """

    depth: Tensor
    depth_confidence: Tensor
    rays: Tensor
    ray_confidence: Tensor
    pose: Tensor

    @property
    def points(self) -> Float[Tensor, "B T H W 3"]:
        """`origin + depth * direction` of every pixel, from the predicted rays (paper Sec. 3.3)."""
        ratio = self.depth.shape[-1] // self.rays.shape[-2]
        return points_from_depth(self.depth, upsample_rays(self.rays, ratio))
