"""The dual-DPT head: depth and ray maps from four layers of patch features.

Both branches share the reassembly of the features into a pyramid; each has its own fusion chain and output layers. The
head works frame by frame, so it streams, and it is run in chunks of frames to bound memory.

Source: ByteDance-Seed/Depth-Anything-3: src/depth_anything_3/model/dualdpt.py, with two changes: only the level of
ray outputs that is used is built, and rays are predicted at the size of the image as the paper states them.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

STRIDES = (4, 8, 16, 32)
"""Pixels of the image per cell of the four pyramid levels, for every patch size; those of DPT with patches of 16."""


class DenseMaps(NamedTuple):
    """Predictions of the head, float32."""

    depth: Tensor
    """[B, T, H, W], positive z-depth in the unit of the normalised scene."""
    depth_confidence: Tensor
    """[B, T, H, W], above 1."""
    rays: Tensor
    """[B, T, H/r, W/r, 6], origin and direction in the frame of the first camera."""
    ray_confidence: Tensor
    """[B, T, H/r, W/r], above 1."""


def uv_embedding(
    height: int, width: int, channels: int, aspect: float, like: Tensor
) -> tuple[Float[Tensor, "half 1 width"], Float[Tensor, "half height 1"]]:
    """Sines and cosines of the horizontal and the vertical position, for the first and the second half of the channels.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        channels: Channels of the map, a multiple of 4.
        aspect: Width over height of the image, which may differ from that of the map.
        like: Gives device and dtype.
    """
    diagonal = (aspect**2 + 1) ** 0.5
    frequency = 100.0 ** -(torch.arange(channels // 4, device=like.device, dtype=like.dtype) / (channels // 4))

    def embed(cells: int, span: float) -> Tensor:
        end = span * (cells - 1) / cells
        angle = frequency[:, None] * torch.linspace(-end, end, cells, device=like.device, dtype=like.dtype)
        return torch.cat([angle.sin(), angle.cos()])

    return embed(width, aspect / diagonal)[:, None, :], embed(height, 1 / diagonal)[:, :, None]


def add_uv_embedding(x: Float[Tensor, "N C h w"], aspect: float) -> Float[Tensor, "N C h w"]:
    """`x` plus a tenth of the embedding; added in two halves, so that its full map is never built."""
    half = x.shape[1] // 2
    horizontal, vertical = uv_embedding(x.shape[2], x.shape[3], x.shape[1], aspect, like=x)
    return torch.cat([x[:, :half] + 0.1 * horizontal, x[:, half:] + 0.1 * vertical], 1)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _conv3(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


def _resample(channels: int, patch_size: int, stride: int) -> nn.Module:
    """Layer that turns a map with one cell per patch into one with one cell per `stride` pixels (rounded up)."""
    if patch_size > stride:
        factor = patch_size // stride
        return nn.ConvTranspose2d(channels, channels, factor, stride=factor)
    if patch_size == stride:
        return nn.Identity()
    factor = stride // patch_size
    return nn.Conv2d(channels, channels, factor + 1, stride=factor, padding=factor // 2)


class Reassemble(nn.Module):
    """Four layers of patch features as a pyramid of equally wide maps."""

    def __init__(self, embed_dim: int, patch_size: int, features: int, out_channels: Sequence[int]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim)
        self.project = nn.ModuleList(nn.Conv2d(embed_dim, c, 1) for c in out_channels)
        self.resample = nn.ModuleList(_resample(c, patch_size, s) for c, s in zip(out_channels, STRIDES, strict=True))
        self.adapt = nn.ModuleList(_conv3(c, features, bias=False) for c in out_channels)

    def forward(self, layers: Sequence[Float[Tensor, "N h w D"]], aspect: float) -> list[Float[Tensor, "N C _h _w"]]:
        """Finest level first."""
        levels = []
        for x, project, resample, adapt in zip(layers, self.project, self.resample, self.adapt, strict=True):
            x = project(rearrange(self.norm(x), "n h w d -> n d h w"))
            levels.append(adapt(resample(add_uv_embedding(x, aspect))))
        return levels


class ResidualConvUnit(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, added to the input."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first, self.second = _conv3(features, features), _conv3(features, features)

    def forward(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h w"]:
        """See the class."""
        return x + self.second(F.relu(self.first(F.relu(x))))


class Fusion(nn.Module):
    """One step from a coarse level to the next finer one."""

    def __init__(self, features: int, lateral: bool = True) -> None:
        super().__init__()
        self.lateral_unit = ResidualConvUnit(features) if lateral else None
        self.unit = ResidualConvUnit(features)
        self.out = nn.Conv2d(features, features, 1)

    def forward(
        self, x: Float[Tensor, "N C h w"], size: tuple[int, int], lateral: Float[Tensor, "N C h w"] | None = None
    ) -> Float[Tensor, "N C _h _w"]:
        """The coarse map, with the level of its own size mixed in, at `size`."""
        if lateral is not None and self.lateral_unit is not None:
            x = x + self.lateral_unit(lateral)
        # DPT resizes before the 1x1 convolution; the two commute, and this order does a quarter of the work.
        return _resize(self.out(self.unit(x)), size)


class FusionChain(nn.Module):
    """Pyramid to one map at twice the resolution of its finest level."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(Fusion(features, lateral=level < 3) for level in range(4))

    def forward(self, levels: Sequence[Float[Tensor, "N C _h _w"]]) -> Float[Tensor, "N C _H _W"]:
        """Coarsest level to finest."""
        x = levels[3]
        for level in (3, 2, 1, 0):
            lateral = levels[level] if level < 3 else None
            finer = levels[level - 1].shape[-2:] if level > 0 else (2 * x.shape[-2], 2 * x.shape[-1])
            x = self.steps[level](x, (int(finer[0]), int(finer[1])), lateral)
        return x


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [N, C, h, w]."""

    def forward(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h w"]:
        """See the class."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class DualDPT(nn.Module):
    """Depth with confidence, and rays with confidence.

    Runs in float32 with autocast off regardless of its context, so its parameters must stay in float32.

    Args:
        embed_dim: Width D of the features.
        patch_size: A power of two, at least 4. Levels have 4, 8, 16 and 32 pixels per cell for every patch size.
        features: Width of the fusion chains, a multiple of 8.
        out_channels: Widths of the four levels before they are adapted to `features`, finest first, multiples of 4.
        hidden: Width of the last layer before the outputs.
        ray_down_ratio: Rays are predicted at 1/r of the image's sides. 1 is the paper's; DA3 has 2 for patches of 16.
        frames_per_chunk: Frames worked on at once; changes memory, not results.
        activation_checkpointing: Recompute each chunk in the backward pass.
        max_confidence_logit: Confidence is 1 + exp(logit) with the logit limited to this, because the loss rewards
            confidence without bound where the error vanishes.

    Raises:
        ValueError: For sizes that do not fit together.
    """

    def __init__(
        self,
        embed_dim: int,
        patch_size: int,
        *,
        features: int = 256,
        out_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024),
        hidden: int = 32,
        ray_down_ratio: int = 1,
        frames_per_chunk: int = 8,
        activation_checkpointing: bool = False,
        max_confidence_logit: float = 8.0,
    ) -> None:
        super().__init__()
        if patch_size < 4 or patch_size & (patch_size - 1):
            raise ValueError(f"DualDPT needs a patch size that is a power of two and at least 4, got {patch_size}")
        if features % 8 or any(c % 4 for c in out_channels):
            raise ValueError(
                f"features must be a multiple of 8 and out_channels of 4 (position embedding), got {features}, "
                f"{out_channels}"
            )
        numbers = {
            "features": features,
            "hidden": hidden,
            "ray_down_ratio": ray_down_ratio,
            "frames_per_chunk": frames_per_chunk,
        }
        if small := {name: number for name, number in numbers.items() if number < 1}:
            raise ValueError(
                f"{' and '.join(small)} of the dense head must be at least 1, got {', '.join(map(str, small.values()))}"
            )
        self.patch_size, self.ray_down_ratio, self.frames_per_chunk = patch_size, ray_down_ratio, frames_per_chunk
        self.activation_checkpointing, self.max_confidence_logit = activation_checkpointing, max_confidence_logit
        half = features // 2
        self.reassemble = Reassemble(embed_dim, patch_size, features, out_channels)
        self.depth_chain, self.ray_chain = FusionChain(features), FusionChain(features)
        self.depth_neck = _conv3(features, half)
        # Five convolutions without an activation in between, as in DA3.
        widths = (features, half, features, half, features, half)
        self.ray_neck = nn.Sequential(*(_conv3(a, b) for a, b in pairwise(widths)))
        self.depth_out = nn.Sequential(_conv3(half, hidden), nn.ReLU(), nn.Conv2d(hidden, 2, 1))
        self.ray_out = nn.Sequential(_conv3(half, hidden), ChannelNorm(hidden), nn.ReLU(), nn.Conv2d(hidden, 7, 1))

    def forward(self, layers: Sequence[Float[Tensor, "B T h w D"]]) -> DenseMaps:
        """Maps of all frames.

        Args:
            layers: Raw outputs of four blocks, early to late.

        Raises:
            ValueError: If there are not four layers, or the image is not a multiple of `ray_down_ratio`.
        """
        if len(layers) != 4:
            raise ValueError(f"DualDPT reads four layers, got {len(layers)}")
        B, _, h, w, _ = layers[0].shape
        if (h * self.patch_size) % self.ray_down_ratio or (w * self.patch_size) % self.ray_down_ratio:
            raise ValueError(f"ray_down_ratio {self.ray_down_ratio} does not divide the image of {h}x{w} patches")
        with torch.autocast(layers[0].device.type, enabled=False):
            frames = [rearrange(x, "b t h w d -> (b t) h w d").float() for x in layers]
            chunks = zip(*(x.split(self.frames_per_chunk) for x in frames), strict=True)
            depth, rays = (torch.cat(parts) for parts in zip(*map(self._chunk, chunks), strict=True))
            depth, rays = (rearrange(x, "(b t) c h w -> b t h w c", b=B) for x in (depth, rays))
            return DenseMaps(
                depth=depth[..., 0].exp(),
                depth_confidence=self._confidence(depth[..., 1]),
                rays=rays[..., :6],
                ray_confidence=self._confidence(rays[..., 6]),
            )

    def _confidence(self, logit: Tensor) -> Tensor:
        return 1 + logit.clamp(max=self.max_confidence_logit).exp()

    def _chunk(self, layers: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        if self.activation_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(self._maps, *layers, use_reentrant=False)
        return self._maps(*layers)

    def _maps(self, *layers: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of a few frames: depth and its confidence [N, 2, H, W], rays and their confidence [N, 7, H/r, W/r]."""
        height, width = (side * self.patch_size for side in layers[0].shape[1:3])
        aspect, r = width / height, self.ray_down_ratio
        levels = self.reassemble(layers, aspect)
        depth = _resize(self.depth_neck(self.depth_chain(levels)), (height, width))
        rays = _resize(self.ray_neck(self.ray_chain(levels)), (height // r, width // r))
        return self.depth_out(add_uv_embedding(depth, aspect)), self.ray_out(add_uv_embedding(rays, aspect))
