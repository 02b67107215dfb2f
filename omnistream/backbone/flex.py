"""Frame-causal attention of whole clips by FlexAttention: one kernel that skips the blocks that no query may see.

The block mask is computed from frame ranges, never from a (T P)^2 table, and kept per (T, P, window, sink, device).
On CUDA the kernel is compiled once per size, for at most `MAX_COMPILED` sizes in a process, so that clips of varied
sizes do not compile forever. On other devices it runs uncompiled and holds all scores in memory, which only suits
comparisons at small sizes.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128
"""Tokens per block of queries and of keys."""
MAX_COMPILED = 8
"""Limit of compiled sizes; torch stops compiling a function after 8 variants."""

_compiled_sizes: set[tuple[Any, ...]] = set()


def _sees(now: Tensor, then: Tensor, window: int | None, sink: int) -> Tensor:
    """Whether frame `now` sees frame `then`; the arguments broadcast.

    Without a window a frame sees all frames up to itself; with a window W, the first `sink` frames, the latest
    W - sink, and itself: W counts remembered frames, as in the release's streaming.
    """
    visible = then <= now
    if window is not None:
        visible = visible & ((now <= window) | (then < sink) | (now - then <= window - sink))
    return visible


def visible_matrix(num_frames: int, window: int | None, sink: int) -> Bool[Tensor, "T T"]:
    """Which frame (row) sees which (column)."""
    frames = torch.arange(num_frames)
    return _sees(frames[:, None], frames, window, sink)


def _count(table: Int[Tensor, "T T"], first: Int[Tensor, " n"], last: Int[Tensor, " n"]) -> Int[Tensor, "n n"]:
    """Sum of the table over frames first[i]..last[i] by first[j]..last[j], for all pairs of ranges."""
    sums = torch.nn.functional.pad(table.cumsum(0).cumsum(1), (1, 0, 1, 0))
    end = last + 1
    return sums[end][:, end] - sums[first][:, end] - sums[end][:, first] + sums[first][:, first]


@lru_cache(maxsize=64)
def frame_block_mask(num_frames: int, per_frame: int, window: int | None, sink: int, device: torch.device) -> BlockMask:
    """The blocks of a clip that are partly visible and those that are fully visible.

    Args:
        num_frames: T.
        per_frame: P tokens per frame.
        window: Remembered frames; None for all.
        sink: First frames never forgotten.
        device: Device of the mask.
    """
    length = num_frames * per_frame
    starts = torch.arange(0, length, BLOCK)
    first, last = starts // per_frame, (starts + BLOCK - 1).clamp(max=length - 1) // per_frame
    seen = _count(visible_matrix(num_frames, window, sink).long(), first, last)
    frames = last - first + 1
    whole = starts + BLOCK <= length  # a block that reaches beyond the clip is never fully visible
    full = (seen == frames[:, None] * frames) & whole[:, None] & whole
    partial = (seen > 0) & ~full

    def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return _sees(query // per_frame, key // per_frame, window, sink)

    def listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Number of marked blocks in each row, and the columns with the marked ones first."""
        blocks = blocks.to(device)
        order = blocks.int().argsort(dim=1, descending=True, stable=True).int()
        return blocks.sum(1, dtype=torch.int32)[None, None], order[None, None]

    return BlockMask.from_kv_blocks(
        *listed(partial), *listed(full), BLOCK_SIZE=BLOCK, mask_mod=mask_mod, seq_lengths=(length, length)
    )


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


def has_room(size: tuple[Any, ...]) -> bool:
    """Whether clips of this size are compiled already or may still be."""
    return size in _compiled_sizes or len(_compiled_sizes) < MAX_COMPILED


def flex_clip_attention(
    query: Float[Tensor, "B heads N d"],
    key: Float[Tensor, "B heads N d"],
    value: Float[Tensor, "B heads N d"],
    num_frames: int,
    window: int | None,
    sink: int,
    size: tuple[Any, ...] | None = None,
) -> Float[Tensor, "B heads N d"]:
    """Attention of a clip under its frame-causal mask; compiled if `size`, the clip's key for `has_room`, is given."""
    block_mask = frame_block_mask(num_frames, query.shape[2] // num_frames, window, sink, query.device)
    if size is None:
        return flex_attention(query, key, value, block_mask=block_mask)  # type: ignore[return-value]
    _compiled_sizes.add(size)
    return _compiled()(query, key, value, block_mask=block_mask)
