"""The transformer block of DINOv3: pre-norm attention and feed-forward network with layer scale.

Source: facebookresearch/dinov3: dinov3/layers/{attention,block,ffn_layers,layer_scale}.py.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from omnistream.backbone.attention import Context
from omnistream.backbone.rope import rotate
from omnistream.backbone.variants import Variant

NORM_EPS = 1e-5


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.init = init
        self.gamma = nn.Parameter(torch.empty(dim))

    def reset_parameters(self) -> None:
        """Reset every factor to its initial value."""
        nn.init.constant_(self.gamma, self.init)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Scale the channels."""
        return x * self.gamma


class Attention(nn.Module):
    """Multi-head self-attention whose context (a clip, or a stream's cache) decides what the tokens attend to."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, layer: int) -> None:
        super().__init__()
        self.num_heads, self.layer = num_heads, layer
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        cos: Float[Tensor, "*rows N d"],
        sin: Float[Tensor, "*rows N d"],
        context: Context,
    ) -> Float[Tensor, "B N D"]:
        """Attend; `cos` and `sin` are the positions of the N tokens, one for all rows or [B, 1, N, d]."""
        qkv = rearrange(self.qkv(x), "b n (three heads d) -> three b heads n d", three=3, d=cos.shape[-1])
        query, key = rotate(qkv[:2], cos, sin)
        out = context.attend(self.layer, query, key, qkv[2])
        return self.proj(rearrange(out, "b heads n d -> b n (heads d)"))


class Mlp(nn.Module):
    """Linear, GELU (erf), Linear."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Transform each token."""
        return self.fc2(self.act(self.fc1(x)))


class SwiGlu(nn.Module):
    """w3(silu(w1 x) * w2 x)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden_dim)
        self.w2 = nn.Linear(dim, hidden_dim)
        self.w3 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Transform each token."""
        return self.w3(silu(self.w1(x)) * self.w2(x))


class Block(nn.Module):
    """One transformer block."""

    def __init__(self, variant: Variant, layer: int, layer_scale_init: float) -> None:
        super().__init__()
        dim = variant.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, variant.num_heads, variant.qkv_bias, layer)
        self.ls1 = LayerScale(dim, layer_scale_init)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = (Mlp if variant.ffn == "mlp" else SwiGlu)(dim, variant.hidden_dim)
        self.ls2 = LayerScale(dim, layer_scale_init)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        cos: Float[Tensor, "*rows N d"],
        sin: Float[Tensor, "*rows N d"],
        context: Context,
    ) -> Float[Tensor, "B N D"]:
        """Attention and feed-forward network, each added to its input."""
        x = x + self.ls1(self.attn(self.norm1(x), cos, sin, context))
        return x + self.ls2(self.mlp(self.norm2(x)))
