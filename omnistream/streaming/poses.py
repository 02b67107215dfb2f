"""Writing camera poses, relative to the first camera, and intrinsics of a stream."""

from pathlib import Path
from typing import TextIO

import torch
from jaxtyping import Float
from torch import Tensor

from omnistream.cameras import quaternion_from_matrix
from omnistream.streaming.writer import Step
from omnistream.tasks.geometry.inference import FirstCamera


def usable_poses(step: Step) -> Float[Tensor, "1 S 4 4"]:
    """Camera-to-world poses of a step as the heads predict them; NaN where pose or intrinsics are not finite."""
    geometry = step.output.heads["geometry"]
    usable = geometry.camera_to_world.isfinite() & geometry.intrinsics.isfinite().all(-1).all(-1)[..., None, None]
    return torch.where(usable.all(-1).all(-1)[..., None, None], geometry.camera_to_world, torch.nan)


class PoseFiles:
    """Writes `poses.txt` in TUM format and `intrinsics.txt`, one line per frame with a pose.

    The heads predict every frame separately, so the predicted pose of the first frame is only close to the identity.
    Poses are written relative to the first camera, so its own pose becomes exactly the identity. A frame has no pose if
    no camera explains its rays; if the first frame has none, the next frame with a pose takes its place.

    Args:
        folder: Output folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first_index: int | None = None
        self._relative_to_first = FirstCamera()
        self.num_poses = self.num_unusable = 0
        self._poses: TextIO | None = None
        self._intrinsics: TextIO | None = None

    def write(self, step: Step) -> None:
        """Add the frames of a step."""
        poses = usable_poses(step).double()
        poses = self._relative_to_first(poses, poses[..., :3, 3:].mT)[0][0].cpu()
        cameras = step.output.heads["geometry"].intrinsics[0].double().cpu()
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
            self.first_index = frame.index if self.first_index is None else self.first_index
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
        return {"poses.txt": {**counts, "first_camera": self.first_index}}
