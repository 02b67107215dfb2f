"""A recorded sequence: which files hold its frames, and its cameras."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from omnistream.data.media.errors import MediaReadError

logger = logging.getLogger(__name__)

_RIGID_TOLERANCE = 1e-2
"""Largest entry of R Rᵀ - 1; files with a few digits are well inside, a scaled or lost pose is not."""


@dataclass(frozen=True)
class SceneSequence:
    """One sequence of frames in order of time, with depth and cameras; nothing is decoded yet."""

    name: str
    """Where it came from."""
    images: tuple[Path, ...]
    """Colour pictures, N of them."""
    depths: tuple[Path, ...]
    """Depth maps of the same frames."""
    intrinsics: Float64[np.ndarray, "N 3 3"]
    """Of the colour pictures; pixel i has its centre at i + 0.5."""
    camera_to_world: Float64[np.ndarray, "N 4 4"]
    """OpenCV axes."""
    read_depth: Callable[[Path], Tensor]
    """Gives z-depth [H, W] with 0 where nothing is known; picklable."""
    is_metric: bool = True
    """Depth and translation are in metres."""

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: Sequence[int] | np.ndarray) -> "SceneSequence":
        """The same sequence with only these frames."""
        chosen = [int(position) for position in positions]
        return SceneSequence(
            name=self.name,
            images=tuple(self.images[i] for i in chosen),
            depths=tuple(self.depths[i] for i in chosen),
            intrinsics=self.intrinsics[chosen],
            camera_to_world=self.camera_to_world[chosen],
            read_depth=self.read_depth,
            is_metric=self.is_metric,
        )


def usable_frames(sequence: SceneSequence) -> SceneSequence:
    """The frames whose depth file exists and whose pose is a finite rigid motion; says how many are left out."""
    keep = [
        position
        for position, depth in enumerate(sequence.depths)
        if depth.is_file() and is_rigid(sequence.camera_to_world[position])
    ]
    if len(keep) < len(sequence):
        left_out = len(sequence) - len(keep)
        logger.warning("%s: left out %d of %d frames without depth or pose", sequence.name, left_out, len(sequence))
    return sequence.take(keep)


def is_rigid(pose: Float64[np.ndarray, "4 4"]) -> bool:
    """Whether a pose is finite, with a proper rotation and the last row 0 0 0 1."""
    if not np.isfinite(pose).all():
        return False
    rotation = pose[:3, :3]
    orthonormal = np.abs(rotation @ rotation.T - np.eye(3)).max() < _RIGID_TOLERANCE
    return bool(orthonormal and np.linalg.det(rotation) > 0 and np.allclose(pose[3], [0, 0, 0, 1]))


def read_matrix(path: Path, shape: tuple[int, ...]) -> Float64[np.ndarray, "..."]:
    """Numbers of a text file in this shape; -1 is free.

    Raises:
        MediaReadError: If the file is missing, holds something else than numbers, or not this many.
    """
    try:
        return np.loadtxt(path, dtype=np.float64, ndmin=1).reshape(shape)
    except (OSError, ValueError) as error:
        raise MediaReadError(path, f"expected numbers in the shape {shape} ({error})") from error
