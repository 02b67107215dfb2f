"""What a test keeps of a video for plots: a few frames, and the poses of all."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from omnistream.data.batch import SceneFrame
from omnistream.data.geometry_videos import GeometryVideo
from omnistream.metrics import SequenceDepth
from omnistream.metrics.trajectory import TrajectoryScore, score_trajectory
from omnistream.tasks.reconstruction.outcome import ReconstructedVideo
from omnistream.tasks.reconstruction.streamed import PredictedFrame, spread


class PlottedFrames:
    """Collects a `ReconstructedVideo` while the video passes.

    Args:
        video: Which one.
        most: Most frames that are kept.
    """

    def __init__(self, video: GeometryVideo, most: int) -> None:
        self.name, self.positions = video.name, spread(len(video), most)
        self.poses: list[Tensor] = []
        self.true_poses: list[Tensor] = []
        self._kept: list[tuple[SceneFrame, PredictedFrame]] = []

    def add(self, frame: SceneFrame, found: PredictedFrame) -> None:
        """The next frame."""
        if len(self.poses) in self.positions:
            self._kept.append((frame, found))
        self.poses.append(found.camera_to_world)
        self.true_poses.append(frame.camera_to_world.double())

    def video(
        self,
        errors: dict[str, Float[Tensor, " T"]],
        trajectory: TrajectoryScore | None = None,
        depth: SequenceDepth | None = None,
        clip_to: float | None = None,
    ) -> ReconstructedVideo:
        """The frames with aligned depth and poses; None for what has no finite value, as no such thing was predicted.

        Args:
            errors: Of every frame, by name.
            trajectory: Alignment of the poses; by default the best similarity.
            depth: Alignment of the depth; by default the scale of the poses.
            clip_to: Largest aligned depth.
        """
        poses, truth = torch.stack(self.poses), torch.stack(self.true_poses)
        trajectory = score_trajectory(poses, truth) if trajectory is None else trajectory
        maps = self._aligned(trajectory, depth)
        intrinsics = torch.stack([found.intrinsics for _, found in self._kept])
        confidences = [found.confidence for _, found in self._kept]
        return ReconstructedVideo(
            name=self.name,
            images=torch.stack([frame.image for frame, _ in self._kept]),
            positions=self.positions,
            depth=maps.clamp_max(math.inf if clip_to is None else clip_to) if maps.isfinite().any() else None,
            confidence=None if any(one is None for one in confidences) else torch.stack(confidences),  # type: ignore[arg-type]
            true_depth=self._true_depth(),
            intrinsics=intrinsics if intrinsics.isfinite().any() else None,
            camera_to_world=None if trajectory.aligned is None else trajectory.aligned.float(),
            true_camera_to_world=None if trajectory.aligned is None else truth.float(),
            frame_errors={name: values.float() for name, values in errors.items()},
        )

    def _aligned(self, trajectory: TrajectoryScore, depth: SequenceDepth | None) -> Float[Tensor, "K h w"]:
        maps = torch.stack([found.depth for _, found in self._kept])
        if depth is None:
            return maps if trajectory.similarity is None else maps * trajectory.similarity.scale.float()
        scale, shift = (
            x.float().expand(len(self.poses))[self.positions, None, None] for x in (depth.scale, depth.shift)
        )
        return maps * scale + shift

    def _true_depth(self) -> Float[Tensor, "K H W"] | None:
        """None if a frame has none, or they differ in size."""
        maps = [true_depth(frame) for frame, _ in self._kept if frame.depth is not None]
        whole = len(maps) == len(self._kept) and len({one.shape for one in maps}) == 1
        return torch.stack(maps) if whole else None


def true_depth(frame: SceneFrame) -> Float[Tensor, "H W"]:
    """0 where there is none."""
    if frame.depth is None or frame.valid is None:
        return torch.zeros(frame.size)
    return frame.depth.where(frame.valid, 0)
