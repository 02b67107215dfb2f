"""What a test keeps of a video for plots: a few frames, and the poses of all."""

import torch
from jaxtyping import Float
from torch import Tensor

from omnistream.cameras import Similarity, apply_similarity_to_poses
from omnistream.data.batch import SceneFrame
from omnistream.data.geometry_videos import GeometryVideo
from omnistream.metrics import trajectory_similarity
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

    def similarity(self) -> Similarity | None:
        """That brings the predicted poses to the true ones; None if one of them is not known."""
        poses, truth = torch.stack(self.poses), torch.stack(self.true_poses)
        known = poses.isfinite().all() and truth.isfinite().all()
        return trajectory_similarity(poses, truth) if known else None

    def position_errors(self) -> dict[str, Float[Tensor, " T"]]:
        """Distance of every camera centre from the true one after the similarity, in the reference's unit."""
        similarity, truth = self.similarity(), torch.stack(self.true_poses)
        if similarity is None:
            return {}
        aligned = apply_similarity_to_poses(similarity, torch.stack(self.poses))
        return {"position": (aligned[:, :3, 3] - truth[:, :3, 3]).norm(dim=-1)}

    def video(
        self,
        errors: dict[str, Float[Tensor, " T"]],
        scale: Float[Tensor, "*T"],
        shift: Float[Tensor, "*T"],
        clip_to: float | None = None,
    ) -> ReconstructedVideo:
        """The frames with aligned depth and poses.

        Args:
            errors: Of every frame, by name.
            scale: Of the depth, of all frames or of each.
            shift: Of the depth.
            clip_to: Largest aligned depth.
        """
        scales, shifts = (x.float().expand(len(self.poses))[self.positions] for x in (scale, shift))
        depth = torch.stack([found.depth for _, found in self._kept]) * scales[:, None, None] + shifts[:, None, None]
        confidences = [found.confidence for _, found in self._kept]
        similarity = self.similarity()
        poses = torch.stack(self.poses)
        return ReconstructedVideo(
            name=self.name,
            images=torch.stack([frame.image for frame, _ in self._kept]),
            positions=self.positions,
            depth=depth if clip_to is None else depth.clamp_max(clip_to),
            confidence=None if any(one is None for one in confidences) else torch.stack(confidences),  # type: ignore[arg-type]
            true_depth=self._true_depth(),
            intrinsics=torch.stack([found.intrinsics for _, found in self._kept]),
            camera_to_world=None if similarity is None else apply_similarity_to_poses(similarity, poses).float(),
            true_camera_to_world=None if similarity is None else torch.stack(self.true_poses).float(),
            frame_errors={name: values.float() for name, values in errors.items()},
        )

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
