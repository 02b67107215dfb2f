"""A streaming session: frames in, features out, with the past kept in a preallocated cache."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from omnistream.backbone.kv_cache import CacheContext, KVCache
from omnistream.backbone.model import BackboneOutput, OmniStream

_FROM_BACKBONE = "backbone"


class StreamSession:
    """Encodes B streams frame by frame, exactly as one whole-clip forward would.

    Runs without gradient and as in eval mode whatever the backbone's mode. The first step fixes batch size, image size
    and device; a mismatch later is an error. Nothing is kept but the cache: with a window, memory is constant once it
    is full.

    Args:
        backbone: Model to use; it is not copied.
        window: Remembered frames W (so a frame sees W + 1 including itself); None for all. Default: the backbone's.
        sink: First frames never forgotten. Default: the backbone's.
        cache_dtype: Dtype of cache and attention, e.g. `torch.bfloat16`; None for the model's.
        max_frames: Without a window: allocate for this many frames at once and refuse more.
        layers: Blocks whose patch outputs are returned.
        camera_token: Add the camera token.
        aspect_ratio: Height over width per stream [B], told to the camera token.

    Raises:
        ValueError: For a window that cannot hold its sink.

    Example:
        >>> from omnistream.backbone import create_model
        >>> session = create_model("vit_nano").stream(window=16)
        >>> session.step(torch.rand(1, 1, 3, 32, 32)).last.shape
        torch.Size([1, 1, 4, 4, 64])
    """

    def __init__(
        self,
        backbone: OmniStream,
        *,
        window: int | str | None = _FROM_BACKBONE,
        sink: int | str = _FROM_BACKBONE,
        cache_dtype: torch.dtype | None = None,
        max_frames: int | None = None,
        layers: Sequence[int] = (),
        camera_token: bool = False,
        aspect_ratio: Float[Tensor, " B"] | None = None,
    ) -> None:
        self.backbone = backbone
        self.window = backbone.window if window == _FROM_BACKBONE else window
        self.sink = backbone.sink if sink == _FROM_BACKBONE else sink
        self.cache_dtype, self.max_frames = cache_dtype, max_frames
        self.layers, self.camera_token, self.aspect_ratio = tuple(layers), camera_token, aspect_ratio
        self._new_cache(1, 1)  # refuses bad options now
        self.cache: KVCache | None = None
        self.frame_indices = torch.zeros(0, dtype=torch.int64)
        """Frames seen so far by each stream, int64 [B] on the CPU."""
        self._layout: tuple[Any, ...] | None = None

    def _new_cache(self, batch_size: int, tokens_per_frame: int) -> KVCache:
        return KVCache(
            self.backbone.num_layers,
            batch_size,
            tokens_per_frame,
            self.window,  # type: ignore[arg-type]
            self.sink,  # type: ignore[arg-type]
            self.max_frames,
            self.cache_dtype,
        )

    @torch.no_grad()
    def step(self, frames: Float[Tensor, "B S 3 H W"]) -> BackboneOutput:
        """Features of the next S >= 1 frames of every stream.

        Args:
            frames: Normalised frames (see `OmniStream.normalize`).

        Raises:
            ValueError: If batch, size, device or dtype differ from the first step's, or `max_frames` is exceeded.
        """
        B, S, _, H, W = frames.shape
        if S < 1:
            raise ValueError("a step needs at least one frame, got none")
        layout = (B, H, W, frames.device, frames.dtype)
        if self._layout is None:
            h, w = self.backbone.grid_size(H, W)
            if self.aspect_ratio is not None and self.aspect_ratio.shape != (B,):
                raise ValueError(
                    f"aspect_ratio must have one value per stream ({B}), got {tuple(self.aspect_ratio.shape)}"
                )
            prefix = 1 + int(self.camera_token) + self.backbone.register_token.shape[2]
            self.cache = self._new_cache(B, prefix + h * w)
            self.frame_indices = torch.zeros(B, dtype=torch.int64)
            self._layout = layout
        elif layout != self._layout:
            raise ValueError(
                "a session keeps batch, height, width, device and dtype of its first step "
                f"{self._layout}, got {layout}; open another session"
            )
        starts = self.frame_indices.unique().tolist()
        if len(starts) == 1:
            output = self._encode(frames, starts[0], None)
        else:
            output = self._encode_groups(frames, starts)
        self.frame_indices += S
        return output

    def _encode(self, frames: Tensor, start: int, rows: Tensor | None) -> BackboneOutput:
        assert self.cache is not None
        indices = torch.arange(start, start + frames.shape[1], device=frames.device)
        aspect = self.aspect_ratio if self.aspect_ratio is None or rows is None else self.aspect_ratio[rows]
        context = CacheContext(self.cache, start, rows)
        return self.backbone.encode(
            frames, indices, context, layers=self.layers, camera_token=self.camera_token, aspect_ratio=aspect
        )

    def _encode_groups(self, frames: Tensor, starts: list[int]) -> BackboneOutput:
        """Streams that stand at different frames go through the model in groups of the same frame."""
        order, parts = [], []
        for start in starts:
            rows = (self.frame_indices == start).nonzero().flatten().to(frames.device)
            order.append(rows)
            parts.append(self._encode(frames[rows], start, rows))
        back = torch.cat(order).argsort()

        def merge(values: list[Any]) -> Any:
            if values[0] is None:
                return None
            if isinstance(values[0], dict):
                return {key: merge([value[key] for value in values]) for key in values[0]}
            return torch.cat(values)[back]

        first = parts[0]
        return type(first)(**{f.name: merge([getattr(p, f.name) for p in parts]) for f in fields(first)})

    def reset(self, rows: Iterable[int] | Int[Tensor, " R"] | None = None) -> None:
        """Start streams anew: those in `rows`, or all. The cache stays allocated.

        Raises:
            ValueError: If there is no such stream.
        """
        if rows is None:
            self.frame_indices.zero_()
            return
        chosen = torch.as_tensor(rows if isinstance(rows, Tensor) else list(rows), dtype=torch.int64).cpu()
        if self._layout is None:
            return  # no stream has begun
        if bad := [row for row in chosen.tolist() if not 0 <= row < len(self.frame_indices)]:
            raise ValueError(f"cannot reset rows {bad}; the session has streams 0 to {len(self.frame_indices) - 1}")
        self.frame_indices[chosen] = 0

    def fork(self) -> "StreamSession":
        """An independent session that continues from here; for trying out several futures."""
        copy = self.__class__.__new__(self.__class__)
        copy.__dict__.update(self.__dict__)
        copy.cache = None if self.cache is None else self.cache.clone()
        copy.frame_indices = self.frame_indices.clone()
        return copy

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on later with the same options: tensors and plain values only."""
        cache = None if self.cache is None else self.cache.clone()
        return {
            "options": self._options(),
            "layout": None if self._layout is None else [str(value) for value in self._layout],
            "frame_indices": self.frame_indices.clone(),
            "tokens_per_frame": None if cache is None else cache.tokens_per_frame,
            "keys": [] if cache is None else cache.keys,
            "values": [] if cache is None else cache.values,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: If it was saved with other options or for another model.
        """
        if state["options"] != self._options():
            raise ValueError(f"the state was saved with options {state['options']}, this session has {self._options()}")
        self.frame_indices = state["frame_indices"].clone()
        if state["layout"] is None:
            self.cache, self._layout = None, None
            return
        batch, height, width, _, dtype = state["layout"]
        device = self.backbone.cls_token.device
        self._layout = (int(batch), int(height), int(width), device, getattr(torch, dtype.removeprefix("torch.")))
        self.cache = self._new_cache(int(batch), state["tokens_per_frame"])
        self.cache.keys = [None if t is None else t.to(device, copy=True) for t in state["keys"]]
        self.cache.values = [None if t is None else t.to(device, copy=True) for t in state["values"]]

    def _options(self) -> dict[str, Any]:
        return {
            "variant": self.backbone.variant,
            "rope_layout": self.backbone.rope_layout,
            "window": self.window,
            "sink": self.sink,
            "max_frames": self.max_frames,
            "cache_dtype": str(self.cache_dtype),
            "layers": list(self.layers),
            "camera_token": self.camera_token,
            "aspect_ratio": None if self.aspect_ratio is None else self.aspect_ratio.tolist(),
        }
