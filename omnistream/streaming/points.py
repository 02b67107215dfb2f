"""A point cloud of a stream, of bounded size."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from omnistream.streaming.poses import usable_poses
from omnistream.streaming.writer import Step
from omnistream.tasks.geometry.inference import FirstCamera

_VERTEX = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z")]
    + [(name, "u1") for name in ("red", "green", "blue")]
    + [("confidence", "<f4")]
)
_PLY_TYPES = {"f4": "float", "u1": "uchar"}


def ply_header(num_points: int) -> bytes:
    """Header of a binary point cloud, padded to the same length for every number of points."""
    count = str(num_points)
    lines = ["ply", "format binary_little_endian 1.0", f"comment written by omnistream {'-' * (12 - len(count))}"]
    lines.append(f"element vertex {count}")
    for name in _VERTEX.names or ():
        lines.append(f"property {_PLY_TYPES[_VERTEX[name].str[1:]]} {name}")
    return ("\n".join([*lines, "end_header"]) + "\n").encode("ascii")


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
        self.num_points, self.every = 0, 1
        self.num_unplaced = 0
        self._relative_to_first = FirstCamera()
        self._placed = False
        self._file: BinaryIO | None = None

    def write(self, step: Step) -> None:
        """Add the frames of a step."""
        if self._file is None:
            self._file = self.path.open("w+b")
            self._file.write(ply_header(0))
        geometry, poses = step.output.heads["geometry"], usable_poses(step).float()
        points = self._relative_to_first(poses, geometry.points)[1][0]
        has_pose = poses[0].isfinite().all(-1).all(-1).tolist()
        for i, frame in enumerate(step.frames):
            self._placed = self._placed or has_pose[i]
            if not self._placed:
                self.num_unplaced += 1
                continue
            found = self._choose(points[i], geometry.depth_confidence[0, i], step.images[i])
            self._append(found[frame.index % self.every :: self.every])

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
        records = np.empty(int(keep.sum()), _VERTEX)
        for axis, name in enumerate("xyz"):
            records[name] = xyz[keep, axis].numpy()
        for channel, name in enumerate(("red", "green", "blue")):
            records[name] = colors[keep, channel].numpy()
        records["confidence"] = sure[keep].numpy()
        return records

    def _append(self, records: np.ndarray) -> None:
        assert self._file is not None
        self._file.write(records.tobytes())
        self.num_points += len(records)
        while self.num_points > self.max_points:
            self._thin()

    def _thin(self, block: int = 1 << 16) -> None:
        """Keep every second point, rewriting the file block by block."""
        assert self._file is not None
        start, size, kept = len(ply_header(0)), _VERTEX.itemsize, 0
        for first in range(0, self.num_points, 2 * block):
            self._file.seek(start + first * size)
            count = min(2 * block, self.num_points - first)
            records = np.frombuffer(self._file.read(count * size), _VERTEX)[::2]
            self._file.seek(start + kept * size)
            self._file.write(records.tobytes())
            kept += len(records)
        self._file.truncate(start + kept * size)
        self._file.seek(0, 2)
        self.num_points, self.every = kept, 2 * self.every

    def close(self) -> None:
        """Fill in the number of points in the header and close the file."""
        if self._file is not None:
            self._file.seek(0)
            self._file.write(ply_header(self.num_points))
            self._file.close()

    def summary(self) -> dict[str, object]:
        """The number of points, and how they were selected."""
        if self._file is None:
            return {}
        limits = {"stride": self.stride, "confidence_quantile": self.confidence, "thinned_by": self.every}
        counts = {"points": self.num_points, "frames_without_points": self.num_unplaced}
        return {self.path.name: {**counts, **limits}}
