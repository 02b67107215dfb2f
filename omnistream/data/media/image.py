"""Pictures as upright uint8 RGB, whatever the file holds."""

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from omnistream.data.media.errors import ImageReadError

MAX_IMAGE_PIXELS = 128 * 1024 * 1024
"""Larger pictures are refused before any pixel is decoded; a few kilobytes can unpack to gigabytes."""

_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "F")
"""Pillow modes of one channel with more than 8 bits."""


def read_image(path: str | Path, *, max_pixels: int = MAX_IMAGE_PIXELS) -> UInt8[Tensor, "3 H W"]:
    """The picture in RGB, turned upright by its EXIF orientation.

    Greyscale is repeated over the channels, palettes and CMYK are converted, transparency is laid on white. Only the
    first picture of an animation is read. EXIF orientations outside 1-8 are ignored.

    Args:
        path: Any format Pillow reads; recognised by content, not by suffix.
        max_pixels: Refuse larger pictures.

    Raises:
        ImageReadError: If the file is missing, not a picture, damaged, deeper than 8 bits or too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own, configurable bound decides
        try:
            with Image.open(path) as image:
                return torch.from_numpy(_upright_rgb(path, image, max_pixels))
        except FileNotFoundError:
            raise ImageReadError(path, "no such file") from None
        except UnidentifiedImageError:
            raise ImageReadError(path, "not a picture in a format Pillow knows") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            # Pillow's decoders raise all of these for damaged files.
            if isinstance(error, ImageReadError):
                raise
            raise ImageReadError(path, f"damaged picture ({error})") from error


def _upright_rgb(path: str | Path, image: Image.Image, max_pixels: int) -> np.ndarray:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageReadError(path, f"{width}x{height} is over the limit of {max_pixels} pixels")
    if image.mode in _DEEP_GREY:
        raise ImageReadError(path, f"mode {image.mode} has more than 8 bits a channel; is this a depth map?")
    upright: Image.Image = ImageOps.exif_transpose(image)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        white = Image.new("RGBA", upright.size, (255, 255, 255, 255))
        upright = Image.alpha_composite(white, upright)
    return np.array(upright.convert("RGB")).transpose(2, 0, 1).copy()
