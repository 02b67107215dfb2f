"""Arrays to images, videos and point clouds: depth, features, camera paths, captions, views and curves."""

from omnistream.plots.curves import draw_curves
from omnistream.plots.draw import draw
from omnistream.plots.logs import Series, read_scalars

__all__ = ["Series", "draw", "draw_curves", "read_scalars"]
