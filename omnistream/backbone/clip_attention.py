"""The kernel for the attention of whole clips: prefixes (SDPA per frame), FlexAttention, or the faster of the two.

Both give the same result. The choice is made once per kind of clip and kept for the process:

- On CUDA both are timed, forward and, where gradients are needed, backward.
- On other devices prefixes are used without timing. Measured on a CPU (one thread, torch 2.14.1, float32): ViT-S at 224
  px, T=16: 130 ms by prefixes against 186 ms compiled by FlexAttention; ViT-tiny at 64 px, T=8, batch 4: 7 against 20
  ms. Compiling took 9 to 87 s, and there is no backward pass on a CPU.

Compiled models choose as well: the attention of clips stays outside their graphs. Exported models use prefixes.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from omnistream.backbone.flex import MAX_COMPILED, flex_clip_attention, has_room

logger = logging.getLogger(__name__)

AttentionChoice = Literal["auto", "prefix", "flex"]
REPEATS = 3


def check_attention(choice: str) -> None:
    """Check the name of a kernel.

    Raises:
        ValueError: If the kernel is unknown.
    """
    if choice not in get_args(AttentionChoice):
        raise ValueError(f"attention must be one of {get_args(AttentionChoice)}, got {choice!r}")


@dataclass(frozen=True)
class ClipKind:
    """Everything that the speed of a clip's attention depends on."""

    device: torch.device
    """Device on which it runs."""
    dtype: torch.dtype
    """Dtype of queries, keys and values."""
    batch_size: int
    """Clips B."""
    num_heads: int
    """Attention heads."""
    head_dim: int
    """Width d of a head."""
    num_frames: int
    """T."""
    per_frame: int
    """Tokens P of a frame."""
    window: int | None
    """Remembered frames; None for all."""
    sink: int
    """First frames never forgotten."""
    needs_grad: bool
    """Whether a backward pass follows."""


def prefix_attention(
    query: Float[Tensor, "B heads N d"],
    key: Float[Tensor, "B heads N d"],
    value: Float[Tensor, "B heads N d"],
    num_frames: int,
    window: int | None,
    sink: int,
) -> Float[Tensor, "B heads N d"]:
    """Attention of each frame's queries over the prefix of keys they may see, without a mask."""
    per_frame = query.shape[2] // num_frames

    def seen(tokens: Tensor, frame: int) -> Tensor:
        end = (frame + 1) * per_frame
        if window is None or frame <= window:
            return tokens[:, :, :end]
        start = (frame - (window - sink)) * per_frame
        if sink == 0:
            return tokens[:, :, start:end]
        return torch.cat([tokens[:, :, : sink * per_frame], tokens[:, :, start:end]], dim=2)

    outputs = [
        scaled_dot_product_attention(frame_query, seen(key, frame), seen(value, frame))
        for frame, frame_query in enumerate(query.split(per_frame, dim=2))
    ]
    return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]


def clip_attention(
    query: Float[Tensor, "B heads N d"],
    key: Float[Tensor, "B heads N d"],
    value: Float[Tensor, "B heads N d"],
    num_frames: int,
    window: int | None,
    sink: int,
    choice: AttentionChoice,
) -> Float[Tensor, "B heads N d"]:
    """Frame-causal attention of a clip with the given kernel, or with the faster one for `auto`."""
    tensors = (query, key, value)
    # A single frame sees only itself; an exported graph runs where timing is impossible.
    if choice == "prefix" or num_frames == 1 or (choice == "auto" and torch.compiler.is_exporting()):
        return prefix_attention(*tensors, num_frames, window, sink)
    return choose_and_run(tensors, num_frames, window, sink, choice)


@torch.compiler.disable(reason="a compiler that traces cannot time; the kernels are compiled on their own")
def choose_and_run(
    tensors: tuple[Tensor, Tensor, Tensor], num_frames: int, window: int | None, sink: int, choice: AttentionChoice
) -> Tensor:
    """Attention of a clip of several frames; a graph break in a model that is compiled."""
    query = tensors[0]
    B, heads, N, d = query.shape
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    kind = ClipKind(query.device, query.dtype, B, heads, d, num_frames, N // num_frames, window, sink, needs_grad)
    if choice == "auto":
        choice = choose(kind)
    return run(choice, tensors, kind)


def run(choice: AttentionChoice, tensors: tuple[Tensor, Tensor, Tensor], kind: ClipKind) -> Tensor:
    """Attention of a clip of this kind with one kernel; past the limit of compiled sizes, prefixes replace flex."""
    how = (kind.num_frames, kind.window, kind.sink)
    if choice == "prefix":
        return prefix_attention(*tensors, *how)
    if kind.device.type == "cpu" and kind.needs_grad:
        raise ValueError("FlexAttention has no backward pass on a CPU; use attention='auto' or 'prefix' there")
    if kind.device.type != "cuda" or torch.compiler.is_compiling():
        return flex_clip_attention(*tensors, *how)
    if not has_room(astuple(kind)):
        _report_too_many()
        return prefix_attention(*tensors, *how)
    return flex_clip_attention(*tensors, *how, size=astuple(kind))


@lru_cache(maxsize=1)
def _report_too_many() -> None:
    logger.warning("FlexAttention is compiled for %d clip sizes; further sizes use prefixes", MAX_COMPILED)


@lru_cache(maxsize=1024)
def choose(kind: ClipKind) -> Literal["prefix", "flex"]:
    """The faster kernel for this kind of clip, or the only one that fits in memory; see the module.

    Raises:
        torch.OutOfMemoryError: If prefixes do not fit in memory, and FlexAttention cannot be used either.
    """
    if kind.device.type != "cuda" or not has_room(astuple(kind)):
        return "prefix"
    seconds, too_large = {}, None
    try:
        seconds["prefix"] = measure(lambda tensors: run("prefix", tensors, kind), kind)
    except torch.OutOfMemoryError as error:
        too_large = error.with_traceback(None)  # whose frames would keep the tensors
    try:
        seconds["flex"] = measure(lambda tensors: run("flex", tensors, kind), kind)
    except Exception as error:  # whatever the compiler or its kernel objects to
        if too_large is not None:
            raise too_large from error
        logger.warning("FlexAttention cannot be used for %s, using prefixes: %s", kind, error)
    best = min(seconds, key=lambda name: seconds[name])
    logger.info("attention of %s: %s (%s)", kind, best, seconds)
    return "flex" if best == "flex" else "prefix"


def measure(attend: Callable[[tuple[Tensor, Tensor, Tensor]], Tensor], kind: ClipKind) -> float:
    """Seconds of the fastest of several passes after a warm-up. The inputs are ones, so no random numbers are drawn."""
    size = (kind.batch_size, kind.num_heads, kind.num_frames * kind.per_frame, kind.head_dim)
    best = float("inf")
    # Innermost hooks win: activation checkpointing around us must not count what is saved here.
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
    with hooks, torch.enable_grad() if kind.needs_grad else torch.no_grad():
        query, key, value = (
            torch.ones(size, dtype=kind.dtype, device=kind.device, requires_grad=kind.needs_grad) for _ in range(3)
        )
        for repeat in range(1 + REPEATS):
            start = time.perf_counter()
            output = attend((query, key, value))
            if kind.needs_grad:
                torch.autograd.grad(output.sum(), (query, key, value))
            if kind.device.type == "cuda":
                torch.cuda.synchronize(kind.device)
            if repeat:
                best = min(best, time.perf_counter() - start)
    return best
