"""The cache of one layer: keys and values of every slot, plain or in 8 bits.

A slot holds the P tokens of one frame. Both stores attend and write in one call, because in the 8-bit store
a frame attends to itself in full precision and later frames attend to its quantised copy.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float, Float32, Int8
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

INT8_MAX = 127

FrameHeads: TypeAlias = Float[Tensor, "R heads P d"]
"""Queries, keys or values of one frame in each of R streams."""


@dataclass(frozen=True)
class StoreShape:
    """Sizes of one layer's memory."""

    batch_size: int
    """Streams B."""
    num_heads: int
    """Attention heads."""
    head_dim: int
    """Width d of a head."""
    tokens_per_frame: int
    """P."""
    capacity: int
    """Slots C."""
    sink: int = 0
    """First slots that the 8-bit store keeps in full precision."""


@dataclass(frozen=True)
class Placement:
    """Device, dtype and layout of a store's tensors."""

    device: torch.device
    """Device."""
    dtype: torch.dtype
    """Dtype of the attention, and of what is stored in full precision."""
    token_major: bool = False
    """Tokens outermost in memory, so that the first n slots are one block (for copies between devices)."""
    pinned: bool = False
    """In page-locked memory of the CPU."""


class Workspace:
    """Memory that the layers use one after the other; grows to the largest request."""

    def __init__(self) -> None:
        self.buffer: Tensor | None = None

    def take(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """An uninitialised tensor of this shape, valid until the next call."""
        size = math.prod(shape)
        stale = self.buffer is None or self.buffer.dtype != like.dtype or self.buffer.device != like.device
        if stale or self.buffer.numel() < size:  # type: ignore[union-attr]
            self.buffer = None  # frees the old one first
            self.buffer = torch.empty(size, dtype=like.dtype, device=like.device)
        return self.buffer[:size].view(shape)  # type: ignore[index]

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return 0 if self.buffer is None else self.buffer.nbytes


class LayerStore(ABC):
    """One layer's tensors, each [B, heads, tokens, width]; subclasses say which and how they are read."""

    def __init__(self, shape: StoreShape, placement: Placement) -> None:
        self.shape, self.placement = shape, placement
        self.tensors = self._allocate(shape.capacity)

    @abstractmethod
    def _parts(self, capacity: int) -> dict[str, tuple[int, int, torch.dtype]]:
        """Slots, width and dtype of each tensor."""

    @abstractmethod
    def attend(
        self, rows: slice, slot: int, num_visible: int, query: FrameHeads, key: FrameHeads, value: FrameHeads
    ) -> FrameHeads:
        """Attention of one new frame over the first `num_visible` slots, its own included, and write it to its slot."""

    def _allocate(self, capacity: int) -> dict[str, Tensor]:
        """Zeroed tensors, so that memory is resident from the start and no uninitialised value is saved."""
        shape, place = self.shape, self.placement
        tensors = {}
        for name, (slots, width, dtype) in self._parts(capacity).items():
            tokens = slots * shape.tokens_per_frame
            size = (shape.batch_size, shape.num_heads, tokens, width)
            if place.token_major:
                size = (tokens, shape.batch_size, shape.num_heads, width)
            tensor = torch.zeros(size, dtype=dtype, device=place.device, pin_memory=place.pinned)
            tensors[name] = tensor.permute(1, 2, 0, 3) if place.token_major else tensor
        return tensors

    def grow(self, capacity: int) -> None:
        """Make room for more slots; existing slots keep their content."""
        grown = self._allocate(capacity)
        for name, old in self.tensors.items():
            grown[name][:, :, : old.shape[2]] = old
        self.tensors = grown
        self.shape = replace(self.shape, capacity=capacity)

    def slots(self, start: int, end: int, rows: slice = slice(None)) -> Iterator[tuple[str, Tensor]]:
        """Views of what is stored for these slots, by name."""
        P = self.shape.tokens_per_frame
        parts = self._parts(self.shape.capacity)
        for name, tensor in self.tensors.items():
            first = self._first_slot(name)
            low, high = (min(max(s - first, 0), parts[name][0]) * P for s in (start, end))
            yield name, tensor[rows, :, low:high]

    def _first_slot(self, name: str) -> int:
        """Slot with which a tensor begins."""
        return 0

    def copy_slots(self, source: "LayerStore", start: int, end: int, rows: slice = slice(None)) -> None:
        """Copy these slots from a store of the same kind, on any device."""
        theirs = dict(source.slots(start, end, rows))
        for name, mine in self.slots(start, end, rows):
            # Tokens first: token-major stores are then contiguous on both sides and copied directly.
            mine.permute(2, 0, 1, 3).copy_(theirs[name].permute(2, 0, 1, 3), non_blocking=True)

    def move(self, device: torch.device) -> "LayerStore":
        """The same content on another device."""
        moved = self.empty_like(replace(self.placement, device=device))
        moved.copy_slots(self, 0, self.shape.capacity)
        if self.placement.device.type == "cuda":
            torch.cuda.synchronize(self.placement.device)  # a copy to the CPU is asynchronous
        return moved

    def empty_like(self, placement: Placement) -> "LayerStore":
        """An empty store of the same kind and size."""
        return self.__class__(self.shape, placement)

    @property
    def num_bytes(self) -> int:
        """Memory held by the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class PlainStore(LayerStore):
    """Keys and values in the dtype of the attention."""

    def _parts(self, capacity: int) -> dict[str, tuple[int, int, torch.dtype]]:
        part = (capacity, self.shape.head_dim, self.placement.dtype)
        return {"keys": part, "values": part}

    def attend(
        self, rows: slice, slot: int, num_visible: int, query: FrameHeads, key: FrameHeads, value: FrameHeads
    ) -> FrameHeads:
        """See `LayerStore.attend`; the attention reads the store in place."""
        P = self.shape.tokens_per_frame
        keys, values = self.tensors["keys"][rows], self.tensors["values"][rows]
        keys[:, :, slot * P : (slot + 1) * P] = key
        values[:, :, slot * P : (slot + 1) * P] = value
        end = num_visible * P
        return scaled_dot_product_attention(query.to(keys.dtype), keys[:, :, :end], values[:, :, :end])


def quantize(
    tokens: Float[Tensor, "B heads N d"],
) -> tuple[Int8[Tensor, "B heads N d"], Float32[Tensor, "B heads N 1"]]:
    """Codes in [-127, 127] and one float32 scale per head and token; their product is the value.

    A float16 scale would be subnormal, and coarse, for values around 1e-4.
    """
    tokens = tokens.float()
    scale = (tokens.abs().amax(-1, keepdim=True) / INT8_MAX).clamp_min(torch.finfo(torch.float32).tiny)
    codes = (tokens / scale).round_().clamp_(-INT8_MAX, INT8_MAX)
    return codes.to(torch.int8), scale


class Int8Store(LayerStore):
    """Keys and values in 8 bits with a float32 scale per head and token; the sink's frames in full precision.

    To attend, a few heads at a time are restored into a workspace that all layers share, so that full-precision copies
    take `WORKSPACE_BYTES` at most, or one head of one layer where that is more. On a CPU, restoring them in float16
    temporarily takes twice as much again, and is slower.
    """

    WORKSPACE_BYTES = {"cpu": 2**24, "cuda": 2**28}  # fits a CPU's cache; a GPU is fastest with all heads at once

    def __init__(self, shape: StoreShape, placement: Placement, workspace: Workspace) -> None:
        self.workspace = workspace
        super().__init__(shape, placement)

    def empty_like(self, placement: Placement) -> "LayerStore":
        """See `LayerStore.empty_like`; the workspace is shared."""
        return Int8Store(self.shape, placement, self.workspace)

    def _parts(self, capacity: int) -> dict[str, tuple[int, int, torch.dtype]]:
        shape, dtype = self.shape, self.placement.dtype
        coded = max(capacity - shape.sink, 0)
        codes, scales = (coded, shape.head_dim, torch.int8), (coded, 1, torch.float32)
        sink = (shape.sink, shape.head_dim, dtype)
        return {
            "key_codes": codes, "value_codes": codes, "key_scales": scales, "value_scales": scales,
            "sink_keys": sink, "sink_values": sink,
        }  # fmt: skip

    def _first_slot(self, name: str) -> int:
        return 0 if name.startswith("sink") else self.shape.sink

    def attend(
        self, rows: slice, slot: int, num_visible: int, query: FrameHeads, key: FrameHeads, value: FrameHeads
    ) -> FrameHeads:
        """See `LayerStore.attend`; the new frame sees itself and the sink in full precision."""
        dtype = self.placement.dtype
        query, new = query.to(dtype), {"key": key.to(dtype), "value": value.to(dtype)}
        num_heads, group = query.shape[1], self._heads_at_once(query, num_visible)
        outputs = []
        for first in range(0, num_heads, group):
            heads = slice(first, min(first + group, num_heads))
            shape = (2, query.shape[0], heads.stop - first, num_visible * query.shape[2], query.shape[3])
            restored = self.workspace.take(shape, query)
            for target, (name, own) in zip(restored, new.items(), strict=True):
                self._restore(target, name, rows, heads, slot, num_visible)
                target[:, :, self._tokens(slot, slot + 1)] = own[:, heads]
            outputs.append(scaled_dot_product_attention(query[:, heads], restored[0], restored[1]))
        self._write(rows, slot, new)
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]

    def _heads_at_once(self, query: Tensor, num_visible: int) -> int:
        """Heads whose keys and values fit the workspace."""
        budget = self.WORKSPACE_BYTES.get(query.device.type, 2**28)
        per_head = 2 * query[:, 0].numel() * num_visible * query.element_size()
        return max(1, budget // per_head)

    def _restore(self, target: Tensor, name: str, rows: slice, heads: slice, slot: int, num_visible: int) -> None:
        """Fill the visible slots other than `slot`, the current frame's."""
        sink = self.shape.sink
        codes, scales = self.tensors[f"{name}_codes"][rows, heads], self.tensors[f"{name}_scales"][rows, heads]
        for start, end in ((0, min(slot, num_visible)), (slot + 1, num_visible)):
            kept = self._tokens(start, min(end, sink))
            if kept.stop > kept.start:
                target[:, :, kept] = self.tensors[f"sink_{name}s"][rows, heads][:, :, kept]
            low = max(start, sink)
            if end > low:
                part, coded = target[:, :, self._tokens(low, end)], self._tokens(low - sink, end - sink)
                if part.device.type == "cpu" and part.dtype != torch.float16:
                    # In place, which is twice as fast here. Only float16 lacks the range for small scales.
                    part.copy_(codes[:, :, coded]).mul_(scales[:, :, coded].to(part.dtype))
                else:
                    torch.mul(codes[:, :, coded], scales[:, :, coded], out=part)

    def _write(self, rows: slice, slot: int, new: dict[str, Tensor]) -> None:
        sink = self.shape.sink
        for name, tokens in new.items():
            if slot < sink:
                self.tensors[f"sink_{name}s"][rows, :, self._tokens(slot, slot + 1)] = tokens
                continue
            at = self._tokens(slot - sink, slot - sink + 1)
            codes, scales = quantize(tokens)
            self.tensors[f"{name}_codes"][rows, :, at] = codes
            self.tensors[f"{name}_scales"][rows, :, at] = scales

    def _tokens(self, start: int, end: int) -> slice:
        P = self.shape.tokens_per_frame
        return slice(start * P, end * P)
