"""The step as a function of its cache, for ONNX: the cache is an input and an output."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from omnistream.backbone.sessions.frame_step import Features, FrameStep
from omnistream.backbone.sessions.static_step import RingStep

Caches = tuple[list[Tensor], list[Tensor]]


class _NamedStep(FrameStep):
    """Names of inputs and outputs, in the order of the graph."""

    def input_names(self) -> list[str]:
        """`images`, `frame` (index of the new frame per stream), then the caches."""
        layers = range(self.backbone.num_layers)
        return ["images", "frame", *(f"keys_{i}" for i in layers), *(f"values_{i}" for i in layers)]

    def output_names(self) -> list[str]:
        """The features, `next_frame`, and the caches to hand in next."""
        options = self.options
        features = ["last", "cls", "registers", *(["camera"] if options.camera_token else [])]
        features += [f"block_{layer}" for layer in options.layers]
        return features + [f"next_{name}" for name in self.input_names()[1:]]

    def dynamic_shapes(self) -> tuple[Any, ...] | None:
        """Which axes of the inputs vary; None for none."""
        return None


class RingOnnxStep(_NamedStep, RingStep):
    """`StaticStep` with its state as input and output. A frame index of 0 restarts a stream."""

    def example_caches(self) -> Caches:
        """Caches of the shape and dtype the step takes."""
        return self.empty_cache(), self.empty_cache()

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"] | UInt8[Tensor, "B 3 H W"],
        frame: Int[Tensor, " B"],
        keys: list[Tensor],
        values: list[Tensor],
    ) -> tuple[Features, Tensor, list[Tensor], list[Tensor]]:
        """Features, the next frame index, and the caches with the new frame in them."""
        keys, values = list(keys), list(values)
        features = self.ring_features(images, frame, keys, values, Tensor.index_copy, True)
        return features, frame + 1, keys, values


class GrowingContext:
    """Appends the new frame to the past and attends to all of it.

    Args:
        keys: Past keys per layer [B, F, P, heads, d]; the entries are replaced by those with F + 1 frames.
        values: As `keys`.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        self.keys, self.values = keys, values

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "1 heads N d"],
        key: Float[Tensor, "1 heads N d"],
        value: Float[Tensor, "1 heads N d"],
    ) -> Float[Tensor, "1 heads N d"]:
        """See `Context.attend`; N runs over the streams and, within each, over the tokens of its frame."""
        B = self.keys[layer].shape[0]
        self.keys[layer] = keys = self._appended(self.keys[layer], key)
        self.values[layer] = values = self._appended(self.values[layer], value)
        out = scaled_dot_product_attention(
            rearrange(query, "1 heads (b p) d -> b heads p d", b=B).to(keys.dtype),
            keys.flatten(1, 2).transpose(1, 2),
            values.flatten(1, 2).transpose(1, 2),
        )
        return rearrange(out, "b heads p d -> 1 heads (b p) d").to(query.dtype)

    @staticmethod
    def _appended(past: Tensor, new: Tensor) -> Tensor:
        new = rearrange(new, "1 heads (b p) d -> b 1 p heads d", b=past.shape[0])
        return torch.cat([past, new.to(past.dtype)], dim=1)


class GrowingOnnxStep(_NamedStep):
    """A step that attends to all frames in its cache, [B, F, P, heads, d] with F >= 0, and to itself."""

    def example_caches(self) -> Caches:
        """Caches of three frames; a tracer treats lengths 0 and 1 as constants."""
        heads, head_dim = self.backbone.num_heads, self.backbone.arch.head_dim
        shape = (self.inputs.batch_size, 3, self.tokens_per_frame, heads, head_dim)
        like = self.backbone.cls_token.detach()
        caches = [like.new_zeros(shape, dtype=self.cache_dtype) for _ in range(2 * self.backbone.num_layers)]
        return caches[: self.backbone.num_layers], caches[self.backbone.num_layers :]

    def dynamic_shapes(self) -> tuple[Any, ...] | None:
        """The number of frames of all caches."""
        frames = torch.export.Dim("frames")
        caches = [{1: frames} for _ in range(self.backbone.num_layers)]
        return (None, None, caches, caches)

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"] | UInt8[Tensor, "B 3 H W"],
        frame: Int[Tensor, " B"],
        keys: list[Tensor],
        values: list[Tensor],
    ) -> tuple[Features, Tensor, list[Tensor], list[Tensor]]:
        """Features, the next frame index, and the caches with the new frame appended."""
        context = GrowingContext(list(keys), list(values))
        features = self.features(images, frame, context)
        return features, frame + 1, context.keys, context.values
