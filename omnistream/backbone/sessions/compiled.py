"""A compiled streaming session: a few graphs while the window fills, one once it is full."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from omnistream.backbone.model import StreamingViT
from omnistream.backbone.output import BackboneOutput
from omnistream.backbone.sessions.frame_step import Features, StepInput
from omnistream.backbone.sessions.heads import StreamHead
from omnistream.backbone.sessions.kv_cache import KVCache
from omnistream.backbone.sessions.options import SessionOptions
from omnistream.backbone.sessions.session import Layout, Session
from omnistream.backbone.sessions.static_step import StaticStep

FIRST_SLOTS = 8
"""Frame slots at the start; they double until the window or `max_frames` is reached, so few lengths are compiled."""
MANY = 1 << 20


class CompiledSession(Session):
    """Encodes B streams frame by frame like `StreamSession`, through `torch.compile`.

    The cache holds 8, 16, 32, ... frames while the stream grows, and each of these sizes is compiled once, when it is
    reached; slots that are still empty are masked. With a window the sizes end at W + 1 slots. From then on the mask is
    gone and every step runs one and the same graph: no memory is allocated, nothing waits for the device. Without a
    window the last size is `max_frames`, or there is no last one.

    On CUDA the default mode records CUDA graphs. Features are copied out of their memory, which the next step
    overwrites, so they stay valid as long as they are kept.

    Args:
        backbone: Model to use; it is not copied.
        options: With `compiled=True`.
        aspect_ratio: See `StreamSession`.
        heads: See `StreamSession`. They run as they are.

    Raises:
        ValueError: If an option does not fit the backbone or a compiled step.
    """

    def __init__(
        self,
        backbone: StreamingViT,
        options: SessionOptions = SessionOptions(compiled=True),  # noqa: B008 (frozen)
        *,
        aspect_ratio: Float[Tensor, " B"] | None = None,
        heads: Mapping[str, StreamHead] | None = None,
    ) -> None:
        super().__init__(backbone, replace(options, compiled=True), aspect_ratio, heads)
        self.static: StaticStep | None = None
        """The step that is compiled, with the cache; None before the first frame."""

    def _begin(self, layout: Layout) -> None:
        self._use(self._new_step(layout, self._bounded(FIRST_SLOTS)))

    def _new_step(self, layout: Layout, num_slots: int) -> StaticStep:
        ratio = None if self.aspect_ratio is None else tuple(self.aspect_ratio.tolist())
        if ratio is None and self._head_reads_camera:
            ratio = (layout.height / layout.width,) * layout.batch_size
        inputs = StepInput(image_size=(layout.height, layout.width), batch_size=layout.batch_size, aspect_ratio=ratio)
        return StaticStep(self.backbone, replace(self.options, layers=self._encoded_layers), inputs, num_slots)

    def _use(self, step: StaticStep) -> None:
        import torch._dynamo  # takes a second

        device = step.frame.device
        backend, mode = self.options.backend, self.options.mode
        if mode is None and device.type == "cuda" and backend == "inductor":
            mode = "reduce-overhead"
        self._compiled = torch.compile(step, fullgraph=True, dynamic=False, backend=backend, mode=mode)
        self._no_reset = torch.zeros(len(step.frame), dtype=torch.bool, device=device)
        # The input keeps one address and one layout, however many frames a step has.
        self._images = step.blank_images().to(device)
        self._fix_addresses(step)
        self.static = step

    def _check(self, frames: Tensor) -> None:
        super()._check(frames)
        if (begun := self._images.dtype) != (now := self.backbone.cls_token.dtype):
            raise ValueError(f"the backbone was {begun} when this session began and is {now} now; open another session")
        self._slots.capacity(int(self.frame_indices.max()) + frames.shape[1])  # raises beyond `max_frames`

    def _encode(self, frames: Tensor) -> BackboneOutput:
        """One frame after the other."""
        step = self.static
        assert step is not None
        step.frame.copy_(self.frame_indices, non_blocking=True)  # a failed step may have advanced it
        outputs = [self._next(step, images, self.frame_indices + i) for i, images in enumerate(frames.unbind(1))]
        stacked = {name: torch.stack([output[name] for output in outputs], dim=1) for name in outputs[0]}
        return BackboneOutput(
            patches={layer: stacked[f"block_{layer}"] for layer in self._encoded_layers},
            last=stacked["last"],
            cls=stacked["cls"],
            registers=stacked["registers"],
            camera=stacked.get("camera"),
        )

    def _bounded(self, num_slots: int) -> int:
        window = self.options.window
        limit = self.options.max_frames if window is None else window + 1
        return num_slots if limit is None else min(num_slots, limit)

    def _fix_addresses(self, step: StaticStep) -> None:
        """Mark the state as static, so that a CUDA graph may change it in place."""
        keys, values = step.cache()
        for buffer in (step.frame, *keys, *values, self._images, self._no_reset):
            # Without guards (torch 2.9 adds them by default) forks and other sessions reuse the compiled code.
            torch._dynamo.mark_static_address(buffer, guard=False)

    def _next(self, step: StaticStep, images: Tensor, seen: Tensor) -> Features:
        """Features of one frame per stream, copied out of the memory of the graph."""
        if int(seen.max()) >= step.num_slots < (more := self._bounded(2 * step.num_slots)):
            step.grow(more)
            self._fix_addresses(step)
        # A stream's own frame fills the last slot before it attends, so frame W needs no mask.
        window = self.options.window
        masked = window is None or int(seen.min()) < window
        self._images.copy_(images)
        torch.compiler.cudagraph_mark_step_begin()
        # All sessions of a process share one limit on recompilations, and every size is needed.
        with torch._dynamo.config.patch(recompile_limit=MANY, accumulated_recompile_limit=MANY):
            features = self._compiled(self._images, self._no_reset, masked)
        return {name: value.clone() for name, value in features.items()}

    def _restart(self, rows: Int[Tensor, " R"]) -> None:
        """Clear their slots; steps use the mask again until the window is full."""
        if self.static is not None:
            self.static.restart(rows.to(self.static.frame.device))

    @torch.inference_mode(False)  # buffers made in it could not be written outside
    def fork(self) -> "CompiledSession":
        """An independent session that continues from here with its own memory; the compiled code is shared.

        On CUDA it records its own graphs.
        """
        self._check_torn()
        twin = self.__class__.__new__(self.__class__)
        twin.__dict__.update(self.__dict__)
        twin.frame_indices = self.frame_indices.clone()
        if self.static is not None:
            twin._use(self.static.copied(self.static.frame.device))
        return twin

    @torch.inference_mode(False)
    def to(self, device: torch.device | str) -> "CompiledSession":
        """Move the cache; the caller moves the backbone. For another kind of device the step is compiled again."""
        device = torch.empty(0, device=device).device  # "cuda" becomes the current one, "cuda:0"
        if self.static is not None and self._layout is not None and device != self._layout.device:
            self._use(self.static.copied(device))
            self._layout = replace(self._layout, device=device)
        return self

    def _cache_state(self, slots: int) -> dict[str, Any]:
        assert self.static is not None
        return {
            "slots": slots,
            "layers": self.static.stored(slots),
            "heads": (self.backbone.num_heads, self.backbone.arch.head_dim),
            "dtype": str(self.static.cache_dtype).removeprefix("torch."),
        }

    def _resume(self, layout: Layout | None, counts: Int[Tensor, " B"], cache: KVCache | None) -> None:
        if layout is None or cache is None:
            self.static = None
        else:
            num_slots, last = self._bounded(FIRST_SLOTS), int(counts.max())
            while last > num_slots < (more := self._bounded(2 * num_slots)):
                num_slots = more
            # CUDA graphs are tied to addresses, and torch keeps the graphs of memory that was freed.
            again = self.static if self._fits(layout, num_slots) else None
            step, slots = again or self._new_step(layout, num_slots), cache.num_used(last)
            stored = [dict(store.slots(0, slots)) for store in cache.stores if store is not None]
            if stored and (dtype := stored[0]["keys"].dtype) != step.cache_dtype:
                raise ValueError(
                    f"the state has a cache of {dtype}, a compiled session one of {step.cache_dtype}; "
                    "convert the backbone or choose cache_dtype"
                )
            if again is not None:
                again.restart(torch.arange(len(counts), device=layout.device))
            step.fill(stored, counts)
            if again is None:
                self._use(step)
        self._layout, self.frame_indices = layout, counts

    def _fits(self, layout: Layout, num_slots: int) -> bool:
        """Whether the allocated memory can hold streams of this layout; False if growing it failed half-way."""
        return (
            self.static is not None
            and layout == self._layout
            and self._images.dtype == self.backbone.cls_token.dtype
            and {len(buffer) for buffers in self.static.cache() for buffer in buffers}
            == {layout.batch_size * num_slots}
            and self.static.num_slots == num_slots
        )

    @property
    def num_bytes(self) -> int:
        """Memory held by the cache."""
        if self.static is None:
            return 0
        keys, values = self.static.cache()
        return sum(tensor.nbytes for tensor in [*keys, *values])
