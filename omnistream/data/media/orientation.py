"""Display orientation of stored frames, from the matrix that phones and editors write for rotation and mirroring."""

from typing import NamedTuple

import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

_TOLERANCE = 0.02
"""Largest off-axis entry relative to the on-axis entries that counts as rounding, about one degree."""


class Orientation(NamedTuple):
    """Operations that make a stored frame upright: first transpose, then flip."""

    transpose: bool = False
    """Swap rows and columns."""
    flip_x: bool = False
    """Flip left and right, after transposing."""
    flip_y: bool = False
    """Flip top and bottom, after transposing."""

    @property
    def is_mirrored(self) -> bool:
        """Whether the frame needs more than a rotation to be upright."""
        return (self.transpose + self.flip_x + self.flip_y) % 2 == 1

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the upright frame, given those of the stored one."""
        return (width, height) if self.transpose else (height, width)

    def apply(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The upright image, as a view."""
        image = image.swapaxes(0, 1) if self.transpose else image
        image = image[:, ::-1] if self.flip_x else image
        return image[::-1] if self.flip_y else image


UPRIGHT = Orientation()


def orientation_from_matrix(matrix: tuple[int, ...]) -> Orientation:
    """The orientation that a display matrix describes.

    Args:
        matrix: The 9 entries (a, b, u, c, d, v, x, y, w) of ISO/IEC 14496-12: a stored pixel (p, q) is shown at
            (a p + c q + x, b p + d q + y). Scale and translation are ignored.

    Raises:
        ValueError: If the matrix rotates by anything but a multiple of 90 degrees, shears, or is singular.
    """
    a, b, _, c, d, *_ = matrix
    straight, swapped = min(abs(a), abs(d)), min(abs(b), abs(c))
    if straight and max(abs(b), abs(c)) <= _TOLERANCE * straight:
        return Orientation(False, a < 0, d < 0)
    if swapped and max(abs(a), abs(d)) <= _TOLERANCE * swapped:
        return Orientation(True, c < 0, b < 0)
    turn = np.degrees(np.arctan2(b, a))
    raise ValueError(f"has a display rotation of {turn:.0f} degrees; only multiples of 90 and mirroring are supported")


def frame_orientation(frame: VideoFrame) -> Orientation:
    """The orientation of a decoded frame, from the container or from the stream itself.

    Raises:
        ValueError: See `orientation_from_matrix`.
    """
    # `frame.side_data` and the frame would reference each other: frames, and the threads that convert them, would stay
    # alive until the garbage collector runs, in a forked worker forever.
    side_data = SideDataContainer(frame)  # type: ignore[call-arg]  # the stub lacks its constructor
    if Type.DISPLAYMATRIX not in side_data:
        return UPRIGHT
    matrix = np.frombuffer(bytes(side_data[Type.DISPLAYMATRIX]), dtype="<i4")
    return orientation_from_matrix(tuple(matrix.tolist()))


def upright_image(frame: VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
    """A decoded frame as upright RGB, contiguous.

    Raises:
        ValueError: See `orientation_from_matrix`.
        av.FFmpegError: If the frame has no RGB image.
    """
    orientation = frame_orientation(frame)
    rgb = VideoReformatter().reformat(frame, format="rgb24")  # the frame's own reformatter would keep its threads
    return np.ascontiguousarray(orientation.apply(rgb.to_ndarray()))
