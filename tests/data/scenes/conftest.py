"""Rendered sequences written in the authors' own file formats."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

SIZE = (48, 64)
"""Height and width of the written pictures."""
FOCAL = 60.0


@dataclass
class Room:
    """A slanted wall z = 3 + 0.2 x seen by a camera that moves right, forward and turns; exact depth in closed form."""

    num_frames: int
    centre: tuple[float, float]
    """Principal point with pixel centres at i + 0.5."""

    def pose(self, number: int) -> np.ndarray:
        angle = 0.02 * number
        pose = np.eye(4)
        pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        pose[:3, 3] = [0.05 * number, 0.01 * number, 0.03 * number]
        return pose

    def millimetres(self, number: int) -> np.ndarray:
        pose = self.pose(number)
        x = (np.arange(SIZE[1]) + 0.5 - self.centre[0]) / FOCAL
        y = (np.arange(SIZE[0]) + 0.5 - self.centre[1]) / FOCAL
        rays = np.stack([*np.meshgrid(x, y), np.ones(SIZE)], -1) @ pose[:3, :3].T
        # origin + depth * ray lies on the wall
        depth = (3 + 0.2 * pose[0, 3] - pose[2, 3]) / (rays[..., 2] - 0.2 * rays[..., 0])
        return np.round(1000 * depth).astype(np.uint16)

    def picture(self, number: int) -> np.ndarray:
        picture = np.zeros((*SIZE, 3), np.uint8)
        picture[..., 0], picture[:, :, 1] = 5 * number, np.arange(SIZE[1])
        return picture


def write_deep_video_mvs(folder: Path, num_frames: int = 20) -> Room:
    room = Room(num_frames, centre=(31.5, 24.5))
    for kind in ("images", "depth"):
        (folder / kind).mkdir(parents=True)
    for number in range(num_frames):
        depth = room.millimetres(number)
        depth[0, :5] = 0
        Image.fromarray(room.picture(number)).save(folder / "images" / f"{3 + number:05d}.png")
        Image.fromarray(depth).save(folder / "depth" / f"{3 + number:05d}.png")
    # the file's own convention has the centre of pixel i at i
    np.savetxt(folder / "K.txt", [[FOCAL, 0, 31.0], [0, FOCAL, 24.0], [0, 0, 1]])
    np.savetxt(folder / "poses.txt", [room.pose(number).reshape(-1) for number in range(num_frames)])
    return room


def write_tsdf_fusion(folder: Path, num_frames: int = 20) -> Room:
    room = Room(num_frames, centre=(32.0, 24.0))
    folder.mkdir(parents=True)
    for number in range(num_frames):
        depth = room.millimetres(number)
        depth[0, :5], depth[1, :5] = 0, 65535
        stem = folder / f"frame-{2 * number:06d}"
        Image.fromarray(room.picture(number)).save(f"{stem}.color.jpg", quality=100, subsampling=0)
        Image.fromarray(depth).save(f"{stem}.depth.png")
        np.savetxt(f"{stem}.pose.txt", room.pose(number))
    np.savetxt(folder / "camera-intrinsics.txt", [[FOCAL, 0, 32], [0, FOCAL, 24], [0, 0, 1]])
    return room


WRITERS = {"deep_video_mvs": write_deep_video_mvs, "tsdf_fusion": write_tsdf_fusion}


@pytest.fixture
def write_scene() -> Callable[..., Room]:
    """Writes a sequence of a layout into a folder and gives its truth."""
    return lambda layout, folder, **options: WRITERS[layout](folder, **options)


@pytest.fixture
def disagreement() -> Callable[..., torch.Tensor]:
    """Relative depth errors where the points of frame `a` of a clip fall into frame `b` and are not hidden there."""

    def compare(clip, a: int, b: int) -> torch.Tensor:
        height, width = clip.depth.shape[1:]
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        pixels = torch.stack([x, y, torch.ones_like(x)], -1).double()
        rays = pixels @ torch.linalg.inv(clip.intrinsics[a].double()).T
        points = (rays * clip.depth[a, ..., None])[clip.valid[a]]
        poses = clip.camera_to_world.double()
        move = torch.linalg.inv(poses[b]) @ poses[a]
        moved = points @ move[:3, :3].T + move[:3, 3]
        u, v, _ = (moved / moved[:, 2:] @ clip.intrinsics[b].double().T).floor().long().unbind(-1)
        inside = (moved[:, 2] > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        seen, expected = clip.depth[b][v[inside], u[inside]].double(), moved[inside, 2]
        known = seen > 0
        relative = (seen[known] / expected[known] - 1).abs()
        assert len(relative) > 0.2 * height * width
        return relative[seen[known] > 0.9 * expected[known]]  # nearer ones hide the point

    return compare
