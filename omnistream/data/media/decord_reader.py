"""Reading frames with decord, for the kinds of video in which its random access is exact (see `video_probe`)."""

import logging
from functools import lru_cache
from types import ModuleType

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from omnistream.data.media.errors import VideoReadError
from omnistream.data.media.resize import resize_images
from omnistream.data.media.video_info import VideoInfo

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def decord_module() -> ModuleType | None:
    """The decord module, or None if it is not installed (it has no wheel for ARM)."""
    try:
        import decord
    except (ImportError, OSError) as error:
        logger.info("decord cannot be imported (%s); PyAV reads all videos", error)
        return None
    decord.logging.set_level(decord.logging.QUIET)  # FFmpeg's messages do not name the file; our errors do
    return decord


def read_with_decord(info: VideoInfo, positions: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Frames at increasing positions, resized to `size`; decord rotates them itself.

    Raises:
        VideoReadError: If decord is not installed, fails, or finds a different number of frames.
    """
    decord = decord_module()
    if decord is None:
        raise VideoReadError(info.path, "decord is not installed")
    reader = None
    try:
        # fault_tol=0: raise an error instead of repeating another frame in place of one that does not decode.
        reader = decord.VideoReader(info.path, ctx=decord.cpu(0), num_threads=1, fault_tol=0)
        if len(reader) != info.num_frames:
            raise VideoReadError(info.path, f"decord finds {len(reader)} frames instead of {info.num_frames}")
        frames = reader.get_batch(positions.tolist()).asnumpy()
    except (RuntimeError, IndexError, AssertionError, ValueError, decord.DECORDError) as error:
        if isinstance(error, VideoReadError):
            raise
        raise VideoReadError(info.path, f"decord: {str(error).strip().splitlines()[0]}") from error
    finally:
        del reader  # an open reader decodes in the background, and hangs a forked child that uses it
    expected = (len(positions), info.height, info.width, 3)
    if frames.shape != expected or frames.dtype != np.uint8:
        raise VideoReadError(info.path, f"decord returned {frames.dtype} {frames.shape}, expected uint8 {expected}")
    return resize_images(rearrange(torch.from_numpy(frames), "t h w c -> t c h w").contiguous(), size)
