"""Frames of three files each, as in 7-Scenes and tsdf-fusion: frame-000000.color.png, .depth.png and .pose.txt."""

from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from omnistream.data.batch import SceneFrame
from omnistream.data.media import read_depth_png, read_image
from omnistream.data.scenes.reader import is_rigid, read_matrix, unknown_camera, usable_frames


def complete_frames(folder: Path, depth: str = "depth.png", *, keep_all: bool = False) -> list[str]:
    """Names of the images in a folder that have depth and a pose, in order; logs how many have not.

    Args:
        folder: Of a sequence.
        depth: What the names of the depth maps end in.
        keep_all: Whether images without depth or pose are not left out.

    Raises:
        MediaReadError: If a pose is broken.
    """
    names = sorted(image.name for image in folder.glob("frame-*.color.*"))
    good = (_file(folder, name, depth).is_file() and _has_pose(_file(folder, name, "pose.txt")) for name in names)
    return usable_frames(folder, names, good, keep_all=keep_all)


def read_frames_of_files(
    folder: Path,
    names: Iterable[str],
    intrinsics: Float64[Tensor, "3 3"],
    depth_intrinsics: Float64[Tensor, "3 3"] | None = None,
    depth: str = "depth.png",
    *,
    keep_all: bool = False,
) -> list[SceneFrame]:
    """The frames of these images: depth in metres from millimetres, where 0 and 65535 mean that nothing was measured.

    Args:
        folder: Of a sequence.
        names: Of the images.
        intrinsics: Of the images.
        depth_intrinsics: Of the depth maps, if they have a camera of their own.
        depth: What the names of the depth maps end in.
        keep_all: Whether depth may be missing, which gives None, and a pose missing or not rigid, which gives NaN.

    Raises:
        MediaReadError: If a file is broken.
    """
    return [
        SceneFrame(
            image=read_image(folder / name, upright=False),
            depth=_depth(_file(folder, name, depth), keep_all),
            intrinsics=intrinsics,
            camera_to_world=_pose(_file(folder, name, "pose.txt"), keep_all),
            depth_intrinsics=depth_intrinsics,
        )
        for name in names
    ]


def _file(folder: Path, image: str, kind: str) -> Path:
    """Another file of the same frame."""
    return folder / f"{image.split('.', 1)[0]}.{kind}"


def _depth(path: Path, may_be_missing: bool) -> Float32[Tensor, "h w"] | None:
    if may_be_missing and not path.is_file():
        return None
    return read_depth_png(path, scale=0.001, invalid=(0, 65535))


def _pose(path: Path, may_be_missing: bool) -> Float64[Tensor, "4 4"]:
    if may_be_missing and not _has_pose(path):
        return unknown_camera(4)
    return torch.tensor(read_matrix(path, (4, 4)))


def _has_pose(path: Path) -> bool:
    return path.is_file() and is_rigid(read_matrix(path, (4, 4)))
