"""A point cloud of a stream, of bounded size."""

from pathlib import Path

from omnistream.plots.fused_points import confident_points
from omnistream.plots.point_file import PointFile
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
            found = confident_points(
                points[i], geometry.depth_confidence[0, i], step.images[i], stride=self.stride, quantile=self.confidence
            )
            self._file.add(found, phase=frame.index)

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
