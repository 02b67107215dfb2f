"""Rendered sequences written in the authors' own file formats."""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 64)
"""Height and width of the written images, and of depth where it has no size of its own."""
FOCAL = 60.0
COLOR = np.array([[60.0, 0, 31.0], [0, 62.0, 24.5], [0, 0, 1]])
DEPTH = np.array([[30.0, 0, 15.8], [0, 30.5, 12.0], [0, 0, 1]])
"""Cameras of colour and of depth (half the size) as ScanNet stores them."""


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

    def millimetres(
        self, number: int, size: tuple[int, int] = SIZE, intrinsics: np.ndarray | None = None
    ) -> np.ndarray:
        pose = self.pose(number)
        focal, centre = (FOCAL, FOCAL), self.centre
        if intrinsics is not None:
            focal, centre = (intrinsics[0, 0], intrinsics[1, 1]), (intrinsics[0, 2], intrinsics[1, 2])
        x = (np.arange(size[1]) + 0.5 - centre[0]) / focal[0]
        y = (np.arange(size[0]) + 0.5 - centre[1]) / focal[1]
        rays = np.stack([*np.meshgrid(x, y), np.ones(size)], -1) @ pose[:3, :3].T
        # origin + depth * ray lies on the wall
        depth = (3 + 0.2 * pose[0, 3] - pose[2, 3]) / (rays[..., 2] - 0.2 * rays[..., 0])
        return np.round(1000 * depth).astype(np.uint16)

    def image(self, number: int) -> np.ndarray:
        image = np.zeros((*SIZE, 3), np.uint8)
        image[..., 0], image[:, :, 1] = 5 * number, np.arange(SIZE[1])
        return image


def write_deep_video_mvs(folder: Path, num_frames: int = 20) -> Room:
    room = Room(num_frames, centre=(31.5, 24.5))
    for kind in ("images", "depth"):
        (folder / kind).mkdir(parents=True)
    for number in range(num_frames):
        depth = room.millimetres(number)
        depth[0, :5] = 0
        Image.fromarray(room.image(number)).save(folder / "images" / f"{3 + number:05d}.png")
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
        Image.fromarray(room.image(number)).save(f"{stem}.color.jpg", quality=100, subsampling=0)
        Image.fromarray(depth).save(f"{stem}.depth.png")
        np.savetxt(f"{stem}.pose.txt", room.pose(number))
    np.savetxt(folder / "camera-intrinsics.txt", [[FOCAL, 0, 32], [0, FOCAL, 24], [0, 0, 1]])
    return room


def scannet_frame(room: Room, number: int, lost: int | None) -> tuple[bytes, np.ndarray, np.ndarray]:
    """A JPEG, millimetres at half the size, and the pose, which is -inf for the frame that lost tracking."""
    jpeg = BytesIO()
    Image.fromarray(room.image(number)).save(jpeg, "jpeg", quality=100, subsampling=0)
    depth = room.millimetres(number, (24, 32), DEPTH)
    depth[0, :5] = 0
    pose = np.full((4, 4), -np.inf) if number == lost else room.pose(number)
    return jpeg.getvalue(), depth, pose


def matrix4(intrinsics: np.ndarray) -> np.ndarray:
    whole = np.eye(4)
    whole[:3, :3] = intrinsics
    return whole


def write_scannet(folder: Path, num_frames: int = 20, lost: int | None = None) -> Room:
    """As the authors' reader exports a scene."""
    room = Room(num_frames, centre=(31.0, 24.5))
    for kind in ("color", "depth", "pose", "intrinsic"):
        (folder / kind).mkdir(parents=True)
    for number in range(num_frames):
        jpeg, depth, pose = scannet_frame(room, number, lost)
        (folder / "color" / f"{number}.jpg").write_bytes(jpeg)
        Image.fromarray(depth).save(folder / "depth" / f"{number}.png")
        np.savetxt(folder / "pose" / f"{number}.txt", pose, fmt="%f")
    for kind, intrinsics in (("color", COLOR), ("depth", DEPTH)):
        np.savetxt(folder / "intrinsic" / f"intrinsic_{kind}.txt", matrix4(intrinsics), fmt="%f")
        np.savetxt(folder / "intrinsic" / f"extrinsic_{kind}.txt", np.eye(4), fmt="%f")
    return room


def write_sens(
    path: Path, num_frames: int = 20, lost: int | None = None, color: int = 2, depth_compression: int = 1
) -> Room:
    """The same scene as it is distributed."""
    room = Room(num_frames, centre=(31.0, 24.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [struct.pack("<IQ", 4, 12), b"StructureSen"]
    parts += [matrix.astype("<f4").tobytes() for matrix in (matrix4(COLOR), np.eye(4), matrix4(DEPTH), np.eye(4))]
    parts.append(struct.pack("<iiIIIIfQ", color, depth_compression, SIZE[1], SIZE[0], 32, 24, 1000.0, num_frames))
    for number in range(num_frames):
        jpeg, depth, pose = scannet_frame(room, number, lost)
        stored = zlib.compress(depth.tobytes()) if depth_compression == 1 else depth.tobytes()
        parts += [pose.astype("<f4").tobytes(), struct.pack("<QQQQ", number, number, len(jpeg), len(stored))]
        parts += [jpeg, stored]
    parts.append(struct.pack("<Q", 0))  # no records of the motion sensor
    path.write_bytes(b"".join(parts))
    return room


WRITERS = {
    "deep_video_mvs": write_deep_video_mvs,
    "tsdf_fusion": write_tsdf_fusion,
    "scannet": write_scannet,
    "sens": write_sens,
}
