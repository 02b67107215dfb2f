"""The attentive probe: learned cross-attention pooling over frozen tokens, then a linear classifier."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class CrossBlock(nn.Module):
    """Queries that attend to tokens once; the query is not normalised and attention has no output projection.

    Args:
        embed_dim: Width.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLP over `embed_dim`.
    """

    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(embed_dim), nn.LayerNorm(embed_dim)
        self.q, self.kv = nn.Linear(embed_dim, embed_dim), nn.Linear(embed_dim, 2 * embed_dim)
        self.mlp = Mlp(embed_dim, int(embed_dim * mlp_ratio))

    def forward(self, query: Float[Tensor, "B Q D"], x: Float[Tensor, "B N D"]) -> Float[Tensor, "B Q D"]:
        """The queries after attending to `x`."""
        q = rearrange(self.q(query), "B Q (H D) -> B H Q D", H=self.num_heads)
        k, v = rearrange(self.kv(self.norm1(x)), "B N (two H D) -> two B H N D", two=2, H=self.num_heads)
        query = query + rearrange(F.scaled_dot_product_attention(q, k, v), "B H Q D -> B Q (H D)")
        return query + self.mlp(self.norm2(query))

    def attention(self, query: Float[Tensor, "B Q D"], x: Float[Tensor, "B N D"]) -> Float[Tensor, "B Q N"]:
        """How much each query attends to each token, averaged over the heads; sums to 1 over the tokens."""
        q = rearrange(self.q(query), "B Q (H D) -> B H Q D", H=self.num_heads)
        k, _ = rearrange(self.kv(self.norm1(x)), "B N (two H D) -> two B H N D", two=2, H=self.num_heads)
        return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).mean(1)


class AttentiveProbe(nn.Module):
    """`num_layers` - 1 self-attention blocks, one cross-attention block with a learned query, a linear classifier.

    The published probe has no position embedding: position and time must be encoded in the tokens.

    Args:
        embed_dim: Width of the tokens.
        num_classes: Classes.
        num_layers: Blocks, the cross-attention included (paper App. C.2: 4).
        num_heads: Attention heads (paper: 16).
        mlp_ratio: Hidden width of the MLPs over `embed_dim`.
        activation_checkpointing: Recompute the self-attention blocks in the backward pass.
        num_positions: Size of a learned position embedding, which is repeated over the tokens: with as many as tokens,
            the probe knows their place and time; with those of one frame, their place alone; None as published.
        query_std: Initial spread of the query. With the published 0.02 the query attends to all tokens
            equally at first and needs thousands of steps to specialise; 1 suits short fits.

    Raises:
        ValueError: If the heads do not divide the width, or a count is not positive.

    Source: facebookresearch/vjepa2 src/models/attentive_pooler.py (structure and initialisation).
    """

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        *,
        num_layers: int = 4,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        activation_checkpointing: bool = False,
        num_positions: int | None = None,
        query_std: float = 0.02,
    ) -> None:
        super().__init__()
        if min(num_classes, num_layers, num_heads) < 1:
            raise ValueError(
                f"num_classes, num_layers and num_heads must be positive; got {num_classes}, {num_layers}, {num_heads}"
            )
        if embed_dim % num_heads:
            raise ValueError(f"num_heads {num_heads} must divide the width {embed_dim} of the features")
        self.activation_checkpointing, self.query_std = activation_checkpointing, query_std
        self.query = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.positions = None if num_positions is None else nn.Parameter(torch.empty(num_positions, embed_dim))
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=nn.LayerNorm)
            for _ in range(num_layers - 1)
        )
        self.cross = CrossBlock(embed_dim, num_heads, mlp_ratio)
        self.classifier = nn.Linear(embed_dim, num_classes)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Scale residual outputs down with depth; the classifier keeps torch's initialisation.

        Weights get the published standard deviation of 0.02 at ViT-L's width of 1024 and as much signal at every other.
        """
        std = 0.02 * (1024 / self.query.shape[-1]) ** 0.5
        nn.init.normal_(self.query, std=self.query_std)
        if self.positions is not None:
            nn.init.normal_(self.positions)  # the scale of normalised tokens: smaller ones are hardly learned from
        for module in [*self.blocks.modules(), *self.cross.modules()]:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
        blocks: Any = self.blocks  # timm does not type their parts
        for i, block in enumerate(blocks, start=1):
            block.attn.proj.weight.div_(math.sqrt(2 * i))
            block.mlp.fc2.weight.div_(math.sqrt(2 * i))
        # The released code counts the self-attention blocks here, not the cross block itself.
        self.cross.mlp.fc2.weight.div_(math.sqrt(2 * max(len(self.blocks), 1)))
        self.classifier.reset_parameters()

    def encode(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """What the query attends to: the tokens after the self-attention blocks."""
        if self.positions is not None:
            tokens = tokens + self.positions.repeat(tokens.shape[1] // len(self.positions), 1)
        for block in self.blocks:
            if self.activation_checkpointing and self.training:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        return tokens

    def pool(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        """One vector per sample."""
        return self.cross(self.query.expand(len(tokens), -1, -1), self.encode(tokens))[:, 0]

    def attention(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N"]:
        """How much the query attends to each token; sums to 1."""
        return self.cross.attention(self.query.expand(len(tokens), -1, -1), self.encode(tokens))[:, 0]

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B C"]:
        """Logits, in the precision of the weights also under autocast."""
        pooled = self.pool(tokens)
        with torch.autocast(pooled.device.type, enabled=False):
            return self.classifier(pooled.to(self.classifier.weight))
