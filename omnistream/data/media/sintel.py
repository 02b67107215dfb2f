"""Binary files of MPI Sintel: depth maps (.dpt) and cameras (.cam)."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from omnistream.data.media.errors import DepthReadError, MediaReadError
from omnistream.data.media.image import MAX_IMAGE_PIXELS

_TAG = np.float32(202021.25).tobytes()
_CAMERA_BYTES = 4 + 8 * (9 + 12)


class SintelCamera(NamedTuple):
    """Content of a .cam file."""

    intrinsics: Float64[np.ndarray, "3 3"]
    camera_to_world: Float64[np.ndarray, "4 4"]
    """OpenCV axes, metres."""


def read_dpt(path: str | Path) -> Float32[Tensor, "H W"]:
    """Read a depth map: z-depth along the optical axis, in metres; the sky is very far away.

    Args:
        path: A tag (`PIEH`), width and height as int32, and float32 values row by row; all little-endian.

    Raises:
        DepthReadError: If the file is missing, has another tag, or another length than its size says.
    """
    data = _read(path, DepthReadError)
    if len(data) < 12:
        raise DepthReadError(path, f"{len(data)} bytes are too few for a .dpt file")
    width, height = (int(value) for value in np.frombuffer(data, "<i4", 2, offset=4))
    if width < 1 or height < 1 or width * height > MAX_IMAGE_PIXELS:
        raise DepthReadError(path, f"a size of {width}x{height} is not that of a depth map")
    if len(data) != 12 + 4 * width * height:
        raise DepthReadError(path, f"expected {12 + 4 * width * height} bytes for {width}x{height}, got {len(data)}")
    return torch.from_numpy(np.frombuffer(data, "<f4", offset=12).reshape(height, width).astype(np.float32))


def read_cam(path: str | Path) -> SintelCamera:
    """Read a camera.

    Args:
        path: A tag (`PIEH`), then 3x3 intrinsics and 3x4 world-to-camera as float64, row by row; little-endian.

    Raises:
        MediaReadError: If the file is missing, has another tag or length, or its pose cannot be inverted.
    """
    data = _read(path, MediaReadError)
    if len(data) != _CAMERA_BYTES:
        raise MediaReadError(path, f"expected {_CAMERA_BYTES} bytes for a .cam file, got {len(data)}")
    values = np.frombuffer(data, "<f8", offset=4)
    world_to_camera = np.vstack([values[9:].reshape(3, 4), [0, 0, 0, 1]])
    try:
        camera_to_world = np.linalg.inv(world_to_camera)
    except np.linalg.LinAlgError:
        raise MediaReadError(path, "the pose cannot be inverted") from None
    return SintelCamera(values[:9].reshape(3, 3).copy(), camera_to_world)


def _read(path: str | Path, error: type[MediaReadError]) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as reason:
        raise error(path, str(reason.strerror or reason)) from None
    if data[:4] != _TAG:
        raise error(path, "it does not begin with Sintel's tag PIEH")
    return data
