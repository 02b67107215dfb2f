"""Preallocated key-value cache with one slot per frame: never concatenated, never rolled.

Without a window frame n goes to slot n and the capacity doubles when it is reached. With a window of W remembered
frames there are W + 1 slots: the first `sink` frames keep theirs, later ones share the rest in turn. A new frame
takes the slot of the frame that just left its window, so the slots then hold exactly the frames it attends to; keys
carry their positions, so the order of slots is irrelevant and no mask is needed.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from omnistream.backbone.attention import check_window
from omnistream.backbone.sessions.checks import described, require_keys, saved_dtype
from omnistream.backbone.sessions.kv_offload import Offload
from omnistream.backbone.sessions.kv_store import Int8Store, LayerStore, Placement, PlainStore, StoreShape, Workspace

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
        dtype: Stored dtype, also that of the attention; None for the dtype of the keys. `torch.int8` stores 8-bit codes
            and attends in the dtype of the keys.
        offload: Keep the layers in CPU memory and bring them to the device of the keys one at a time.

    Raises:
        ValueError: For a window that cannot hold its sink, or `max_frames` below 1 or beside a window.
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
        offload: bool = False,
    ) -> None:
        check_window(window, sink)
        if max_frames is not None and max_frames < 1:
            raise ValueError(f"max_frames must be at least 1 (or None to grow), got {max_frames}")
        if max_frames is not None and window is not None:
            raise ValueError(f"max_frames is for streams without a window (here {window}); pass window=None")
        self.num_layers, self.batch_size, self.tokens_per_frame = num_layers, batch_size, tokens_per_frame
        self.window, self.sink, self.max_frames, self.dtype, self.offload = window, sink, max_frames, dtype, offload
        self.stores: list[LayerStore | None] = [None] * num_layers
        self._workspace = Workspace()
        self._offload: Offload | None = None

    def slot(self, frame: int) -> int:
        """Slot of the frame with this index in its stream."""
        if self.window is None or frame < self.sink:
            return frame
        return self.sink + (frame - self.sink) % (self.window - self.sink + 1)

    def num_visible(self, frame: int) -> int:
        """Number of frames that this frame attends to, itself included; they are in the first slots."""
        return frame + 1 if self.window is None else min(frame, self.window) + 1

    def num_used(self, frames: int) -> int:
        """Number of slots that a stream of this many frames has written."""
        return frames if self.window is None else min(frames, self.window + 1)

    @property
    def num_bytes(self) -> int:
        """Memory held: all layers, and what the attention of 8-bit or offloaded layers works in."""
        staged = 0 if self._offload is None else self._offload.num_bytes
        return sum(store.num_bytes for store in self.stores if store is not None) + self._workspace.num_bytes + staged

    def capacity(self, frames: int) -> int:
        """Number of slots for a stream of this many frames.

        Raises:
            ValueError: If `max_frames` would be exceeded.
        """
        if self.window is not None:
            return self.window + 1
        if self.max_frames is None:
            return max(INITIAL_FRAMES, 1 << (frames - 1).bit_length())
        if frames > self.max_frames:
            raise ValueError(
                f"the stream has reached max_frames={self.max_frames}; reset it, raise max_frames, or set a window"
            )
        return self.max_frames

    def open(self, layer: int, seen: int, new: int, like: Tensor) -> LayerStore:
        """A layer ready to attend: with room for `new` frames after the `seen` ones, on the device of `like`."""
        store = self._reserve(layer, seen + new, like)
        if not self.offload:
            return store
        assert self._offload is not None
        used = self.num_used(seen)
        stage = self._offload.fetch(layer, store, used)
        if layer + 1 < self.num_layers:
            self._offload.prefetch(layer + 1, self._reserve(layer + 1, seen + new, like), used)
        return stage

    def written(self, layer: int, stage: LayerStore, slot: int, rows: slice) -> None:
        """Called after a frame has been written to an opened layer."""
        store = self.stores[layer]
        if self._offload is not None and store is not None:
            self._offload.save(store, stage, slot, rows)

    def _reserve(self, layer: int, frames: int, like: Tensor) -> LayerStore:
        capacity, store = self.capacity(frames), self.stores[layer]
        if store is None:
            dtype = like.dtype if self.dtype in (None, torch.int8) else self.dtype
            placement = Placement(like.device, dtype)  # type: ignore[arg-type]
            store = self._allocate(layer, capacity, like.shape[1], like.shape[3], placement)
        elif store.shape.capacity < capacity:
            self._settle()
            store.grow(capacity)
        return store

    def _allocate(self, layer: int, capacity: int, heads: int, head_dim: int, placement: Placement) -> LayerStore:
        sink = self.sink if self.dtype == torch.int8 else 0
        shape = StoreShape(self.batch_size, heads, head_dim, self.tokens_per_frame, capacity, sink)
        if self.offload:
            self._offload = self._offload or Offload(placement.device)
            placement = self._offload.host(placement)
        store = (
            Int8Store(shape, placement, self._workspace) if self.dtype == torch.int8 else PlainStore(shape, placement)
        )
        self.stores[layer] = store
        return store

    def clone(self) -> "KVCache":
        """An independent copy."""
        copy = KVCache(
            self.num_layers, self.batch_size, self.tokens_per_frame,
            self.window, self.sink, self.max_frames, self.dtype, self.offload,
        )  # fmt: skip
        self._settle()
        for layer, store in enumerate(self.stores):
            if store is not None:
                shape, device = store.shape, store.placement.device if self._offload is None else self._offload.device
                placement = Placement(device, store.placement.dtype)
                mine = copy._allocate(layer, shape.capacity, shape.num_heads, shape.head_dim, placement)
                mine.copy_slots(store, 0, shape.capacity)
        return copy

    def to(self, device: torch.device) -> None:
        """Move to another device, or attend there from now on where the layers rest in CPU memory."""
        if self._offload is not None:
            self._settle()
            self._offload = Offload(device)
        else:
            for layer, store in enumerate(self.stores):  # one by one, so that at most one layer exists twice
                if store is not None:
                    self.stores[layer] = store.move(device)
        self._workspace.buffer = None

    def state(self, slots: int) -> dict[str, Any]:
        """Content of the first `slots` slots, as copies and plain values."""
        self._settle()
        layers = [
            None if store is None else {name: tensor.clone() for name, tensor in store.slots(0, slots)}
            for store in self.stores
        ]
        first = next((store for store in self.stores if store is not None), None)
        return {
            "slots": slots,
            "layers": layers,
            "heads": None if first is None else (first.shape.num_heads, first.shape.head_dim),
            "dtype": None if first is None else str(first.placement.dtype).removeprefix("torch."),
        }

    def load_state(self, state: dict[str, Any], device: torch.device, num_frames: int, heads: tuple[int, int]) -> None:
        """Restore what `state` returned, on this device.

        Args:
            state: See `state`.
            device: Device of the attention.
            num_frames: Frames of the longest stream; determines how many slots are in use.
            heads: Number and width of the model's attention heads.

        Raises:
            ValueError: If something is missing, or has other sizes than this cache.
        """
        require_keys(state, ("slots", "layers", "heads", "dtype"), "its cache")
        slots, layers = state["slots"], state["layers"]
        if slots != (used := self.num_used(num_frames)):
            raise ValueError(f"the saved cache holds {slots} frames, a stream of {num_frames} frames leaves {used}")
        if not isinstance(layers, list) or len(layers) != self.num_layers:
            got = len(layers) if isinstance(layers, list) else type(layers).__name__
            raise ValueError(f"the saved cache must have {self.num_layers} layers, got {got}; was it another model?")
        if slots == 0 and all(tensors is None for tensors in layers):
            return
        if state["heads"] is None or tuple(state["heads"]) != heads:
            raise ValueError(f"the saved cache has heads (number, width) {state['heads']}, the model has {heads}")
        placement = Placement(device, saved_dtype(state["dtype"]))
        for layer, tensors in enumerate(layers):
            store = self._allocate(layer, self.capacity(slots), *heads, placement)
            self._load_layer(layer, dict(store.slots(0, slots)), tensors)

    @staticmethod
    def _load_layer(layer: int, mine: dict[str, Tensor], theirs: Any) -> None:
        require_keys(theirs, list(mine), f"layer {layer} of its cache")
        for name, tensor in mine.items():
            saved = theirs[name]
            if described(saved) != described(tensor):
                raise ValueError(
                    f"the saved {name} of layer {layer} have {described(saved)}, this session's have "
                    f"{described(tensor)}; was it another model or image size?"
                )
            tensor.copy_(saved)

    def _settle(self) -> None:
        """Wait for pending copies to CPU memory before the CPU reads them."""
        if self._offload is not None:
            self._offload.finish()


class CacheContext:
    """Attention of new frames against a cache, writing them to it; one per step.

    Args:
        cache: The cache.
        starts: Index of the first new frame of each stream, on the CPU.
    """

    def __init__(self, cache: KVCache, starts: Int[Tensor, " B"]) -> None:
        self.cache, self.seen = cache, int(starts.max())
        values, counts = (part.tolist() for part in starts.unique_consecutive(return_counts=True))
        # Neighbouring streams at the same frame attend together; a slice of rows is a view of the cache, not a copy.
        self.runs, first = [], 0
        for start, count in zip(values, counts, strict=True):
            self.runs.append((slice(first, first + count), start))
            first += count

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "B heads N d"],
        key: Float[Tensor, "B heads N d"],
        value: Float[Tensor, "B heads N d"],
    ) -> Float[Tensor, "B heads N d"]:
        """Each frame attends to all frames visible to it and is then stored."""
        num_frames = query.shape[2] // self.cache.tokens_per_frame
        store = self.cache.open(layer, self.seen, num_frames, key)
        outputs = []
        for rows, start in self.runs:
            frames = zip(*(t[rows].chunk(num_frames, dim=2) for t in (query, key, value)), strict=True)
            row_outputs = []
            for frame, tensors in enumerate(frames, start):
                slot = self.cache.slot(frame)
                row_outputs.append(store.attend(rows, slot, self.cache.num_visible(frame), *tensors))
                self.cache.written(layer, store, slot, rows)
            outputs.append(torch.cat(row_outputs, dim=2) if num_frames > 1 else row_outputs[0])
        return (torch.cat(outputs) if len(outputs) > 1 else outputs[0]).to(query.dtype)
