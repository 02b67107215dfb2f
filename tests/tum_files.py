"""Recordings in the layout of the TUM RGB-D benchmark, which BONN shares: files named by their time, and lists."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from omnistream.cameras import quaternion_from_matrix

SIZE = (12, 16)
"""Height and width; 4:3, as the cameras' 480x640."""


def stamp_name(stamp: float) -> str:
    return f"{stamp:.6f}.png"


def numbered_image(number: int) -> np.ndarray:
    """The number in red and green."""
    return np.full((*SIZE, 3), [number % 256, number // 256, 7], np.uint8)


def numbered_depth(number: int) -> np.ndarray:
    """1 m and a fifth of a millimetre per number; the first pixel has no depth."""
    depth = np.full(SIZE, 5000 + number, np.uint16)
    depth[0, 0] = 0
    return depth


def image_number(image) -> int:
    return int(image[0, 1, 1]) + 256 * int(image[1, 1, 1])


def depth_number(depth) -> int | None:
    """Which depth map this is."""
    return None if depth is None else round(float(depth[1, 1]) * 5000) - 5000


def forward(number: int) -> np.ndarray:
    """A pose: a turn about the vertical axis, and a step."""
    angle = 0.02 * number
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    pose[:3, 3] = [0.05 * number, 0.01 * number, 0.03 * number]
    return pose


def pose_line(stamp: float, pose: np.ndarray) -> str:
    """`timestamp tx ty tz qx qy qz qw`, the quaternion of length 2: readers normalise."""
    quaternion = 2 * quaternion_from_matrix(torch.from_numpy(pose[:3, :3]))
    return " ".join([f"{stamp:.6f}", *(f"{value:.12f}" for value in [*pose[:3, 3], *quaternion.tolist()])])


def write_list(path: Path, folder: str, stamps: Sequence[float], separator: str = " ") -> None:
    head = ["# color images", "# timestamp filename", ""]
    path.write_text("\n".join([*head, *(f"{s:.6f}{separator}{folder}/{stamp_name(s)}" for s in stamps)]) + "\n")


def write_recording(
    folder: Path,
    images: Sequence[float],
    depths: Sequence[float],
    poses: Sequence[float],
    *,
    image: Callable[[int], np.ndarray] = numbered_image,
    depth: Callable[[int], np.ndarray] = numbered_depth,
    pose: Callable[[int], np.ndarray] = forward,
) -> Path:
    """Write a sequence.

    Args:
        folder: Its name says which camera it is of.
        images: Times in seconds of the images; the i-th shows `image(i)`.
        depths: Times of the depth maps.
        poses: Times of the poses.
        image: Content of an image by number, uint8 [H, W, 3].
        depth: Content of a depth map by number, uint16 [H, W], in 1/5000 m.
        pose: Camera-to-world by number.
    """
    for kind, stamps, content in (("rgb", images, image), ("depth", depths, depth)):
        (folder / kind).mkdir(parents=True)
        for number, stamp in enumerate(stamps):
            Image.fromarray(content(number)).save(folder / kind / stamp_name(stamp), compress_level=1)
        write_list(folder / f"{kind}.txt", kind, stamps)
    lines = [pose_line(stamp, pose(number)) for number, stamp in enumerate(poses)]
    (folder / "groundtruth.txt").write_text("\n".join(["# ground truth trajectory", *lines]) + "\n")
    return folder
