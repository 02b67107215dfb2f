"""Images of results: depth, features, camera paths, captions, views and curves."""

from omnistream.plots.curves import Series, draw_curves, read_scalars
from omnistream.plots.draw import draw

__all__ = ["Series", "draw", "draw_curves", "read_scalars"]
