"""Preallocated key-value cache with one slot per frame: never concatenated, never rolled.

Without a window frame n goes to slot n and the capacity doubles when it is reached. With a window of W remembered
frames there are W + 1 slots: the first `sink` frames keep theirs, later ones share the rest in turn. A frame is written
before it attends, so the buffer then holds exactly the frames it may see; their keys carry their positions, so slot
order is irrelevant and no mask is needed.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from omnistream.backbone.attention import check_window

INITIAL_FRAMES = 8


class KVCache:
    """Keys and values of all layers for a batch of streams.

    Args:
        num_layers: L.
        batch_size: Number of streams B.
        tokens_per_frame: P.
        window: Remembered frames; None for all.
        sink: First frames never forgotten.
        max_frames: Without a window: hard limit, allocated at once; None to grow by doubling.
        dtype: Stored dtype, also that of the attention; None for the dtype of the keys.
    """

    def __init__(
        self,
        num_layers: int,
        batch_size: int,
        tokens_per_frame: int,
        window: int | None = None,
        sink: int = 1,
        max_frames: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_window(window, sink)
        if max_frames is not None and max_frames < 1:
            raise ValueError(f"max_frames must be at least 1 (or None to grow), got {max_frames}")
        self.num_layers, self.batch_size, self.tokens_per_frame = num_layers, batch_size, tokens_per_frame
        self.window, self.sink, self.max_frames, self.dtype = window, sink, max_frames, dtype
        self.keys: list[Tensor | None] = [None] * num_layers
        self.values: list[Tensor | None] = [None] * num_layers

    def slot(self, frame: int) -> int:
        """Slot of the frame with this index in its stream."""
        if self.window is None or frame < self.sink:
            return frame
        return self.sink + (frame - self.sink) % (self.window - self.sink + 1)

    def num_visible(self, frame: int) -> int:
        """Frames that this frame sees, itself included."""
        return frame + 1 if self.window is None else min(frame, self.window) + 1

    @property
    def num_bytes(self) -> int:
        """Memory held by the buffers."""
        return sum(t.numel() * t.element_size() for t in [*self.keys, *self.values] if t is not None)

    def reserve(self, layer: int, frames: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Buffers of one layer with room for `frames` frames; grows them if need be.

        Raises:
            ValueError: If `max_frames` would be exceeded.
        """
        if self.window is not None:
            capacity = self.window + 1
        elif self.max_frames is not None:
            if frames > self.max_frames:
                raise ValueError(
                    f"the stream has reached max_frames={self.max_frames}; reset it, raise max_frames, or set a window"
                )
            capacity = self.max_frames
        else:
            capacity = max(INITIAL_FRAMES, 1 << (frames - 1).bit_length())
        old_keys, old_values = self.keys[layer], self.values[layer]
        size = capacity * self.tokens_per_frame
        if old_keys is None or old_values is None or old_keys.shape[2] < size:
            shape = (self.batch_size, like.shape[1], size, like.shape[3])
            keys = like.new_zeros(shape, dtype=self.dtype or like.dtype)
            values = torch.zeros_like(keys)
            if old_keys is not None and old_values is not None:
                keys[:, :, : old_keys.shape[2]] = old_keys
                values[:, :, : old_values.shape[2]] = old_values
            self.keys[layer], self.values[layer] = keys, values
            return keys, values
        return old_keys, old_values

    def clone(self) -> "KVCache":
        """An independent copy."""
        copy = KVCache(
            self.num_layers,
            self.batch_size,
            self.tokens_per_frame,
            self.window,
            self.sink,
            self.max_frames,
            self.dtype,
        )
        copy.keys = [None if t is None else t.clone() for t in self.keys]
        copy.values = [None if t is None else t.clone() for t in self.values]
        return copy


class CacheContext:
    """Attention of new frames against a cache, writing them to it; one per step.

    Args:
        cache: The cache.
        start: Index of the first new frame in its stream.
        rows: Streams that take part, when they do not all stand at the same frame; None for all.
    """

    def __init__(self, cache: KVCache, start: int, rows: Int[Tensor, " R"] | None = None) -> None:
        self.cache, self.start, self.rows = cache, start, rows

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "B heads N d"],
        key: Float[Tensor, "B heads N d"],
        value: Float[Tensor, "B heads N d"],
    ) -> Float[Tensor, "B heads N d"]:
        """Write each frame to its slot, then let it attend to all that is visible."""
        cache, P = self.cache, self.cache.tokens_per_frame
        num_frames = query.shape[2] // P
        keys, values = cache.reserve(layer, self.start + num_frames, key)
        rows = slice(None) if self.rows is None else self.rows
        outputs = []
        for i in range(num_frames):
            new = slice(i * P, (i + 1) * P)
            slot = cache.slot(self.start + i)
            keys[rows, :, slot * P : (slot + 1) * P] = key[:, :, new].to(keys.dtype)
            values[rows, :, slot * P : (slot + 1) * P] = value[:, :, new].to(values.dtype)
            end = cache.num_visible(self.start + i) * P
            frame_query = query[:, :, new].to(keys.dtype)
            outputs.append(scaled_dot_product_attention(frame_query, keys[rows, :, :end], values[rows, :, :end]))
        return torch.cat(outputs, dim=2).to(query.dtype)
