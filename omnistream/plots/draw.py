"""Draws any kind of plot."""

import numpy as np
from jaxtyping import UInt8

from omnistream.plots.camera_paths import draw_paths
from omnistream.plots.captions import draw_captions
from omnistream.plots.depth import draw_depth
from omnistream.plots.features import draw_features
from omnistream.plots.views import draw_views
from omnistream.tasks.plots import (
    CameraPlot,
    CaptionPlot,
    DepthPlot,
    FeaturesPlot,
    Plot,
    ViewsPlot,
)

EXPLANATIONS = {
    ViewsPlot: "What self-supervision sees: the student's global crops with masked patches tinted, and local crops.",
    FeaturesPlot: "Patch features of one clip: similar colours are similar features, over space and over time.",
    DepthPlot: "Depth: truth and prediction share one colour scale; the error is relative to the true depth.",
    CameraPlot: "Camera path seen from above and from the side, after the best similarity alignment.",
    CaptionPlot: "Text that the language decoder generated for held-out samples, next to the truth.",
}
"""One sentence for the reader of a report, per kind of plot."""


def draw(plot: Plot) -> UInt8[np.ndarray, "H W 3"]:
    """The plot as an image.

    Raises:
        TypeError: If it is not one of the kinds in `tasks.plots`.
    """
    match plot:
        case ViewsPlot():
            return draw_views(plot)
        case FeaturesPlot():
            return draw_features(plot)
        case DepthPlot():
            return draw_depth(plot)
        case CameraPlot():
            return draw_paths(plot)
        case CaptionPlot():
            return draw_captions(plot)
    raise TypeError(f"draw: expected a plot of omnistream.tasks.plots, got {type(plot).__name__}")
