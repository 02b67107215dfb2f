"""From any picture's data to its pixels."""

import numpy as np
from jaxtyping import UInt8

from omnistream.report.captions import draw_captions
from omnistream.report.depth import draw_depth
from omnistream.report.features import draw_features
from omnistream.report.paths import draw_paths
from omnistream.report.views import draw_views
from omnistream.tasks.pictures import (
    CameraPicture,
    CaptionPicture,
    DepthPicture,
    FeaturesPicture,
    Picture,
    ViewsPicture,
)

EXPLANATIONS = {
    ViewsPicture: "What self-supervision sees: the student's global crops with masked patches tinted, and local crops.",
    FeaturesPicture: "Patch features of one clip: similar colours are similar features, over space and over time.",
    DepthPicture: "Depth: truth and prediction share one colour scale; the error is relative to the true depth.",
    CameraPicture: "Camera path seen from above and from the side, after the best similarity alignment.",
    CaptionPicture: "What the language decoder wrote about held-out samples, beside the truth.",
}
"""One sentence for the reader of a report, per kind of picture."""


def draw(picture: Picture) -> UInt8[np.ndarray, "H W 3"]:
    """The picture as an image.

    Raises:
        TypeError: If it is none of the kinds in `tasks.pictures`.
    """
    match picture:
        case ViewsPicture():
            return draw_views(picture)
        case FeaturesPicture():
            return draw_features(picture)
        case DepthPicture():
            return draw_depth(picture)
        case CameraPicture():
            return draw_paths(picture)
        case CaptionPicture():
            return draw_captions(picture)
    raise TypeError(f"draw: expected a picture of omnistream.tasks.pictures, got {type(picture).__name__}")
