"""A tiny MPI Sintel in its own formats."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

TAG = b"PIEH"


def write_scene(root: Path, scene: str, images, depths, intrinsics, poses) -> None:
    """Write a scene.

    Args:
        root: Holds `training`.
        scene: Its name.
        images: uint8 [H, W, 3] per frame.
        depths: Metres [H, W] per frame.
        intrinsics: [3, 3].
        poses: Camera-to-world [4, 4] per frame.
    """
    folders = {kind: root / "training" / kind / scene for kind in ("final", "depth", "camdata_left")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for number, (image, depth, pose) in enumerate(zip(images, depths, poses, strict=True), start=1):
        name = f"frame_{number:04d}"
        Image.fromarray(image).save(folders["final"] / f"{name}.png")
        height, width = depth.shape
        content = TAG + struct.pack("<ii", width, height) + depth.astype("<f4").tobytes()
        (folders["depth"] / f"{name}.dpt").write_bytes(content)
        extrinsics = np.linalg.inv(pose)[:3]
        matrices = np.asarray(intrinsics).astype("<f8").tobytes() + extrinsics.astype("<f8").tobytes()
        (folders["camdata_left"] / f"{name}.cam").write_bytes(TAG + matrices)
