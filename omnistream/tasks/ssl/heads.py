"""The projection head of DINO and iBOT."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """MLP to a unit-length bottleneck, then dot products with the prototypes (no bias, no weight normalisation).

    Runs in float32 with autocast off, so its parameters must stay in float32.

    Args:
        embed_dim: Width of the tokens.
        hidden_dim: Width between the MLP's layers.
        bottleneck_dim: Width of the unit-length features.
        num_prototypes: Number of logits.
        num_layers: Linear layers before the prototypes; 1 is a single one without activation.

    Source: facebookresearch/dinov3: dinov3/layers/dino_head.py, whose parameter names it keeps.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        num_prototypes: int = 65536,
        num_layers: int = 3,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        widths = [embed_dim, *[hidden_dim] * (num_layers - 1), bottleneck_dim]
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            layers += [nn.Linear(width, next_width), nn.GELU()]
        self.mlp = nn.Sequential(*layers[:-1])
        self.last_layer = nn.Linear(bottleneck_dim, num_prototypes, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal weights (standard deviation 0.02), zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, tokens: Float[Tensor, "*N D"], function: Callable[[Tensor, Tensor], Any] | None = None) -> Any:
        """Logits [*N, K], or the result of `function(bottleneck [*N, d], prototypes [K, d])`.

        The function runs inside this call because only there a sharded head has its complete prototypes. It lets a
        caller process 65,536 logits per token in chunks.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            features = F.normalize(self.mlp(tokens.to(self.last_layer.weight.dtype)), dim=-1)
            if function is None:
                return self.last_layer(features)
            return function(features, self.last_layer.weight)
