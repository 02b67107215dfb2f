"""Reading images as uint8 RGB."""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from omnistream.data.media.errors import ImageReadError

MAX_IMAGE_PIXELS = 128 * 1024 * 1024
"""Larger images are refused before any pixel is decoded; a few kilobytes can unpack to gigabytes."""

_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "F")
"""Pillow modes of one channel with more than 8 bits."""


def read_image(
    path: str | Path, *, upright: bool = True, data: bytes | None = None, max_pixels: int = MAX_IMAGE_PIXELS
) -> UInt8[Tensor, "3 H W"]:
    """Read an image as RGB and apply its EXIF orientation.

    Greyscale is repeated over the channels, palettes and CMYK are converted, transparent pixels are blended with white.
    Only the first image of an animation is read. EXIF orientations outside 1-8 are ignored.

    Args:
        path: Any format that Pillow reads, recognised by content, not by suffix.
        upright: Apply the EXIF orientation. Pass False for images with depth or a camera, which refer to the stored
            pixels.
        data: The encoded image, if it is only a part of the file.
        max_pixels: Refuse larger images.

    Raises:
        ImageReadError: If the file is missing, not an image, damaged, deeper than 8 bits or too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels is checked instead
        try:
            with Image.open(path if data is None else BytesIO(data)) as image:
                return torch.from_numpy(_rgb(path, image, upright, max_pixels))
        except FileNotFoundError:
            raise ImageReadError(path, "no such file") from None
        except UnidentifiedImageError:
            raise ImageReadError(path, "not an image in a format that Pillow reads") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            # Pillow's decoders raise all of these for damaged files.
            if isinstance(error, ImageReadError):
                raise
            raise ImageReadError(path, f"damaged image ({error})") from error


def _rgb(path: str | Path, image: Image.Image, upright: bool, max_pixels: int) -> np.ndarray:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageReadError(path, f"{width}x{height} is over the limit of {max_pixels} pixels")
    if image.mode in _DEEP_GREY:
        raise ImageReadError(path, f"mode {image.mode} has more than 8 bits per channel; is this a depth map?")
    shown: Image.Image = ImageOps.exif_transpose(image) if upright else image
    if shown.mode in ("RGBA", "LA", "PA") or "transparency" in shown.info:
        shown = shown.convert("RGBA")
        white = Image.new("RGBA", shown.size, (255, 255, 255, 255))
        shown = Image.alpha_composite(white, shown)
    return np.array(shown.convert("RGB")).transpose(2, 0, 1).copy()
