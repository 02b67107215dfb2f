"""Raw depth of a first-generation Kinect, as NYUv2 distributes it."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import UInt16

from omnistream.data.media.errors import DepthReadError
from omnistream.data.media.image import MAX_IMAGE_PIXELS

NO_DISPARITY = 2047
"""Stored where nothing was measured; also the largest number of 11 bits."""
_HEADER = re.compile(rb"P5\s+(?:#[^\n]*\n\s*)*(\d+)\s+(\d+)\s+(\d+)\s")


def read_disparity_pgm(path: str | Path) -> UInt16[np.ndarray, "H W"]:
    """Read the raw disparities of a Kinect, 0 to 2047; larger is farther, and 2047 is no measurement.

    NYUv2's files are binary PGM of 16 bits, but little-endian, where the format asks for big-endian: other readers give
    the bytes swapped, and some scale them.

    Args:
        path: The file.

    Raises:
        DepthReadError: If the file is missing, of another format or length, or holds numbers of more than 11 bits, as
            after it was saved again in the byte order of the format.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DepthReadError(path, str(error.strerror or error)) from None
    header = _HEADER.match(data)
    if header is None:
        raise DepthReadError(path, "it does not begin as a binary PGM: P5, width, height, largest value")
    width, height, largest = map(int, header.groups())
    if not 255 < largest < 65536 or not 0 < width * height <= MAX_IMAGE_PIXELS:
        raise DepthReadError(path, f"expected a depth map of 16 bits, got {width}x{height} with values to {largest}")
    if (got := len(data) - header.end()) != 2 * width * height:
        raise DepthReadError(path, f"expected {2 * width * height} bytes for {width}x{height}, got {got}")
    disparity = np.frombuffer(data, "<u2", offset=header.end()).reshape(height, width)
    if disparity.max() > NO_DISPARITY:
        raise DepthReadError(
            path, f"{disparity.max()} is no disparity of 11 bits; is it the authors' file, which is little-endian?"
        )
    return disparity.astype(np.uint16)
