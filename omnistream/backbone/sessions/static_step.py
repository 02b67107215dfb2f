"""The step of a stream as one graph: its state has fixed shapes and addresses, and no value is kept in Python.

`StreamSession` counts frames in Python and slices its cache, so a compiler would recompile at every length. Here the
count is a tensor, the slot to write is computed from it, and empty slots are masked. An input flag restarts a stream.
"""

import copy
from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from omnistream.backbone.model import StreamingViT
from omnistream.backbone.sessions.frame_step import Features, FrameStep, StepInput
from omnistream.backbone.sessions.options import SessionOptions


def ring_slot(frame: Int[Tensor, " B"], num_slots: int, sink: int) -> Int[Tensor, " B"]:
    """Slot of the frame with this index: `KVCache.slot` in tensor arithmetic."""
    return torch.where(frame < sink, frame, sink + (frame - sink) % (num_slots - sink))


class RingContext:
    """Writes the new frame of each stream to its slot and attends to the stream's slots.

    A cache tensor is [B * slots, P, heads, d]: to write a frame is to replace one entry of the first axis, and the
    slots of a stream, read as [heads, slots * P, d], are a view.

    Args:
        keys: One cache tensor per layer; the entries are replaced by the results of `write`.
        values: As `keys`.
        frame: Index of the new frame in each stream [B].
        sink: First frames never forgotten.
        mask: Zero for the tokens of a stream that hold frames, else minus infinity [B, 1, 1, slots * P]; None when all
            hold frames.
        write: `Tensor.index_copy_` to change the cache, `Tensor.index_copy` to make a new one.
    """

    def __init__(
        self,
        keys: list[Tensor],
        values: list[Tensor],
        frame: Tensor,
        sink: int,
        mask: Tensor | None,
        write: Callable[..., Tensor],
    ) -> None:
        self.keys, self.values, self.mask, self.write = keys, values, mask, write
        self.batch_size = frame.shape[0]
        num_slots = keys[0].shape[0] // self.batch_size
        first_slot = num_slots * torch.arange(self.batch_size, device=frame.device)
        self.entry = first_slot + ring_slot(frame, num_slots, sink)

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "1 heads N d"],
        key: Float[Tensor, "1 heads N d"],
        value: Float[Tensor, "1 heads N d"],
    ) -> Float[Tensor, "1 heads N d"]:
        """See `Context.attend`; N runs over the streams and, within each, over the tokens of its frame."""
        B = self.batch_size
        self.keys[layer] = keys = self._written(self.keys[layer], key)
        self.values[layer] = values = self._written(self.values[layer], value)
        out = scaled_dot_product_attention(
            rearrange(query, "1 heads (b p) d -> b heads p d", b=B).to(keys.dtype),
            rearrange(keys, "(b c) p heads d -> b heads (c p) d", b=B),
            rearrange(values, "(b c) p heads d -> b heads (c p) d", b=B),
            attn_mask=self.mask,
        )
        return rearrange(out, "b heads p d -> 1 heads (b p) d").to(query.dtype)

    def _written(self, cache: Tensor, new: Tensor) -> Tensor:
        new = rearrange(new, "1 heads (b p) d -> b p heads d", b=self.batch_size)
        return self.write(cache, 0, self.entry, new.to(cache.dtype))


