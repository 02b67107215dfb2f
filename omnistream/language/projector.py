"""From the backbone's patch tokens to the decoder's embedding space."""

import re
from typing import Literal

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

TokenReduction = Literal["none", "avgpool2x2", "pixel_shuffle2x2"]


def build_mlp(kind: str, in_dim: int, out_dim: int) -> nn.Module:
    """`linear`, `identity`, or `mlp{N}x_gelu`: N linear layers with exact GELUs between them, no norm.

    Raises:
        ValueError: If the kind is unknown, or `identity` would have to change the width.

    Source: LLaVA-VL/LLaVA-NeXT llava/model/multimodal_projector/builder.py (the naming and the layers).
    """
    if kind == "identity":
        if in_dim != out_dim:
            raise ValueError(f"projector 'identity' keeps the width, but {in_dim} must become {out_dim}; use 'linear'")
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(in_dim, out_dim)
    match = re.fullmatch(r"mlp([1-9]\d?)x_gelu", kind)
    if match is None:
        raise ValueError(f"unknown projector '{kind}'; use 'mlp2x_gelu' (any number of layers), 'linear' or 'identity'")
    layers: list[nn.Module] = [nn.Linear(in_dim, out_dim)]
    for _ in range(int(match[1]) - 1):
        layers += [nn.GELU(), nn.Linear(out_dim, out_dim)]
    return nn.Sequential(*layers)


class Projector(nn.Module):
    """Maps patch tokens to decoder embeddings and optionally merges 2x2 neighbours.

    The paper says "MLP projector" only; two layers and no reduction are LLaVA's and our default.

    Args:
        in_dim: Width of the backbone.
        out_dim: Width of the decoder.
        kind: See `build_mlp`.
        token_reduction: `avgpool2x2` averages projected tokens (as LLaVA does for video); `pixel_shuffle2x2` joins four
            neighbours on the channel axis before projecting.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, kind: str = "mlp2x_gelu", token_reduction: TokenReduction = "none"
    ) -> None:
        super().__init__()
        self.token_reduction = token_reduction
        self.layers = build_mlp(kind, in_dim * (4 if token_reduction == "pixel_shuffle2x2" else 1), out_dim)

    def forward(self, patches: Float[Tensor, "B T h w D"]) -> Float[Tensor, "B N E"]:
        """Visual tokens in time order, each frame row by row.

        Raises:
            ValueError: If tokens are to be merged and the patch grid is odd.
        """
        height, width = patches.shape[2:4]
        if self.token_reduction != "none" and (height % 2 or width % 2):
            raise ValueError(
                f"token_reduction '{self.token_reduction}' needs an even patch grid, got {height}x{width}; "
                "choose another image size or 'none'"
            )
        if self.token_reduction == "pixel_shuffle2x2":
            patches = rearrange(patches, "B T (h a) (w b) D -> B T h w (a b D)", a=2, b=2)
        tokens = self.layers(patches)
        if self.token_reduction == "avgpool2x2":
            tokens = reduce(tokens, "B T (h a) (w b) E -> B T h w E", "mean", a=2, b=2)
        return rearrange(tokens, "B T h w E -> B (T h w) E")
