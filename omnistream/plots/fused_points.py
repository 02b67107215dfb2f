"""A point cloud fused from the depth and cameras of a video."""

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from omnistream.cameras import points_from_depth, rays_from_cameras
from omnistream.plots.point_file import PointFile, point_records
from omnistream.tasks.reconstruction.outcome import ReconstructedVideo


def confident_points(
    points: Float[Tensor, "H W 3"],
    confidence: Float[Tensor, "H W"],
    image: UInt8[Tensor, "3 H W"],
    *,
    stride: int,
    quantile: float,
) -> np.ndarray:
    """Records of the points of a frame that are finite and confident enough.

    Args:
        points: Of every pixel.
        confidence: Of every pixel; larger is more certain.
        image: The colours.
        stride: Every `stride`-th pixel of every `stride`-th row is a candidate.
        quantile: Fraction of the candidates that is left out, the least certain ones; 0 keeps all.
    """
    grid = slice(stride // 2, None, stride)
    xyz = points[grid, grid].reshape(-1, 3).float().cpu()
    sure = confidence[grid, grid].reshape(-1).float().cpu()
    colors = rearrange(image[:, grid, grid], "c h w -> (h w) c")
    keep = xyz.isfinite().all(-1) & sure.isfinite()
    if quantile > 0 and keep.any():
        keep &= sure >= torch.quantile(sure[keep], quantile)
    return point_records(xyz[keep].numpy(), colors[keep].numpy(), sure[keep].numpy())


def write_points(
    video: ReconstructedVideo, path: Path, *, stride: int = 2, confidence: float = 0.3, max_points: int = 1_000_000
) -> int:
    """Write the points of a video's frames, coloured, to a binary PLY file in the world of its poses.

    Depth and poses are those of the video, each aligned to the truth on its own: where their scales disagree, surfaces
    of different frames do not meet. Frames without a finite pose and intrinsics have no points.

    Args:
        video: One video.
        path: File to write.
        stride: Distance between the pixels that become points.
        confidence: Fraction of the least certain points of a frame that is left out; without effect if the video has no
            confidence.
        max_points: Maximum number of points; see `PointFile`.

    Returns:
        The number of points.

    Raises:
        ValueError: If the video lacks depth, intrinsics or poses.
    """
    if video.depth is None or video.intrinsics is None or video.camera_to_world is None:
        raise ValueError(f"{video.name}: a point cloud needs predicted depth, intrinsics and poses")
    poses = video.camera_to_world[video.positions].float()
    rays = rays_from_cameras(video.intrinsics.float(), poses, (video.depth.shape[-2], video.depth.shape[-1]))
    points = points_from_depth(video.depth.float(), rays)
    points = points.masked_fill(~(video.depth > 0)[..., None], torch.nan)
    sure = torch.ones_like(video.depth) if video.confidence is None else video.confidence
    quantile = 0.0 if video.confidence is None else confidence
    file = PointFile(path, max_points)
    try:
        for index, image in enumerate(video.images):
            chosen = confident_points(points[index], sure[index], image, stride=stride, quantile=quantile)
            file.add(chosen, phase=index)
    finally:
        file.close()
    return file.num_points
