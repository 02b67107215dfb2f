"""ScanNet's `.sens` files: all frames of a recording in one file, read one by one.

Layout, little-endian: u32 version 4; sensor name, a u64 length and its bytes; 4x4 float32 intrinsics and extrinsics of
colour, then of depth; i32 compression of colour and of depth; u32 width and height of colour and of depth; float32
depth units per metre; u64 number of frames. Each frame: 4x4 float32 camera-to-world, u64 timestamps of colour and
depth, u64 sizes of colour and depth in bytes, then both.

Source: ScanNet/ScanNet: SensReader/python/SensorData.py.
"""

import struct
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from omnistream.data.media.errors import DepthReadError, MediaReadError
from omnistream.data.media.image import MAX_IMAGE_PIXELS, read_image

_VERSION = 4
_COLOUR_FILES = (1, 2)  # PNG, JPEG
_DEPTH_RAW, _DEPTH_ZLIB = 0, 1
_FRAME = struct.Struct("<64sQQQQ")


@dataclass(frozen=True)
class SensHeader:
    """The header of a `.sens` file, with intrinsics as stored."""

    path: Path
    """The file."""
    color_intrinsics: Float64[np.ndarray, "3 3"]
    """Of the colour camera."""
    depth_intrinsics: Float64[np.ndarray, "3 3"]
    """Of the depth camera."""
    depth_compression: int
    """0 none, 1 zlib."""
    depth_size: tuple[int, int]
    """Height and width of a depth map."""
    depth_shift: float
    """Depth units per metre."""
    num_frames: int
    """Number of frames."""
    first_frame: int
    """Byte offset of the first frame."""


def read_sens_header(path: Path) -> SensHeader:
    """Read the header of a `.sens` file.

    Raises:
        MediaReadError: If the file is missing, damaged, or of an unsupported version or compression.
    """
    try:
        with path.open("rb") as file:
            (version,) = _unpack(file, "<I")
            if version != _VERSION:
                raise MediaReadError(path, f"expected a .sens file of version {_VERSION}, got {version}")
            file.seek(_unpack(file, "<Q")[0], 1)
            matrices = np.array(_unpack(file, "<64f"), np.float64).reshape(4, 4, 4)
            color, depth, _, _, width, height, shift, num_frames = _unpack(file, "<iiIIIIfQ")
            first_frame = file.tell()
    except (OSError, OverflowError, struct.error) as error:
        raise MediaReadError(path, f"damaged .sens file ({error})") from error
    if color not in _COLOUR_FILES or depth not in (_DEPTH_RAW, _DEPTH_ZLIB):
        raise MediaReadError(path, f"colour compression {color} with depth compression {depth} is not supported")
    if width * height > MAX_IMAGE_PIXELS or not shift > 0:
        raise MediaReadError(path, f"depth maps of {width}x{height} with {shift} units per metre are not supported")
    return SensHeader(
        path, matrices[0, :3, :3], matrices[2, :3, :3], depth, (height, width), shift, num_frames, first_frame
    )


def read_sens_poses(header: SensHeader) -> list[tuple[int, Float64[np.ndarray, "4 4"]]]:
    """Byte offset and camera-to-world pose of every frame; images and depth are skipped.

    Raises:
        MediaReadError: If the file is truncated.
    """
    frames = []
    try:
        with header.path.open("rb") as file:
            end, place = file.seek(0, 2), header.first_frame
            for _ in range(header.num_frames):
                file.seek(place)
                pose, _, _, color_bytes, depth_bytes = _FRAME.unpack(file.read(_FRAME.size))
                frames.append((place, np.frombuffer(pose, "<f4").astype(np.float64).reshape(4, 4)))
                place += _FRAME.size + color_bytes + depth_bytes
                if place > end:
                    raise MediaReadError(header.path, f"ends in frame {len(frames) - 1} of {header.num_frames}")
    except (OSError, struct.error) as error:
        raise MediaReadError(header.path, f"ends in frame {len(frames)} of {header.num_frames} ({error})") from error
    return frames


def read_sens_frame(
    header: SensHeader, place: int, with_depth: bool = True
) -> tuple[UInt8[Tensor, "3 H W"], Float32[Tensor, "h w"] | None, Float64[np.ndarray, "4 4"]]:
    """Colour as stored, z-depth in metres with 0 where there is no measurement, and camera-to-world pose.

    Args:
        header: Header of the file.
        place: Byte offset of the frame, from `read_sens_poses`.
        with_depth: Whether depth is decoded; None otherwise.

    Raises:
        MediaReadError: If the frame is damaged.
    """
    try:
        with header.path.open("rb") as file:
            file.seek(place)
            pose, _, _, color_bytes, depth_bytes = _FRAME.unpack(file.read(_FRAME.size))
            color, depth = file.read(color_bytes), file.read(depth_bytes)
    except (OSError, struct.error, OverflowError, MemoryError) as error:
        raise MediaReadError(header.path, f"damaged frame at byte {place} ({error})") from error
    image = read_image(header.path, upright=False, data=color)
    return (
        image,
        _depth(header, depth) if with_depth else None,
        np.frombuffer(pose, "<f4").astype(np.float64).reshape(4, 4),
    )


def _depth(header: SensHeader, data: bytes) -> Float32[Tensor, "h w"]:
    expected = 2 * header.depth_size[0] * header.depth_size[1]
    try:
        if header.depth_compression == _DEPTH_ZLIB:
            data = zlib.decompressobj().decompress(data, expected + 1)
    except zlib.error as error:
        raise DepthReadError(header.path, f"damaged depth map ({error})") from error
    if len(data) != expected:
        raise DepthReadError(header.path, f"a depth map has {len(data)} of {expected} bytes")
    stored = np.frombuffer(data, "<u2").reshape(header.depth_size)
    return torch.from_numpy((stored / np.float64(header.depth_shift)).astype(np.float32))


def _unpack(file: BufferedReader, layout: str) -> tuple:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
