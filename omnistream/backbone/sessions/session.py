"""The base of streaming sessions: options, the layout that the first step fixes, heads, and saved states.

Subclasses keep the cache and run the steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from omnistream.backbone.checks import check_aspect_ratio, check_camera_token, check_frames
from omnistream.backbone.model import StreamingViT
from omnistream.backbone.output import NUM_REGISTERS, BackboneOutput
from omnistream.backbone.sessions.checks import (
    chosen_rows,
    require_keys,
    saved_counts,
    saved_dtype,
)
from omnistream.backbone.sessions.heads import StreamHead, read_heads, requested_layers
from omnistream.backbone.sessions.kv_cache import KVCache
from omnistream.backbone.sessions.options import SessionOptions


@dataclass(frozen=True)
class Layout:
    """The properties of a stream that its first step fixes."""

    batch_size: int
    """Streams B."""
    height: int
    """Of the frames, in pixels."""
    width: int
    """Of the frames, in pixels."""
    dtype: torch.dtype
    """Of the frames."""
    device: torch.device
    """Of frames, backbone and cache."""

    def state(self) -> dict[str, Any]:
        """Everything but the device, as plain values."""
        sizes = {"batch_size": self.batch_size, "height": self.height, "width": self.width}
        return {**sizes, "dtype": str(self.dtype).removeprefix("torch.")}

    @classmethod
    def from_state(cls, state: Any, device: torch.device) -> "Layout":
        """The layout that `state` returned, on this device.

        Raises:
            ValueError: If a value is missing, or a size is no positive integer.
        """
        names = ("batch_size", "height", "width")
        require_keys(state, (*names, "dtype"), "its layout")
        sizes = [state[name] for name in names]
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(f"not the state of a session: {', '.join(names)} should be positive, got {sizes}")
        batch_size, height, width = sizes
        return cls(batch_size, height, width, saved_dtype(state["dtype"]), device)

    def __str__(self) -> str:
        size = f"{self.batch_size} x 3 x {self.height} x {self.width}"
        return f"({size}, {str(self.dtype).removeprefix('torch.')}, {self.device})"


class Session(ABC):
    """Encodes B streams frame by frame; see `StreamSession` for what holds for all sessions."""

    def __init__(
        self,
        backbone: StreamingViT,
        options: SessionOptions,
        aspect_ratio: Float[Tensor, " B"] | None,
        heads: Mapping[str, StreamHead] | None,
    ) -> None:
        self.backbone, self.heads = backbone, dict(heads or {})
        self._head_reads_camera = any(head.camera_token for head in self.heads.values())
        resolved = options.resolve(backbone)
        self.options = replace(resolved, camera_token=resolved.camera_token or self._head_reads_camera)
        """With the backbone's own values filled in, and the camera token that a head needs."""
        self._encoded_layers = requested_layers(self.options.layers, self.heads)
        backbone.check_layers(self._encoded_layers)
        if aspect_ratio is not None:
            check_aspect_ratio(aspect_ratio)
            check_camera_token(self.options.camera_token)
        self.aspect_ratio = aspect_ratio
        self._slots = self._new_cache(1, 1)  # holds nothing; knows which slot a frame goes to
        self.frame_indices = torch.zeros(0, dtype=torch.int64)
        """Frames seen so far by each stream, int64 [B] on the CPU."""
        self._layout: Layout | None = None
        self._torn = False
        """True once a failed step has overwritten frames that repeating it would need."""

    def _new_cache(self, batch_size: int, tokens_per_frame: int) -> KVCache:
        options = self.options
        return KVCache(
            self.backbone.num_layers, batch_size, tokens_per_frame,
            options.window, options.sink, options.max_frames, options.stored_dtype, options.offload,
        )  # fmt: skip

    @property
    def _num_prefix(self) -> int:
        return 1 + int(self.options.camera_token) + NUM_REGISTERS

    def step(self, frames: Float[Tensor, "B S 3 H W"]) -> BackboneOutput:
        """Features of the next S >= 1 frames of every stream.

        Args:
            frames: Normalised frames (see `OmniStream.normalize`).

        Raises:
            ValueError: If the frames are not floats of this shape, their batch size, size, device or dtype differs from
                the first step's, or `max_frames` is exceeded.
            RuntimeError: After a step of several frames failed when it had already overwritten remembered ones. Any
                other failed step can be repeated.
        """
        self._check_torn()
        fresh, encoding = self._layout is None, False
        # Buffers made in inference mode could not be written outside it.
        with torch.inference_mode(False), torch.no_grad():
            try:
                self._check(frames)
                encoding = True
                output = self._encode(frames)
                read_heads(output, self.heads, self.options.layers, (frames.shape[-2], frames.shape[-1]))
            except BaseException:  # including Ctrl-C
                if fresh:
                    self._resume(None, torch.zeros(0, dtype=torch.int64), None)
                elif encoding:
                    self._torn = self._overwrites(frames.shape[1])
                raise
            self.frame_indices += frames.shape[1]  # last, so that a failed step can be repeated
            return output

    def _overwrites(self, num_frames: int) -> bool:
        """Whether a step of this many frames overwrites remembered frames that its first frame attends to.

        The sink is never overwritten, and a single frame overwrites only the frame that has left its window. With W
        remembered frames, frame W + 1 is the first to overwrite a slot.
        """
        window, sink, starts = self.options.window, self.options.sink, self.frame_indices
        if window is None or window == sink or num_frames == 1:
            return False
        return bool(((starts > sink) & (starts + num_frames - 1 > window)).any())

    def _check_torn(self) -> None:
        if self._torn:
            raise RuntimeError(
                "a step of several frames failed after it had overwritten remembered ones; call reset() or "
                "load_state_dict()"
            )

    def _check(self, frames: Tensor) -> None:
        """Fix the layout at the first step, and check it at later ones."""
        check_frames(frames)
        B, _, _, H, W = frames.shape
        layout, home = Layout(B, H, W, frames.dtype, frames.device), self.backbone.cls_token.device
        if self._layout is None:
            self.backbone.grid_size(H, W)
            if self.aspect_ratio is not None:
                check_aspect_ratio(self.aspect_ratio, B, wait=False)
            if frames.device != home:
                raise ValueError(f"frames are on {frames.device} and the backbone is on {home}; move one to the other")
            if self.aspect_ratio is not None:
                self.aspect_ratio = self.aspect_ratio.to(home)
            self._begin(layout)
            self.frame_indices, self._layout = torch.zeros(B, dtype=torch.int64), layout
        elif self._layout.device != home:
            raise ValueError(f"the session is on {self._layout.device} and the backbone is on {home}; use session.to")
        elif layout != self._layout:
            raise ValueError(
                "a session keeps batch, height, width, device and dtype of its first step "
                f"{self._layout}, got {layout}; open another session"
            )

    @abstractmethod
    def _begin(self, layout: Layout) -> None:
        """Allocate what the first step needs."""

    @abstractmethod
    def _encode(self, frames: Tensor) -> BackboneOutput:
        """Features of checked frames, with the layers that the heads need."""

    def reset(self, rows: Iterable[int] | Int[Tensor, " R"] | Bool[Tensor, " B"] | None = None) -> None:
        """Restart streams: those in `rows` (indices, or a mask), or all. The cache stays allocated.

        Raises:
            ValueError: If there is no such stream.
        """
        if self._layout is not None:  # otherwise no stream has begun
            chosen = chosen_rows(rows, len(self.frame_indices))
            self.frame_indices[chosen] = 0
            self._restart(chosen)
            self._torn = self._torn and bool(self.frame_indices.any())

    def _restart(self, rows: Int[Tensor, " R"]) -> None:  # noqa: B027 (most caches have nothing to do)
        """Called with the streams that restart."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue later with the same options, as tensors and plain values.

        A compiled session can continue from the state of an uncompiled one, and vice versa.

        Raises:
            RuntimeError: As `step`.
        """
        self._check_torn()
        if self._layout is None:
            return {"options": self._options_state(), "layout": None}
        return {
            "options": self._options_state(),
            "layout": self._layout.state(),
            "frame_indices": self.frame_indices.clone(),
            "cache": self._cache_state(self._slots.num_used(int(self.frame_indices.max()))),
        }

    @abstractmethod
    def _cache_state(self, slots: int) -> dict[str, Any]:
        """Content of the first slots, as `KVCache.state` returns it."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state, on the device where the backbone is now.

        Raises:
            ValueError: If it was saved with other options or for another model, or is incomplete; nothing is changed
                then.
        """
        require_keys(state, ("options", "layout"), "it")
        self._check_options(state["options"])
        with torch.inference_mode(False), torch.no_grad():
            if state["layout"] is None:
                self._resume(None, torch.zeros(0, dtype=torch.int64), None)
                self._torn = False
                return
            require_keys(state, ("frame_indices", "cache"), "it")
            layout = Layout.from_state(state["layout"], self.backbone.cls_token.device)
            counts = saved_counts(state["frame_indices"], layout.batch_size)
            h, w = self.backbone.grid_size(layout.height, layout.width)
            cache = self._new_cache(layout.batch_size, self._num_prefix + h * w)
            heads = self.backbone.num_heads, self.backbone.arch.head_dim
            cache.load_state(state["cache"], layout.device, int(counts.max()), heads)
            self._resume(layout, counts, cache)
            self._torn = False

    @abstractmethod
    def _resume(self, layout: Layout | None, counts: Int[Tensor, " B"], cache: KVCache | None) -> None:
        """Use this layout, these counts and this cache; None where no stream had begun."""

    def _check_options(self, saved: Any) -> None:
        require_keys(saved, (), "its options")
        mine = self._options_state()
        if differing := [name for name in {**mine, **saved} if saved.get(name) != mine.get(name)]:
            theirs, ours = (", ".join(f"{name}={o.get(name)!r}" for name in differing) for o in (saved, mine))
            raise ValueError(f"the state was saved with options {theirs}; this session has {ours}")

    def _options_state(self) -> dict[str, Any]:
        return {
            "variant": self.backbone.variant,
            "rope_layout": self.backbone.rope_layout,
            **self.options.state(),
            "aspect_ratio": None if self.aspect_ratio is None else self.aspect_ratio.tolist(),
            "aspect_ratio_of_frames": self._head_reads_camera,
        }
