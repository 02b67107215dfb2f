"""Reading frames of a video by position, bit for bit those of sequential decoding."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from av.video.frame import VideoFrame
from jaxtyping import UInt8
from torch import Tensor

from omnistream.data.media.decord_reader import decord_module, read_with_decord
from omnistream.data.media.errors import VideoReadError
from omnistream.data.media.orientation import upright_image
from omnistream.data.media.resize import resize_images, short_side_size
from omnistream.data.media.video_decode import ExactReader, OrderError, SeekError, open_video
from omnistream.data.media.video_info import VideoInfo, VideoRecord
from omnistream.data.media.video_probe import forget_starts, mark_whole, probe_record, reprobe, truncation

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

MAX_CLIP_BYTES = 2 * 1024**3
"""Largest clip that is decoded. decord holds all frames at full size, so a clip larger than this before resizing is
read with PyAV."""


def read_frames(
    path: str | Path,
    indices: Sequence[int],
    *,
    short_side: int | None = None,
    backend: Literal["auto", "decord", "pyav"] = "auto",
    max_bytes: int = MAX_CLIP_BYTES,
) -> UInt8[Tensor, "T 3 H W"]:
    """Read the frames at these positions (in display order) as upright RGB.

    The result is exactly that of decoding the file from its start, bit for bit, and so are the errors for damaged
    frames. Only the packets from the nearest start point up to a requested frame are decoded. No file stays open, so
    the function can be called in forked data loader workers.

    Args:
        path: A video file, recognised by content.
        indices: Positions from 0, in any order, with repetitions allowed. Positions past the end give the last frame.
        short_side: Resize the frames so that their shorter side has this length.
        backend: `auto` uses decord if `probe_video` allows it, and PyAV otherwise or if decord is not installed or
            fails. The others force one reader.
        max_bytes: Refuse clips that need more memory.

    Raises:
        ValueError: If `indices` is empty or contains a negative position.
        VideoReadError: If the file cannot be read, a requested frame is damaged or missing, the clip is too large, or
            decord is forced on a file for which it is not known to be exact.
    """
    if len(indices) == 0 or min(indices) < 0:
        raise ValueError(f"{path}: expected one or more frame positions from 0, got {list(indices)}")

    def read(record: VideoRecord) -> Tensor:
        info = record.info
        wanted = np.minimum(np.asarray(indices, dtype=np.int64), info.num_frames - 1)
        positions, scatter = np.unique(wanted, return_inverse=True)
        size = short_side_size(info.height, info.width, short_side)
        _check_memory(info, len(wanted), size, max_bytes)
        if _takes_decord(info, len(positions), backend, max_bytes):
            frames = _read_decord(record, positions, size, is_forced=backend == "decord")
        else:
            frames = _read_pyav(record, positions, size)
        return frames if np.array_equal(scatter, np.arange(len(wanted))) else frames[scatter]

    return _with_record(path, read)


def verify_video(path: str | Path) -> int:
    """Decode all frames once and return their number. A file found intact is remembered and not decoded again.

    Raises:
        VideoReadError: If the file is damaged anywhere or ends before the number of frames that its header promises.
    """

    def decode(record: VideoRecord) -> int:
        info = record.info
        if info.promised_frames is not None:
            raise VideoReadError(path, truncation(info.promised_frames, info.num_frames))
        if not info.whole:
            for _ in _exact_frames(record, np.arange(info.num_frames)):
                pass
            mark_whole(record)
        return info.num_frames

    return _with_record(path, decode)


def _with_record(path: str | Path, action: Callable[[VideoRecord], _Result]) -> _Result:
    """Run an action on the record of a file; if the file turns out to differ, correct the record and run it again."""
    record, is_decoded = probe_record(path), False
    for _ in range(4):
        try:
            return action(record)
        except OrderError:
            logger.debug("%s: the packets do not say which frames they show; decoding it once", path)
            record, is_decoded = forget_starts(record) if is_decoded else reprobe(record), True
        except SeekError:
            logger.debug("%s: seeking fails; decoding from the start", path)
            record = forget_starts(record)
    raise VideoReadError(path, "has different packets each time it is read")


def _takes_decord(info: VideoInfo, num_frames: int, backend: str, max_bytes: int) -> bool:
    """Whether to use decord; raises VideoReadError if it is forced on a file for which it is not exact."""
    if backend == "decord" and info.doubts:
        raise VideoReadError(info.path, f"decord may return wrong frames: {info.reason}")
    if backend != "auto":
        return backend == "decord"
    full_size = 3 * num_frames * info.height * info.width
    return info.backend == "decord" and full_size <= max_bytes and decord_module() is not None


def _check_memory(info: VideoInfo, num_frames: int, size: tuple[int, int], max_bytes: int) -> None:
    needed = 3 * num_frames * size[0] * size[1]
    if needed > max_bytes:
        raise VideoReadError(
            info.path, f"{num_frames} frames of {size[1]}x{size[0]} need {needed} bytes, the limit is {max_bytes}"
        )


def _read_decord(record: VideoRecord, positions: np.ndarray, size: tuple[int, int], *, is_forced: bool) -> Tensor:
    try:
        return read_with_decord(record.info, positions, size)
    except VideoReadError as error:
        if is_forced:
            raise
        logger.debug("reading with PyAV instead: %s", error)
        return _read_pyav(record, positions, size)


def _read_pyav(record: VideoRecord, positions: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Frames at increasing positions, resized one by one."""
    frames = torch.empty((len(positions), 3, *size), dtype=torch.uint8)
    for slot, (position, frame) in enumerate(_exact_frames(record, positions)):
        frames[slot] = resize_images(_upright(record.info, frame, position), size)
    return frames


def _exact_frames(record: VideoRecord, positions: np.ndarray) -> Iterator[tuple[int, VideoFrame]]:
    path = record.info.path
    with open_video(path) as (container, stream):
        yield from ExactReader(path, record.index, container, stream).frames(positions)


def _upright(info: VideoInfo, frame: VideoFrame, position: int) -> UInt8[Tensor, "3 H W"]:
    try:
        image = upright_image(frame)
    except ValueError as error:
        raise VideoReadError(info.path, f"frame {position} {error}") from error
    if image.shape[:2] != (info.height, info.width):
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise VideoReadError(info.path, f"frame {position} is {size}, the first one {info.width}x{info.height}")
    return torch.from_numpy(image.transpose(2, 0, 1)).contiguous()
