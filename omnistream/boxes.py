"""The one type of a bounding box."""

from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle with x to the right and y down; in pixels, or relative to the image in [0, 1]."""

    x1: float
    """Left edge."""
    y1: float
    """Upper edge."""
    x2: float
    """Right edge."""
    y2: float
    """Lower edge."""
