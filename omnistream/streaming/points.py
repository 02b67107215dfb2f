"""A point cloud of a stream, of bounded size."""

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from omnistream.plots.point_file import PointFile, point_records
from omnistream.streaming.poses import usable_poses
from omnistream.streaming.writer import Step
from omnistream.tasks.geometry.inference import FirstCamera


class PointCloud:
    """Writes `points.ply`: the most confident points of every frame, coloured, in the frame of the first camera.

    In each frame, every `stride`-th pixel of every `stride`-th row is a candidate, and those with a depth confidence
    above the frame's quantile `confidence` are kept. When there are more than `max_points`, every second point of the
    file is dropped, and from then on half as many are taken per frame: the file never exceeds the limit, and all parts
    of a stream are represented equally. Frames before the first one with a pose (see `PoseFiles`) have no points.

    Args:
        path: File to write.
        stride: Distance between candidates in pixels.
        confidence: Fraction of a frame's candidates that is left out; 0 keeps all.
        max_points: Maximum number of points.
    """

    def __init__(self, path: Path, *, stride: int = 4, confidence: float = 0.5, max_points: int = 2_000_000) -> None:
        self.path, self.stride, self.confidence, self.max_points = path, stride, confidence, max_points
        self.num_unplaced = 0
        self._relative_to_first = FirstCamera()
        self._placed = False
        self._file: PointFile | None = None

    def write(self, step: Step) -> None:
        """Add the frames of a step."""
        if self._file is None:
            self._file = PointFile(self.path, self.max_points)
        geometry, poses = step.output.heads["geometry"], usable_poses(step).float()
        points = self._relative_to_first(poses, geometry.points)[1][0]
        has_pose = poses[0].isfinite().all(-1).all(-1).tolist()
        for i, frame in enumerate(step.frames):
            self._placed = self._placed or has_pose[i]
            if not self._placed:
                self.num_unplaced += 1
                continue
            found = self._choose(points[i], geometry.depth_confidence[0, i], step.images[i])
            self._file.add(found, phase=frame.index)

    def _choose(
        self, points: Float[Tensor, "H W 3"], confidence: Float[Tensor, "H W"], image: UInt8[Tensor, "3 H W"]
    ) -> np.ndarray:
        """Records of the candidates that are finite and confident enough, in the frame of the first camera."""
        grid = slice(self.stride // 2, None, self.stride)
        xyz = points[grid, grid].reshape(-1, 3).float().cpu()
        sure = confidence[grid, grid].reshape(-1).float().cpu()
        colors = rearrange(image[:, grid, grid], "c h w -> (h w) c")
        keep = xyz.isfinite().all(-1) & sure.isfinite()
        if self.confidence > 0 and keep.any():
            keep &= sure >= torch.quantile(sure[keep], self.confidence)
        return point_records(xyz[keep].numpy(), colors[keep].numpy(), sure[keep].numpy())

    def close(self) -> None:
        """Fill in the number of points in the header and close the file."""
        if self._file is not None:
            self._file.close()

    def summary(self) -> dict[str, object]:
        """The number of points, and how they were selected."""
        if self._file is None:
            return {}
        limits = {"stride": self.stride, "confidence_quantile": self.confidence, "thinned_by": self._file.every}
        counts = {"points": self._file.num_points, "frames_without_points": self.num_unplaced}
        return {self.path.name: {**counts, **limits}}