class RingStep(FrameStep):
    """A step over a ring of frame slots that the caller owns.

    Args:
        backbone: See `FrameStep`.
        options: See `FrameStep`.
        inputs: See `FrameStep`.
        num_slots: Frame slots per stream; default W + 1. With fewer the step is correct as long as no stream has more
            frames than that.

    Raises:
        ValueError: If there is neither a window nor a number of slots, or an option does not fit the backbone.
    """

    slot_of_token: Tensor

    def __init__(
        self, backbone: StreamingViT, options: SessionOptions, inputs: StepInput, num_slots: int | None = None
    ) -> None:
        super().__init__(backbone, options, inputs)
        window = self.options.window
        if num_slots is None:
            if window is None:
                raise ValueError("a ring needs a window; for a stream of at most N frames window=N - 1 forgets nothing")
            num_slots = window + 1
        self._set_slots(num_slots)

    def _set_slots(self, num_slots: int) -> None:
        slots = torch.arange(num_slots, device=self.backbone.cls_token.device)
        self.register_buffer("slot_of_token", slots.repeat_interleave(self.tokens_per_frame), persistent=False)
        self.num_slots = num_slots

    def empty_cache(self) -> list[Tensor]:
        """One zeroed cache tensor per layer, [B * slots, P, heads, d]."""
        return [self.empty_slots(self.num_slots) for _ in range(self.backbone.num_layers)]

    def empty_slots(self, num_slots: int) -> Float[Tensor, "entries P heads d"]:
        """One zeroed cache tensor with so many slots per stream."""
        entries = self.inputs.batch_size * num_slots
        shape = (entries, self.tokens_per_frame, self.backbone.num_heads, self.backbone.arch.head_dim)
        return self.backbone.cls_token.detach().new_zeros(shape, dtype=self.cache_dtype)

    def ring_features(
        self,
        images: Tensor,
        frame: Tensor,
        keys: list[Tensor],
        values: list[Tensor],
        write: Callable[..., Tensor],
        masked: bool,
    ) -> Features:
        """Features of the frames with the indices `frame` [B]; `keys`, `values` come to hold what `write` returns."""
        mask = None
        if masked:
            # Added to the scores: in ONNX, a boolean mask adds a check for rows without any token.
            hidden = torch.where(self.slot_of_token <= frame[:, None], 0.0, -torch.inf)
            mask = hidden.to(self.cache_dtype)[:, None, None]
        sink = min(self.options.sink, self.num_slots - 1)  # with fewer slots no frame is forgotten yet
        context = RingContext(keys, values, frame, sink, mask, write)
        return self.features(images, frame, context)


