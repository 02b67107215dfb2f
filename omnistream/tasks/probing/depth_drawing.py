"""Depth maps of one image beside each other."""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from omnistream.metrics import relative_depth_error
from omnistream.plots.depth import DEPTH_COLORMAP, ERROR_SCALE
from omnistream.plots.sheet import robust_scale


def draw_depth_images(
    image: UInt8[Tensor, "3 H W"],
    truth: Float[Tensor, "H W"],
    evaluated: Bool[Tensor, "H W"],
    prediction: Float[Tensor, "H W"],
) -> dict[str, UInt8[Tensor, "3 H W"]]:
    """Input, truth, prediction and relative error by title; truth and prediction share one colour scale.

    Args:
        image: The input.
        truth: Metres; grey where it is 0, unknown.
        evaluated: Pixels that count; the error is grey elsewhere.
        prediction: Metres.
    """
    scale = robust_scale(truth, truth > 0, DEPTH_COLORMAP)
    span = f"{scale.low:.1f} to {scale.high:.1f} m"
    colors = {
        f"truth, {span}": scale.colors(truth, truth > 0),
        f"prediction, {span}": scale.colors(prediction),
        "relative error, 0 to 50 %": ERROR_SCALE.colors(relative_depth_error(prediction, truth), evaluated),
    }
    drawn = {title: torch.from_numpy(pixels).permute(2, 0, 1).contiguous() for title, pixels in colors.items()}
    return {"input": image.cpu(), **drawn}
