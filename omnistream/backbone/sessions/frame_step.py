"""One frame per stream through the backbone, with all shapes fixed in advance for a compiler or exporter.

The streams of a batch go through `OmniStream.encode` as the frames of one clip: only positions and attention
distinguish frames; positions are given per frame, and a `Context` keeps the streams separate. So every stream has its
own frame index.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omnistream.backbone.attention import Context
from omnistream.backbone.checks import check_aspect_ratio, check_camera_token
from omnistream.backbone.model import StreamingViT
from omnistream.backbone.output import NUM_REGISTERS
from omnistream.backbone.sessions.options import SessionOptions, check_static
from omnistream.backbone.sessions.rope_lookup import RopeLookup

Features = dict[str, Tensor]
"""Of one frame: `last` [B, h, w, D], `cls` [B, D], `registers` [B, 4, D], `camera` [B, D] if it was requested, and
`block_<i>` [B, h, w, D] for each requested block; see `BackboneOutput`."""


@dataclass(frozen=True, kw_only=True)
class StepInput:
    """The frames that a step of fixed shape takes.

    Raises:
        ValueError: If a value is out of range.
    """

    image_size: tuple[int, int]
    """Height and width of the frames in pixels."""
    batch_size: int = 1
    """Number of streams B."""
    aspect_ratio: tuple[float, ...] | None = None
    """Height over width of each stream's original images, added to the camera token."""
    normalize: bool = False
    """Take uint8 frames from 0 to 255 and normalise them in the step."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.aspect_ratio is not None:
            check_aspect_ratio(self.aspect_ratio, self.batch_size)


class FrameStep(nn.Module):
    """One frame per stream through the backbone; a `Context` provides the past.

    Runs as in eval mode, whatever the backbone's mode.

    Args:
        backbone: Model to use; it is not copied. State gets its device and dtype.
        options: What is remembered and returned.
        inputs: The frames.

    Raises:
        ValueError: If an option does not fit the backbone or a step of fixed shape.
    """

    aspect_ratio: Tensor | None

    def __init__(self, backbone: StreamingViT, options: SessionOptions, inputs: StepInput) -> None:
        super().__init__()
        check_static(options)
        if inputs.aspect_ratio is not None:
            check_camera_token(options.camera_token)
        self.training = False  # of this module alone
        self.backbone, self.inputs = backbone, inputs
        self.options = options.resolve(backbone)
        h, w = backbone.grid_size(*inputs.image_size)
        num_prefix = 1 + int(options.camera_token) + NUM_REGISTERS
        self.tokens_per_frame = num_prefix + h * w
        reference = backbone.cls_token
        latest = self.options.window if self.options.time_mode == "official" else None
        self.rope = RopeLookup(h, w, num_prefix, backbone.arch.head_dim, backbone.rope_layout, reference.device, latest)
        ratio = None if inputs.aspect_ratio is None else reference.new_tensor([inputs.aspect_ratio])
        self.register_buffer("aspect_ratio", ratio, persistent=False)

    @property
    def cache_dtype(self) -> torch.dtype:
        """Dtype of cache and attention."""
        return self.options.stored_dtype or self.backbone.cls_token.dtype

    def features(self, images: Tensor, frame: Tensor, context: Context) -> Features:
        """Features of one frame [B, 3, H, W] per stream, each with its index in its stream [B]."""
        if self.inputs.normalize:
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
        dtype = torch.uint8 if self.inputs.normalize else reference.dtype
        shape = (self.inputs.batch_size, 3, *self.inputs.image_size)
        return torch.zeros(shape, dtype=dtype, device=reference.device)

    def new_frame_count(self) -> Tensor:
        """Zero frames seen, int64 [B]."""
        return torch.zeros(self.inputs.batch_size, dtype=torch.int64, device=self.backbone.cls_token.device)
