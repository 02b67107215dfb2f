"""Camera poses and intrinsics of a stream as text, relative to its first camera."""

from pathlib import Path
from typing import TextIO

import torch
from jaxtyping import Float
from torch import Tensor

from omnistream.cameras import invert_pose, quaternion_from_matrix
from omnistream.streaming.writer import Step


class FirstCamera:
    """The frame of reference of everything a stream writes: the first camera.

    The heads predict each frame by itself, so the pose of the first frame is close to the identity, but not equal to
    it. Here all poses are multiplied by its inverse. A frame has no pose when no camera explains its rays; if that is
    so for the first, the next frame with a pose takes its place, and frames before it have no position.
    """

    def __init__(self) -> None:
        self.index: int | None = None
        """Index of the frame whose camera is the origin; None until a frame has a pose."""
        self.world_to_first: Float[Tensor, "4 4"] = torch.eye(4, dtype=torch.float64)
        """From the frame of the prediction to that of the first camera."""

    def relative(self, step: Step) -> Float[Tensor, "S 4 4"]:
        """Camera-to-world poses of a step in float64; exactly the identity for the first, NaN for frames without."""
        geometry = step.output.heads["geometry"]
        poses, cameras = (x[0].double().cpu() for x in (geometry.camera_to_world, geometry.intrinsics))
        usable = poses.isfinite().all(-1).all(-1) & cameras.isfinite().all(-1).all(-1)
        poses = torch.where(usable[:, None, None], poses, torch.nan)
        if self.index is not None or not usable.any():
            return self.world_to_first @ poses
        first = int(usable.nonzero()[0])
        self.index, self.world_to_first = step.frames[first].index, invert_pose(poses[first])
        relative = self.world_to_first @ poses
        relative[first] = torch.eye(4, dtype=torch.float64)  # the product is that only up to rounding
        return relative


class PoseFiles:
    """`poses.txt` in TUM format and `intrinsics.txt`, one line per frame with a pose, relative to the first of them.

    Args:
        folder: Where the files go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first = FirstCamera()
        self.num_poses = self.num_unusable = 0
        self._poses: TextIO | None = None
        self._intrinsics: TextIO | None = None

    def write(self, step: Step) -> None:
        """Add the frames of a step."""
        poses, cameras = self.first.relative(step), step.output.heads["geometry"].intrinsics[0].double().cpu()
        if self._poses is None or self._intrinsics is None:
            height, width = step.images.shape[-2:]
            self._poses = (self.folder / "poses.txt").open("w", encoding="ascii")
            self._poses.write("# camera to world, the world is the first camera: timestamp tx ty tz qx qy qz qw\n")
            self._intrinsics = (self.folder / "intrinsics.txt").open("w", encoding="ascii")
            self._intrinsics.write(f"# timestamp fx fy cx cy, pixels of {width}x{height} (width x height)\n")
        for frame, pose, camera in zip(step.frames, poses, cameras, strict=True):
            if not pose.isfinite().all():
                self.num_unusable += 1
                continue
            numbers = [*pose[:3, 3].tolist(), *quaternion_from_matrix(pose[:3, :3]).tolist()]
            self._poses.write(f"{frame.time:.6f} {' '.join(f'{number:.9g}' for number in numbers)}\n")
            numbers = camera[[0, 1, 0, 1], [0, 1, 2, 2]].tolist()
            self._intrinsics.write(f"{frame.time:.6f} {' '.join(f'{number:.9g}' for number in numbers)}\n")
            self.num_poses += 1

    def close(self) -> None:
        """Complete both files."""
        for file in (self._poses, self._intrinsics):
            if file is not None:
                file.close()

    def summary(self) -> dict[str, object]:
        """Frames with and without a pose, and the index of the frame that is the origin."""
        if self._poses is None:
            return {}
        counts = {"poses": self.num_poses, "frames_without_pose": self.num_unusable}
        return {"poses.txt": {**counts, "first_camera": self.first.index}}
