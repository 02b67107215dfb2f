"""One frame per stream through the backbone, with everything fixed beforehand that a compiler wants fixed.

The streams of a batch go through `OmniStream.encode` as the frames of one clip: only positions and attention tell
frames apart; positions are given per frame, and a `Context` keeps the streams separate. So every stream has a frame
index of its own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omnistream.backbone.attention import Context, check_window
from omnistream.backbone.checks import check_aspect_ratio
from omnistream.backbone.model import StreamingViT
from omnistream.backbone.output import NUM_REGISTERS
from omnistream.backbone.sessions.rope_lookup import RopeLookup
from omnistream.backbone.time_mode import TimeMode, check_time_mode

Features = dict[str, Tensor]
"""Of one frame: `last` [B, h, w, D], `cls` [B, D], `registers` [B, 4, D], `camera` [B, D] if it was asked for, and
`block_<i>` [B, h, w, D] for each block asked for; see `BackboneOutput`."""


def check_static_dtype(cache_dtype: torch.dtype | None) -> None:
    """Refuse a cache that only a `StreamSession` has.

    Raises:
        ValueError: If the dtype is no floating-point one.
    """
    if cache_dtype is not None and not cache_dtype.is_floating_point:
        raise ValueError(
            f"a compiled or exported step has a floating-point cache, got cache_dtype {cache_dtype}; leave it out, "
            "or for a stream leave out compiled=True"
        )


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """What is fixed when a static step is built."""

    image_size: tuple[int, int]
    """Height and width of the frames in pixels."""
    batch_size: int = 1
    """Number of streams B."""
    window: int | None = None
    """Remembered frames W: a frame sees W + 1, itself included. None for all, where the step can grow."""
    sink: int = 1
    """First frames never forgotten."""
    time_mode: TimeMode | None = None
    """`absolute` or `official`; None for the backbone's."""
    layers: tuple[int, ...] = ()
    """Blocks whose patch outputs are returned."""
    camera_token: bool = False
    """Add the camera token."""
    aspect_ratio: tuple[float, ...] | None = None
    """Height over width per stream, told to the camera token."""
    cache_dtype: torch.dtype | None = None
    """Dtype of cache and attention; None for the backbone's."""
    normalize: bool = False
    """Take frames as a camera gives them, uint8 in 0 to 255, and normalise them in the step."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        check_window(self.window, self.sink)
        check_static_dtype(self.cache_dtype)
        if self.time_mode is not None:
            check_time_mode(self.time_mode)
        if self.aspect_ratio is None:
            return
        if not self.camera_token:
            raise ValueError("aspect_ratio is told to the camera token: pass camera_token=True with it")
        check_aspect_ratio(self.aspect_ratio, self.batch_size)


class FrameStep(nn.Module):
    """One frame per stream through the backbone; what it sees of the past is up to a `Context`.

    Runs as in eval mode, whatever the backbone's mode.

    Args:
        backbone: Model to use; it is not copied. State gets its device and dtype.
        options: See `StepOptions`.

    Raises:
        ValueError: If an option does not fit the backbone.
    """

    aspect_ratio: Tensor | None

    def __init__(self, backbone: StreamingViT, options: StepOptions) -> None:
        super().__init__()
        backbone.check_layers(options.layers)
        self.training = False  # of this module alone
        self.backbone, self.options = backbone, options
        h, w = backbone.grid_size(*options.image_size)
        num_prefix = 1 + int(options.camera_token) + NUM_REGISTERS
        self.tokens_per_frame = num_prefix + h * w
        reference = backbone.cls_token
        latest = options.window if self.time_mode == "official" else None
        self.rope = RopeLookup(h, w, num_prefix, backbone.arch.head_dim, backbone.rope_layout, reference.device, latest)
        ratio = None if options.aspect_ratio is None else reference.new_tensor([options.aspect_ratio])
        self.register_buffer("aspect_ratio", ratio, persistent=False)

    @property
    def cache_dtype(self) -> torch.dtype:
        """Dtype of cache and attention."""
        return self.options.cache_dtype or self.backbone.cls_token.dtype

    @property
    def time_mode(self) -> TimeMode:
        """See `omnistream.backbone.time_mode`."""
        return self.options.time_mode or self.backbone.time_mode

    def features(self, images: Tensor, frame: Tensor, context: Context) -> Features:
        """Features of one frame [B, 3, H, W] per stream, each with its own index in its stream [B]."""
        if self.options.normalize:
            images = self.backbone.normalize(images).to(self.backbone.cls_token.dtype)
        out = self.backbone.encode(
            images[None],
            frame,
            context,
            layers=self.options.layers,
            camera_token=self.options.camera_token,
            aspect_ratio=self.aspect_ratio,
            grid_tables=self.rope,
        )
        named = {"last": out.last, "cls": out.cls, "registers": out.registers}
        if out.camera is not None:
            named["camera"] = out.camera
        named |= {f"block_{layer}": out.patches[layer] for layer in self.options.layers}
        return {name: value[0] for name, value in named.items()}

    def blank_images(self) -> Tensor:
        """Frames of the shape and dtype the step takes."""
        reference = self.backbone.cls_token
        dtype = torch.uint8 if self.options.normalize else reference.dtype
        shape = (self.options.batch_size, 3, *self.options.image_size)
        return torch.zeros(shape, dtype=dtype, device=reference.device)

    def new_frame_count(self) -> Tensor:
        """Zero frames seen, int64 [B]."""
        return torch.zeros(self.options.batch_size, dtype=torch.int64, device=self.backbone.cls_token.device)