class StaticStep(RingStep):
    """The step with its state: caches and frame counts are buffers that `forward` changes in place.

    Frames must be finite: a NaN in a slot survives the reset flag until the slot is written again, since the mask
    multiplies by zero. `restart` clears it.

    Args:
        backbone: See `FrameStep`.
        options: See `FrameStep`.
        inputs: See `FrameStep`.
        num_slots: See `RingStep`.

    Example:
        >>> from omnistream.backbone import create_model
        >>> step = StaticStep(create_model("vit_nano"), SessionOptions(window=4), StepInput(image_size=(32, 32)))
        >>> step(torch.rand(1, 3, 32, 32), torch.tensor([False]))["last"].shape
        torch.Size([1, 4, 4, 64])
    """

    frame: Tensor

    def __init__(
        self, backbone: StreamingViT, options: SessionOptions, inputs: StepInput, num_slots: int | None = None
    ) -> None:
        super().__init__(backbone, options, inputs, num_slots)
        self.register_buffer("frame", self.new_frame_count(), persistent=False)
        self._set_cache(self.empty_cache(), self.empty_cache())

    def _set_cache(self, keys: list[Tensor], values: list[Tensor]) -> None:
        for i, (key, value) in enumerate(zip(keys, values, strict=True)):
            self.register_buffer(f"keys_{i}", key, persistent=False)
            self.register_buffer(f"values_{i}", value, persistent=False)

    def cache(self) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values per layer: the buffers themselves."""
        layers = range(self.backbone.num_layers)
        return [getattr(self, f"keys_{i}") for i in layers], [getattr(self, f"values_{i}") for i in layers]

    @torch.no_grad()
    def forward(
        self,
        images: Float[Tensor, "B 3 H W"] | UInt8[Tensor, "B 3 H W"],
        reset: Bool[Tensor, " B"],
        masked: bool = True,
    ) -> Features:
        """Features of the next frame of every stream.

        Args:
            images: One frame per stream, normalised unless the step does that.
            reset: True where a stream restarts with this frame.
            masked: Mask empty slots. False is faster, and correct only once every stream has filled its ring.
        """
        frame = torch.where(reset, 0, self.frame)
        keys, values = self.cache()
        features = self.ring_features(images, frame, keys, values, Tensor.index_copy_, masked)
        self.frame.copy_(frame + 1)
        return features

    @torch.no_grad()
    def restart(self, rows: Int[Tensor, " R"]) -> None:
        """Restart these streams between two steps; unlike the flag of `forward`, this also clears their slots."""
        self.frame[rows] = 0
        keys, values = self.cache()
        for buffer in (*keys, *values):
            rearrange(buffer, "(b c) p heads d -> b c p heads d", b=self.inputs.batch_size)[rows] = 0

    @torch.no_grad()
    def grow(self, num_slots: int) -> None:
        """Add slots while no stream has more frames than slots; every frame keeps its slot.

        The buffers are replaced one after the other, so memory for one more is enough, and a compiled step is compiled
        again for the new size. If memory runs out, no frame is lost and `grow` can be called again, but no step can be
        made before it has succeeded.
        """
        for i in range(self.backbone.num_layers):
            for name in (f"keys_{i}", f"values_{i}"):
                self._grow_buffer(name, num_slots)
        self._set_slots(num_slots)  # last, so that a failed attempt is repeated

    def _grow_buffer(self, name: str, num_slots: int) -> None:
        """Replace a cache buffer, unless an earlier attempt did, by one with more slots."""
        by_stream, B = "(b c) p heads d -> b c p heads d", self.inputs.batch_size
        old = rearrange(getattr(self, name), by_stream, b=B)
        if old.shape[1] < num_slots:
            new = self.empty_slots(num_slots)
            rearrange(new, by_stream, b=B)[:, : old.shape[1]] = old
            self.register_buffer(name, new, persistent=False)

    def copied(self, device: torch.device) -> "StaticStep":
        """A copy of the step with its own state, on this device; the backbone is shared and not moved."""
        buffers = [*self.buffers(recurse=False), *self.rope.buffers()]
        shared = {id(self.backbone): self.backbone}
        return copy.deepcopy(self, shared | {id(t): t.to(device, copy=True) for t in buffers})

    def stored(self, num_slots: int) -> list[dict[str, Tensor]]:
        """Copies of the first slots per layer, `keys` and `values` [B, heads, slots * P, d]; see `KVCache.state`."""
        return [
            {
                name: rearrange(slots[:, :, :num_slots], "b h c p d -> b h (c p) d").clone()
                for name, slots in layer.items()
            }
            for layer in self._by_stream()
        ]

    @torch.no_grad()
    def fill(self, layers: list[dict[str, Tensor]], frame: Int[Tensor, " B"]) -> None:
        """Restore what `stored` returned for streams that have seen this many frames; nothing if no layer is given.

        Slots that a stream has not written stay zero, whatever is stored there.
        """
        for mine, theirs in zip(self._by_stream(), layers, strict=False):
            for name, slots in mine.items():
                stored = rearrange(theirs[name], "b h (c p) d -> b h c p d", p=self.tokens_per_frame)
                for row, seen in enumerate(frame.tolist()):
                    used = min(seen, stored.shape[2])
                    slots[row, :, :used] = stored[row, :, :used]
        self.frame.copy_(frame)

    def _by_stream(self) -> list[dict[str, Tensor]]:
        """Views of the caches, [B, heads, slots, P, d]."""
        return [
            {
                name: rearrange(buffer, "(b c) p h d -> b h c p d", b=self.inputs.batch_size)
                for name, buffer in (("keys", keys), ("values", values))
            }
            for keys, values in zip(*self.cache(), strict=True)
        ]
