"""A streaming session: frames in, features out, with the past kept in a preallocated cache."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from omnistream.backbone.heads import StreamHead, read_heads, requested_layers
from omnistream.backbone.kv_cache import CacheContext, KVCache, cache_dtype_of
from omnistream.backbone.model import BackboneOutput, OmniStream
from omnistream.backbone.rope import GridTables
from omnistream.backbone.session_checks import (
    check_aspect_ratio,
    check_frames,
    chosen_rows,
    require_keys,
    saved_counts,
    saved_dtype,
)
from omnistream.backbone.time_mode import check_time_mode, stream_times

_FROM_BACKBONE = "backbone"


@dataclass(frozen=True)
class _Layout:
    """What the first step fixes."""

    batch_size: int
    height: int
    width: int
    dtype: torch.dtype
    device: torch.device

    def state(self) -> dict[str, Any]:
        """All but the device, as plain values."""
        sizes = {"batch_size": self.batch_size, "height": self.height, "width": self.width}
        return {**sizes, "dtype": str(self.dtype).removeprefix("torch.")}

    @classmethod
    def from_state(cls, state: Any, device: torch.device) -> "_Layout":
        """What `state` gave, on this device.

        Raises:
            ValueError: If a value is missing, or a size is no positive integer.
        """
        names = ("batch_size", "height", "width")
        require_keys(state, (*names, "dtype"), "its layout")
        sizes = [state[name] for name in names]
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(f"not the state of a session: {', '.join(names)} should be positive, got {sizes}")
        return cls(*sizes, saved_dtype(state["dtype"]), device)

    def __str__(self) -> str:
        size = f"{self.batch_size} x 3 x {self.height} x {self.width}"
        return f"({size}, {str(self.dtype).removeprefix('torch.')}, {self.device})"


class StreamSession:
    """Encodes B streams frame by frame, exactly as one whole-clip forward would.

    Runs without gradient and as in eval mode whatever the backbone's mode. The first step fixes batch size, image size,
    dtype and device; a mismatch later is an error. Frames are cast to the dtype of the backbone. Nothing is kept but
    the cache: with a window, memory is constant once it is full.

    Args:
        backbone: Model to use; it is not copied.
        window: Remembered frames W (so a frame sees W + 1 including itself); None for all. Default: the backbone's.
        sink: First frames never forgotten. Default: the backbone's.
        time_mode: `absolute`, or `official` for the release's behaviour. Default: the backbone's.
        cache_dtype: Dtype of cache and attention, e.g. `torch.bfloat16`; None for the model's. `torch.int8` (or "int8")
            stores 8 bits with a scale per head and token, all but the sink, and attends in the model's dtype.
        max_frames: Without a window: allocate for this many frames at once and refuse more.
        offload: Keep the cache in CPU memory and bring one layer at a time to the accelerator.
        layers: Blocks whose patch outputs are returned.
        camera_token: Add the camera token.
        aspect_ratio: Height over width per stream [B], told to the camera token.
        heads: Read the features of each step; their results are in `BackboneOutput.heads` under the same names. The
            layers and the camera token they need are added; without `aspect_ratio` a head that reads the camera token
            is told that of the frames.

    Raises:
        ValueError: For a window that cannot hold its sink, a layer that does not exist, an unknown time mode or cache
            dtype, or offloading a model that is on the CPU itself.

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
        time_mode: str = _FROM_BACKBONE,
        cache_dtype: torch.dtype | str | None = None,
        max_frames: int | None = None,
        offload: bool = False,
        layers: Sequence[int] = (),
        camera_token: bool = False,
        aspect_ratio: Float[Tensor, " B"] | None = None,
        heads: Mapping[str, StreamHead] | None = None,
    ) -> None:
        self.backbone = backbone
        self.window = backbone.window if window == _FROM_BACKBONE else window
        self.sink = backbone.sink if sink == _FROM_BACKBONE else sink
        self.time_mode = backbone.time_mode if time_mode == _FROM_BACKBONE else time_mode
        self.cache_dtype, self.max_frames, self.offload = cache_dtype_of(cache_dtype), max_frames, offload
        self.heads = dict(heads or {})
        self._tell_aspect_ratio = any(head.camera_token for head in self.heads.values())
        self.layers, self.aspect_ratio = tuple(layers), aspect_ratio
        self.camera_token = camera_token or self._tell_aspect_ratio
        self._encoded_layers = requested_layers(layers, self.heads)
        backbone.check_layers(self._encoded_layers)
        check_time_mode(self.time_mode)
        if aspect_ratio is not None:
            check_aspect_ratio(aspect_ratio)
        if offload and backbone.cls_token.device.type == "cpu":
            raise ValueError(
                "offload=True brings the cache from CPU memory to an accelerator; the backbone is on the CPU"
            )
        self._new_cache(1, 1)  # refuses bad options now
        self.cache: KVCache | None = None
        self.frame_indices = torch.zeros(0, dtype=torch.int64)
        """Frames seen so far by each stream, int64 [B] on the CPU."""
        self._layout: _Layout | None = None
        self._grid_tables: GridTables | None = None

    def _new_cache(self, batch_size: int, tokens_per_frame: int) -> KVCache:
        return KVCache(
            self.backbone.num_layers,
            batch_size,
            tokens_per_frame,
            self.window,  # type: ignore[arg-type]
            self.sink,  # type: ignore[arg-type]
            self.max_frames,
            self.cache_dtype,
            self.offload,
        )

    def step(self, frames: Float[Tensor, "B S 3 H W"]) -> BackboneOutput:
        """Features of the next S >= 1 frames of every stream.

        Args:
            frames: Normalised frames (see `OmniStream.normalize`).

        Raises:
            ValueError: If the frames are not floats of this shape, batch, size, device or dtype differ from the first
                step's, or `max_frames` is exceeded.
        """
        # Buffers made in inference mode could not be written outside it.
        with torch.inference_mode(False), torch.no_grad():
            self._check(frames)
            output = self._encode(frames)
            read_heads(output, self.heads, self.layers, (frames.shape[-2], frames.shape[-1]))
            self.frame_indices += frames.shape[1]
            return output

    def _check(self, frames: Tensor) -> None:
        """Fix the layout at the first step, insist on it later."""
        check_frames(frames)
        B, _, _, H, W = frames.shape
        layout, home = _Layout(B, H, W, frames.dtype, frames.device), self.backbone.cls_token.device
        if self._layout is None:
            h, w = self.backbone.grid_size(H, W)
            if self.aspect_ratio is not None:
                check_aspect_ratio(self.aspect_ratio, B, wait=False)
            if frames.device != home:
                raise ValueError(f"frames are on {frames.device} and the backbone is on {home}; move one to the other")
            self.cache = self._new_cache(B, self._num_prefix + h * w)
            self.frame_indices = torch.zeros(B, dtype=torch.int64)
            self._layout = layout
        elif self._layout.device != home:
            raise ValueError(f"the session is on {self._layout.device} and the backbone is on {home}; use session.to")
        elif layout != self._layout:
            raise ValueError(
                "a session keeps batch, height, width, device and dtype of its first step "
                f"{self._layout}, got {layout}; open another session"
            )

    @property
    def _num_prefix(self) -> int:
        return 1 + int(self.camera_token) + self.backbone.register_token.shape[2]

    def _encode(self, frames: Tensor) -> BackboneOutput:
        assert self.cache is not None
        _, S, _, H, W = frames.shape
        aspect = self.aspect_ratio
        if aspect is None and self._tell_aspect_ratio:
            aspect = torch.full((len(frames),), H / W, device=frames.device)
        backbone, starts = self.backbone, self.frame_indices
        if self._grid_tables is None:
            head_dim, layout = backbone.arch.head_dim, backbone.rope_layout
            h, w = backbone.grid_size(H, W)
            self._grid_tables = GridTables(h, w, self._num_prefix, head_dim, layout, frames.device)
        if bool((starts == starts[0]).all()):  # one row of tables serves all
            indices = torch.arange(int(starts[0]), int(starts[0]) + S, device=frames.device)
        else:
            indices = (starts[:, None] + torch.arange(S)).to(frames.device, non_blocking=True)
        return backbone.encode(
            frames.to(backbone.cls_token.dtype),
            indices,
            CacheContext(self.cache, self.frame_indices),
            layers=self._encoded_layers,
            camera_token=self.camera_token,
            aspect_ratio=aspect,
            times=stream_times(indices, self.window, self.time_mode),  # type: ignore[arg-type]
            grid_tables=self._grid_tables,
        )

    def to(self, device: torch.device | str) -> "StreamSession":
        """Move the session's memory; the backbone, which may serve others, is moved by its owner."""
        device = torch.empty(0, device=device).device  # "cuda" becomes the current one, "cuda:0"
        if self.aspect_ratio is not None:
            self.aspect_ratio = self.aspect_ratio.to(device)
        self._grid_tables = None
        if self.cache is not None and self._layout is not None:
            self.cache.to(device)
            self._layout = replace(self._layout, device=device)
        return self

    def reset(self, rows: Iterable[int] | Int[Tensor, " R"] | Bool[Tensor, " B"] | None = None) -> None:
        """Start streams anew: those in `rows` (numbers, or a mask), or all. The cache stays allocated.

        Raises:
            ValueError: If there is no such stream.
        """
        if self._layout is not None:  # else no stream has begun
            self.frame_indices[chosen_rows(rows, len(self.frame_indices))] = 0

    def fork(self) -> "StreamSession":
        """An independent session that continues from here; for trying out several futures."""
        copy = self.__class__.__new__(self.__class__)
        copy.__dict__.update(self.__dict__)
        copy.cache = None if self.cache is None else self.cache.clone()
        copy.frame_indices = self.frame_indices.clone()
        return copy

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on later with the same options: tensors and plain values only."""
        layout, cache = self._layout, self.cache
        if layout is None or cache is None:
            return {"options": self._options(), "layout": None}
        return {
            "options": self._options(),
            "layout": layout.state(),
            "frame_indices": self.frame_indices.clone(),
            "cache": cache.state(cache.num_used(int(self.frame_indices.max()))),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, on the device where the backbone is now.

        Raises:
            ValueError: If it was saved with other options or for another model, or is incomplete.
        """
        require_keys(state, ("options", "layout"), "it")
        saved, mine = state["options"], self._options()
        require_keys(saved, (), "its options")
        if saved != mine:
            differing = [name for name in mine if saved.get(name) != mine[name]]
            theirs, ours = (", ".join(f"{name}={o.get(name)!r}" for name in differing) for o in (saved, mine))
            raise ValueError(f"the state was saved with options {theirs}; this session has {ours}")
        if state["layout"] is None:
            self.frame_indices = torch.zeros(0, dtype=torch.int64)
            self.cache, self._layout, self._grid_tables = None, None, None
            return
        require_keys(state, ("frame_indices", "cache"), "it")
        layout = _Layout.from_state(state["layout"], self.backbone.cls_token.device)
        counts = saved_counts(state["frame_indices"], layout.batch_size)
        h, w = self.backbone.grid_size(layout.height, layout.width)
        cache = self._new_cache(layout.batch_size, self._num_prefix + h * w)
        heads = self.backbone.num_heads, self.backbone.arch.head_dim
        cache.load_state(state["cache"], layout.device, int(counts.max()), heads)
        self.frame_indices, self.cache, self._layout, self._grid_tables = counts, cache, layout, None

    def _options(self) -> dict[str, Any]:
        return {
            "variant": self.backbone.variant,
            "rope_layout": self.backbone.rope_layout,
            "window": self.window,
            "sink": self.sink,
            "time_mode": self.time_mode,
            "max_frames": self.max_frames,
            "cache_dtype": str(self.cache_dtype),
            "layers": list(self.layers),
            "camera_token": self.camera_token,
            "aspect_ratio": None if self.aspect_ratio is None else self.aspect_ratio.tolist(),
            "tell_aspect_ratio": self._tell_aspect_ratio,
        }
