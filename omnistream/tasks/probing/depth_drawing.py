"""Depth maps of one image beside each other."""

import torch
from jaxtyping import Bool, Float, UInt8
from matplotlib import colormaps
from torch import Tensor

from omnistream.metrics import relative_depth_error

_UNKNOWN = 128
"""Grey level of pixels without a value."""
_LARGEST_ERROR = 0.5


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
    known = truth > 0
    limits = torch.quantile(truth[known], torch.tensor([0.02, 0.98]).to(truth)).tolist() if known.any() else [0.0, 1.0]
    low, high = limits[0], max(limits[1], limits[0] + 1e-6)
    span = f"{low:.1f} to {high:.1f} m"
    error = relative_depth_error(prediction, truth) / _LARGEST_ERROR
    return {
        "input": image.cpu(),
        f"truth, {span}": _colored((truth - low) / (high - low), "turbo_r", known),
        f"prediction, {span}": _colored((prediction - low) / (high - low), "turbo_r", torch.ones_like(known)),
        f"relative error, 0 to {_LARGEST_ERROR:.0%}": _colored(error, "magma", evaluated),
    }


def _colored(values: Float[Tensor, "H W"], name: str, known: Bool[Tensor, "H W"]) -> UInt8[Tensor, "3 H W"]:
    """Values from 0 to 1 in the colours of one of Matplotlib's colormaps."""
    shown = colormaps[name](values.clamp(0, 1).nan_to_num(0).cpu().numpy(), bytes=True)
    colors = torch.from_numpy(shown[..., :3]).permute(2, 0, 1)
    return torch.where(known.cpu(), colors, torch.full_like(colors, _UNKNOWN))
