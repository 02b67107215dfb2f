"""Frames of a video by index: decord where it can be trusted, sequential PyAV everywhere else."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Literal

import av
import numpy as np
import torch
from av.video.frame import VideoFrame
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from omnistream.data.media.errors import VideoReadError
from omnistream.data.media.resize import resize_images, short_side_size
from omnistream.data.media.video_probe import VideoInfo, probe_video, video_stream

logger = logging.getLogger(__name__)

MAX_CLIP_BYTES = 2 * 1024**3
"""Largest clip that is decoded; decord holds all frames at full size, so larger ones go to PyAV if resized."""


def read_frames(
    path: str | Path,
    indices: Sequence[int],
    *,
    short_side: int | None = None,
    backend: Literal["auto", "decord", "pyav"] = "auto",
    max_bytes: int = MAX_CLIP_BYTES,
) -> UInt8[Tensor, "T 3 H W"]:
    """The frames at these positions in display order, upright RGB, in the order asked for.

    Nothing stays open afterwards, so the function can be called in forked data loader workers.

    Args:
        path: A video file; recognised by content.
        indices: Positions from 0; any order, repeats allowed. Positions past the end give the last frame.
        short_side: Scale the frames so that their shorter side has this length.
        backend: `auto` takes decord unless `probe_video` advises against it, and falls back to PyAV if decord is not
            installed or fails. The others force one reader.
        max_bytes: Refuse clips that need more memory.

    Raises:
        ValueError: If there is no index or a negative one.
        VideoReadError: If the file cannot be read, ends before a wanted frame, or the clip is too large.
    """
    if len(indices) == 0 or min(indices) < 0:
        raise ValueError(f"{path}: expected one or more frame positions from 0, got {list(indices)}")
    info = probe_video(path)
    wanted = np.minimum(np.asarray(indices, dtype=np.int64), info.num_frames - 1)
    unique, scatter = np.unique(wanted, return_inverse=True)
    size = short_side_size(info.height, info.width, short_side)
    _check_memory(info, len(wanted), size, max_bytes)
    frames = _reader(info, len(unique), backend, max_bytes)(info, unique, size)
    return frames if len(unique) == len(wanted) and (scatter == np.arange(len(wanted))).all() else frames[scatter]


def _check_memory(info: VideoInfo, num_frames: int, size: tuple[int, int], max_bytes: int) -> None:
    needed = 3 * num_frames * size[0] * size[1]
    if needed > max_bytes:
        raise VideoReadError(
            info.path, f"{num_frames} frames of {size[1]}x{size[0]} need {needed} of {max_bytes} bytes"
        )


_Reader = Callable[[VideoInfo, np.ndarray, tuple[int, int]], Tensor]


def _reader(info: VideoInfo, num_frames: int, backend: str, max_bytes: int) -> _Reader:
    if backend == "pyav":
        return _read_pyav
    if backend == "decord":
        return _read_decord
    full_size = 3 * num_frames * info.height * info.width
    if info.backend == "pyav" or full_size > max_bytes or _decord() is None:
        return _read_pyav
    return _read_decord_else_pyav


def _read_decord_else_pyav(info: VideoInfo, indices: np.ndarray, size: tuple[int, int]) -> Tensor:
    try:
        return _read_decord(info, indices, size)
    except VideoReadError as error:
        logger.debug("PyAV takes over: %s", error)
        return _read_pyav(info, indices, size)


@lru_cache(maxsize=1)
def _decord() -> ModuleType | None:
    """The decord module, or None where it is not installed (it has no wheel for ARM)."""
    try:
        import decord
    except (ImportError, OSError) as error:
        logger.info("decord cannot be imported (%s); PyAV reads all videos", error)
        return None
    decord.logging.set_level(decord.logging.QUIET)  # FFmpeg's lines name no file; errors are raised with one
    return decord


def _read_decord(info: VideoInfo, indices: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Sorted unique frames with decord, which turns them upright itself."""
    decord = _decord()
    if decord is None:
        raise VideoReadError(info.path, "decord is not installed")
    reader = None
    try:
        # fault_tol=0: raise instead of repeating another frame in place of one that does not decode.
        reader = decord.VideoReader(info.path, ctx=decord.cpu(0), num_threads=1, fault_tol=0)
        if len(reader) <= indices[-1]:
            raise VideoReadError(info.path, f"decord sees {len(reader)} frames, {indices[-1] + 1} are needed")
        frames = reader.get_batch(indices.tolist()).asnumpy()
    except (RuntimeError, IndexError, AssertionError, ValueError, decord.DECORDError) as error:
        if isinstance(error, VideoReadError):
            raise
        raise VideoReadError(info.path, f"decord: {_first_line(error)}") from error
    finally:
        del reader  # a living reader keeps decoding ahead, and hangs a forked child that touches it
    expected = (len(indices), info.height, info.width, 3)
    if frames.shape != expected or frames.dtype != np.uint8:
        raise VideoReadError(info.path, f"decord gave {frames.dtype} {frames.shape}, expected uint8 {expected}")
    return resize_images(rearrange(torch.from_numpy(frames), "t h w c -> t c h w").contiguous(), size)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _read_pyav(info: VideoInfo, indices: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Sorted unique frames by decoding from the start: right for every file, at the price of the frames before."""
    frames = torch.empty((len(indices), 3, *size), dtype=torch.uint8)
    found = 0
    for position, frame, is_damaged in _decode_all(info.path):
        if position < indices[found]:
            continue
        if is_damaged:
            raise VideoReadError(info.path, f"frame {position} is damaged")
        frames[found] = resize_images(_upright(info, frame, position), size)
        found += 1
        if found == len(indices):
            return frames
    raise VideoReadError(info.path, f"ends before frame {indices[found]} of {info.num_frames} announced")


def _decode_all(path: str) -> Iterator[tuple[int, VideoFrame, bool]]:
    """Position, frame, and whether it or one before it in its group of pictures is damaged."""
    position, is_damaged = -1, False
    try:
        with av.open(path) as container:
            stream, _ = video_stream(path, container)
            stream.codec_context.thread_count = 1  # more threads can hang beside torch's, and workers are many already
            for position, frame in enumerate(container.decode(stream)):
                # Later frames copy from a damaged one until the next key frame, and only the first is marked.
                is_damaged = frame.is_corrupt or (is_damaged and not frame.key_frame)
                yield position, frame, is_damaged
    except av.FFmpegError as error:
        raise VideoReadError(path, f"breaks off after {position + 1} frames ({error.strerror})") from error


def verify_video(path: str | Path) -> int:
    """Decode every frame once and count them.

    decord hides damage inside packets: depending on how far its thread has got, it returns the decoder's patched
    pictures without an error. Decoding with PyAV always shows it.

    Raises:
        VideoReadError: If the file is damaged anywhere or ends before the announced number of frames.
    """
    info = probe_video(path)
    num_frames = 0
    for position, _, is_damaged in _decode_all(info.path):
        if is_damaged:
            raise VideoReadError(path, f"frame {position} is damaged")
        num_frames += 1
    if num_frames < info.num_frames:
        raise VideoReadError(path, f"ends after {num_frames} of {info.num_frames} frames announced")
    return num_frames


def _upright(info: VideoInfo, frame: VideoFrame, position: int) -> UInt8[Tensor, "3 H W"]:
    picture = np.rot90(frame.to_ndarray(format="rgb24"), info.rotation // 90)
    if picture.shape[:2] != (info.height, info.width):
        raise VideoReadError(
            info.path,
            f"frame {position} is {picture.shape[1]}x{picture.shape[0]}, the first one {info.width}x{info.height}",
        )
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
