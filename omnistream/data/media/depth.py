"""Depth maps stored as 16-bit PNG."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from omnistream.data.media.errors import DepthReadError
from omnistream.data.media.image import MAX_IMAGE_PIXELS

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I")
"""Modes in which Pillow opens a 16-bit greyscale PNG; "I" before Pillow 11."""


def read_depth_png(
    path: str | Path,
    *,
    scale: float = 0.001,
    invalid: Collection[int] = (0,),
    max_pixels: int = MAX_IMAGE_PIXELS,
) -> Float32[Tensor, "H W"]:
    """Read a depth map: stored value times `scale`, 0 where there is no measurement.

    Args:
        path: Single-channel PNG with 16 bits.
        scale: Metres per stored unit; the default is for millimetres.
        invalid: Stored values that mean "no measurement".
        max_pixels: Refuse larger maps before decoding.

    Raises:
        DepthReadError: If the file is missing, damaged, too large or not a 16-bit single-channel image. 8-bit images
            are refused: usually these are depth maps that an image viewer has saved again.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > max_pixels:
                raise DepthReadError(path, f"{image.width}x{image.height} is over the limit of {max_pixels} pixels")
            if image.mode not in _SIXTEEN_BIT:
                raise DepthReadError(path, f"expected 16-bit grey, got mode {image.mode}")
            stored = np.asarray(image).astype(np.int64)
    except FileNotFoundError:
        raise DepthReadError(path, "no such file") from None
    except UnidentifiedImageError:
        raise DepthReadError(path, "not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DepthReadError):
            raise
        raise DepthReadError(path, f"damaged depth map ({error})") from error
    depth = np.where(np.isin(stored, list(invalid)), 0.0, stored * scale)
    return torch.from_numpy(depth.astype(np.float32))
