"""A streaming session: frames in, features out, with past frames in a preallocated cache."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from omnistream.backbone.model import StreamingViT
from omnistream.backbone.output import BackboneOutput
from omnistream.backbone.rope import GridTables
from omnistream.backbone.sessions.heads import StreamHead
from omnistream.backbone.sessions.kv_cache import CacheContext, KVCache
from omnistream.backbone.sessions.options import SessionOptions
from omnistream.backbone.sessions.session import Layout, Session
from omnistream.backbone.time_mode import stream_times


class StreamSession(Session):
    """Encodes B streams frame by frame, exactly as one whole-clip forward would.

    Runs without gradient and as in eval mode, whatever the mode of the backbone. The first step fixes batch size, image
    size, dtype and device; later steps must agree. Frames are converted to the dtype of the backbone. Only the cache is
    kept: with a window, memory is constant once it is full.

    Args:
        backbone: Model to use; it is not copied.
        options: What is remembered and returned; by default as the backbone was built.
        aspect_ratio: Height over width of each stream's original images [B], added to the camera token.
        heads: Modules that read the features of each step; their results are in `BackboneOutput.heads` under the same
            names. The layers and the camera token that they need are added. If a head reads the camera token and no
            `aspect_ratio` is given, that of the frames is used.

    Raises:
        ValueError: If an option does not fit the backbone, or `compiled` is set: `backbone.stream` opens those.

    Example:
        >>> from omnistream.backbone import create_model
        >>> session = create_model("vit_nano").stream(window=16)
        >>> session.step(torch.rand(1, 1, 3, 32, 32)).last.shape
        torch.Size([1, 1, 4, 4, 64])
    """

    def __init__(
        self,
        backbone: StreamingViT,
        options: SessionOptions = SessionOptions(),  # noqa: B008 (frozen)
        *,
        aspect_ratio: Float[Tensor, " B"] | None = None,
        heads: Mapping[str, StreamHead] | None = None,
    ) -> None:
        if options.compiled:
            raise ValueError("a StreamSession is not compiled; use CompiledSession or backbone.stream(compiled=True)")
        super().__init__(backbone, options, aspect_ratio, heads)
        self.cache: KVCache | None = None
        self._grid_tables: GridTables | None = None

    def _begin(self, layout: Layout) -> None:
        h, w = self.backbone.grid_size(layout.height, layout.width)
        self.cache = self._new_cache(layout.batch_size, self._num_prefix + h * w)

    def _encode(self, frames: Tensor) -> BackboneOutput:
        assert self.cache is not None
        _, S, _, H, W = frames.shape
        aspect = self.aspect_ratio
        if aspect is None and self._head_reads_camera:
            aspect = torch.full((len(frames),), H / W, device=frames.device)
        backbone, starts = self.backbone, self.frame_indices
        if self._grid_tables is None:
            head_dim, layout = backbone.arch.head_dim, backbone.rope_layout
            h, w = backbone.grid_size(H, W)
            self._grid_tables = GridTables(h, w, self._num_prefix, head_dim, layout, frames.device)
        if bool((starts == starts[0]).all()):  # one row of tables is enough
            indices = torch.arange(int(starts[0]), int(starts[0]) + S, device=frames.device)
        else:
            indices = (starts[:, None] + torch.arange(S)).to(frames.device, non_blocking=True)
        output = backbone.encode(
            frames.to(backbone.cls_token.dtype),
            indices,
            CacheContext(self.cache, self.frame_indices),
            layers=self._encoded_layers,
            camera_token=self.options.camera_token,
            aspect_ratio=aspect,
            times=stream_times(indices, self.options.window, self.options.time_mode),
            grid_tables=self._grid_tables,
        )
        # Copies: a view would keep all tokens in memory for as long as it lives.
        output.cls, output.registers = output.cls.clone(), output.registers.clone()
        output.camera = None if output.camera is None else output.camera.clone()
        return output

    @torch.inference_mode(False)  # buffers made in it could not be written outside
    def to(self, device: torch.device | str) -> "StreamSession":
        """Move the cache of the session; the caller moves the backbone, which other sessions may share."""
        device = torch.empty(0, device=device).device  # "cuda" becomes the current one, "cuda:0"
        if self.aspect_ratio is not None:
            self.aspect_ratio = self.aspect_ratio.to(device)
        if self.cache is not None and self._layout is not None and device != self._layout.device:
            self.cache.to(device)
            self._grid_tables = None
            self._layout = replace(self._layout, device=device)
        return self

    @torch.inference_mode(False)  # buffers made in it could not be written outside
    def fork(self) -> "StreamSession":
        """An independent session that continues from here, to try several continuations."""
        self._check_torn()
        copy = self.__class__.__new__(self.__class__)
        copy.__dict__.update(self.__dict__)
        copy.cache = None if self.cache is None else self.cache.clone()
        copy.frame_indices = self.frame_indices.clone()
        return copy

    def _cache_state(self, slots: int) -> dict[str, Any]:
        assert self.cache is not None
        return self.cache.state(slots)

    def _resume(self, layout: Layout | None, counts: Int[Tensor, " B"], cache: KVCache | None) -> None:
        self._layout, self.frame_indices, self.cache, self._grid_tables = layout, counts, cache, None
        if layout is not None and self.aspect_ratio is not None:
            self.aspect_ratio = self.aspect_ratio.to(layout.device)
