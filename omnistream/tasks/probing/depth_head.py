"""Depth of every patch from bins, as published for linear depth probes."""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from omnistream.tasks.probing.batch_norm import FeatureBatchNorm

Weighting = Literal["linear", "softmax", "sigmoid"]
Spacing = Literal["linear", "log"]


def bin_centers(
    num_bins: int, min_depth: float, max_depth: float, spacing: Spacing = "linear"
) -> Float[Tensor, " bins"]:
    """Depths of the bins, from `min_depth` to `max_depth`, evenly spaced in depth or in its logarithm."""
    if spacing == "linear":
        return torch.linspace(min_depth, max_depth, num_bins)
    return torch.linspace(math.log(min_depth), math.log(max_depth), num_bins).exp()


def depth_from_bins(
    logits: Float[Tensor, " B bins *S"], centers: Float[Tensor, " bins"], weighting: Weighting = "linear"
) -> Float[Tensor, " B *S"]:
    """Mean of the bins' depths, weighted by relu(logit) + 0.1 (`linear`), softmax or sigmoid.

    Example:
        >>> depth_from_bins(torch.zeros(1, 3), torch.tensor([1.0, 2.0, 6.0]))
        tensor([3.0000])

    Source: facebookresearch/dinov3 dinov3/eval/depth/models/__init__.py (`FeaturesToDepth`), after AdaBins.
    """
    if weighting == "softmax":
        weights = logits.softmax(1)
    else:
        weights = logits.relu() + 0.1 if weighting == "linear" else logits.sigmoid()
        weights = weights / weights.sum(1, keepdim=True)
    return torch.einsum("b k ..., k -> b ...", weights, centers)


class DepthHead(nn.Module):
    """Batch norm and one linear layer to `num_bins` logits per patch: 264,448 parameters for 256 bins and width 1024.

    The batch norm is over the batches of all processes.

    Args:
        embed_dim: Width of the tokens.
        num_bins: Bins of depth.
        min_depth: Depth of the first bin in metres.
        max_depth: Depth of the last bin.
        weighting: See `depth_from_bins`.
        spacing: See `bin_centers`.

    Raises:
        ValueError: If an argument is out of range.
    """

    centers: Tensor

    def __init__(
        self,
        embed_dim: int,
        num_bins: int = 256,
        *,
        min_depth: float = 0.001,
        max_depth: float = 10.0,
        weighting: Weighting = "linear",
        spacing: Spacing = "linear",
    ) -> None:
        super().__init__()
        if num_bins < 2 or not 0 < min_depth < max_depth:
            raise ValueError(
                f"needs at least 2 bins and 0 < min_depth < max_depth; got {num_bins}, {min_depth}, {max_depth}"
            )
        if weighting not in get_args(Weighting) or spacing not in get_args(Spacing):
            raise ValueError(
                f"weighting must be one of {get_args(Weighting)}, spacing one of {get_args(Spacing)}; "
                f"got {weighting!r} and {spacing!r}"
            )
        self.weighting = weighting
        self.norm, self.linear = FeatureBatchNorm(embed_dim), nn.Conv2d(embed_dim, num_bins, 1)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)  # type: ignore[arg-type]  # it has one
        self.register_buffer("centers", bin_centers(num_bins, min_depth, max_depth, spacing), persistent=False)

    def forward(self, tokens: Float[Tensor, "B h w D"]) -> Float[Tensor, "B h w"]:
        """Depth of every patch in metres."""
        logits = self.linear(self.norm(tokens.permute(0, 3, 1, 2)))
        return depth_from_bins(logits.float(), self.centers, self.weighting)
