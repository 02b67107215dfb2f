"""The streaming visual backbone: a DINOv3 ViT with frame-causal attention and 3D-RoPE (paper Sec. 3.2)."""

from collections.abc import Collection, Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from omnistream.backbone.attention import ClipContext, Context
from omnistream.backbone.checks import check_aspect_ratio, check_camera_token, check_frames
from omnistream.backbone.clip_attention import AttentionChoice, check_attention
from omnistream.backbone.layers import NORM_EPS, Block, LayerScale
from omnistream.backbone.output import NUM_REGISTERS, BackboneOutput
from omnistream.backbone.rope import PositionTables, RopeLayout, check_layout, draw_scale, rope_tables
from omnistream.backbone.time_mode import TimeMode, check_time_mode, clip_times
from omnistream.backbone.variants import get_variant


class StreamingViT(nn.Module):
    """The ViT itself: whole clips, and frames at given positions of a stream. `OmniStream` adds sessions and weights.

    In train mode the RoPE coordinates are rescaled by random factors, one draw per forward for time and one for space.

    The arguments are documented in `OmniStream`, which users build.

    Raises:
        ValueError: For an unknown variant, layout, time mode or kernel, or a window that cannot
            hold its sink.

    Source: paper Sec. 3.2; facebookresearch/dinov3: dinov3/models/vision_transformer.py.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        variant: str = "vit_large",
        *,
        rope_layout: RopeLayout = "rotation",
        rope_rescale: float | None = 2.0,
        layer_scale_init: float = 0.01,
        window: int | None = None,
        sink: int = 1,
        time_mode: TimeMode = "absolute",
        attention: AttentionChoice = "auto",
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        arch = get_variant(variant)
        check_layout(rope_layout, arch.head_dim)
        if rope_rescale is not None and rope_rescale < 1:
            raise ValueError(f"rope_rescale must be at least 1 (or None for no rescale), got {rope_rescale}")
        self.variant, self.arch = variant, arch
        self.embed_dim, self.num_layers, self.num_heads = arch.embed_dim, arch.num_layers, arch.num_heads
        self.patch_size, self.default_layers = arch.patch_size, arch.default_layers
        self.rope_layout, self.rope_rescale = rope_layout, rope_rescale
        self.window, self.sink = window, sink
        check_time_mode(time_mode)
        check_attention(attention)
        self.time_mode, self.attention = time_mode, attention
        self.activation_checkpointing = activation_checkpointing
        ClipContext(1, window, sink)  # checks the window now rather than in the first forward

        dim = arch.embed_dim
        self.patch_embed = nn.Conv2d(3, dim, arch.patch_size, stride=arch.patch_size)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        # Row 0 marks the first frame of a stream, row 1 every later one.
        self.register_token = nn.Parameter(torch.empty(1, 2, NUM_REGISTERS, dim))
        self.camera_token = nn.Parameter(torch.empty(1, 2, 1, dim))
        self.aspect_embed = nn.Linear(1, dim)
        self.mask_token = nn.Parameter(torch.empty(1, dim))
        self.blocks = nn.ModuleList(Block(arch, i, layer_scale_init) for i in range(arch.num_layers))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.register_buffer("mean", torch.empty(3, 1, 1))
        self.register_buffer("std", torch.empty(3, 1, 1))
        if self.patch_embed.weight.device.type != "meta":
            self.reset_parameters()

    def reset_parameters(self, only: Collection[str] | None = None) -> None:
        """Initialise all parameters and set the buffers; needed after construction on the meta device.

        Linear weights get DINOv3's standard deviation of 0.02 at ViT-L's width of 1024 and as much signal at every
        other: at width 128 a fixed 0.02 leaves blocks that do almost nothing for hundreds of steps.

        Args:
            only: Names of the parameters to initialise, with others of the same layer; None for all.
        """
        std = 0.02 * (1024 / self.embed_dim) ** 0.5
        for prefix, module in self.named_modules():
            if only is not None and not any(name.rpartition(".")[0] == prefix for name in only):
                continue
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm | LayerScale | nn.Conv2d):
                module.reset_parameters()
        for name in ("cls_token", "register_token", "camera_token"):
            if only is None or name in only:
                nn.init.normal_(getattr(self, name), std=0.02)
        with torch.no_grad():
            if only is None or "register_token" in only:
                self.register_token[:, 1] = self.register_token[:, 0]
            self.mean.copy_(torch.tensor(self.arch.mean).view(3, 1, 1))
            self.std.copy_(torch.tensor(self.arch.std).view(3, 1, 1))
        if only is None or "mask_token" in only:
            nn.init.zeros_(self.mask_token)

    def set_rope_layout(self, layout: RopeLayout) -> None:
        """Change the RoPE layout in place; a Gram teacher uses this to remain a plain DINOv3.

        Raises:
            ValueError: If the layout is unknown.
        """
        check_layout(layout, self.arch.head_dim)
        self.rope_layout = layout

    def normalize(self, images: UInt8[Tensor, "*N 3 H W"] | Float[Tensor, "*N 3 H W"]) -> Float[Tensor, "*N 3 H W"]:
        """Images as the weights expect them: uint8, or floats in [0, 1], minus mean over standard deviation."""
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        return (images - self.mean) / self.std

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image.

        Raises:
            ValueError: If a side is not a positive multiple of the patch size.
        """
        p = self.patch_size
        if height < p or width < p or height % p or width % p:
            raise ValueError(f"image sides must be multiples of the patch size {p}, got height {height}, width {width}")
        return height // p, width // p

    def check_layers(self, layers: Sequence[int]) -> None:
        """Check that the model has these blocks.

        Raises:
            ValueError: If it does not.
        """
        if bad := [layer for layer in layers if not 0 <= layer < self.num_layers]:
            raise ValueError(f"layers {bad} do not exist; {self.variant} has blocks 0 to {self.num_layers - 1}")

    def forward(
        self,
        images: Float[Tensor, "B T 3 H W"],
        *,
        masks: Bool[Tensor, "B T h w"] | None = None,
        layers: Sequence[int] = (),
        camera_token: bool = False,
        aspect_ratio: Float[Tensor, " B"] | None = None,
    ) -> BackboneOutput:
        """Features of whole clips; frame 0 starts the stream.

        Args:
            images: Normalised frames; an image is T=1.
            masks: True where the mask token replaces a patch (iBOT).
            layers: Blocks (0-based) whose patch outputs are returned, un-normalised.
            camera_token: Add the camera token to every frame.
            aspect_ratio: Height over width of the original images, added to the camera token; needs `camera_token`.
                Values on an accelerator are not checked, since that would synchronise with it in every forward.

        Raises:
            ValueError: If the images are not floats of this shape with T >= 1, a side is not a multiple of the patch
                size, the masks do not fit, a layer does not exist, or an aspect ratio is not finite and positive.
        """
        check_frames(images)
        if aspect_ratio is not None:
            check_aspect_ratio(aspect_ratio, images.shape[0], wait=False)
        frames = torch.arange(images.shape[1], device=images.device)
        context = ClipContext(images.shape[1], self.window, self.sink, self.attention)
        times = clip_times(images.shape[1], self.window, self.time_mode, images.device)
        # Not `self.encode`, which a wrapper may have replaced that expects not to be within another (FSDP2's).
        return StreamingViT.encode(
            self, images, frames, context, masks, layers, camera_token, aspect_ratio, self._draw_scales(), times
        )

    def encode(
        self,
        images: Float[Tensor, "B T 3 H W"],
        frame_indices: Int[Tensor, "*rows T"],
        context: Context,
        masks: Bool[Tensor, "B T h w"] | None = None,
        layers: Sequence[int] = (),
        camera_token: bool = False,
        aspect_ratio: Float[Tensor, "B ..."] | None = None,
        rope_scales: tuple[float, float] = (1.0, 1.0),
        times: Float[Tensor, "*rows T"] | None = None,
        grid_tables: PositionTables | None = None,
    ) -> BackboneOutput:
        """Features of frames at given positions in their stream; the shared path of clips and streams.

        Args:
            images: Normalised frames.
            frame_indices: Absolute index of each frame: [T] for all rows, or [B, T].
            context: Provides the attention with past frames.
            masks: As for `forward`.
            layers: As for `forward`.
            camera_token: As for `forward`.
            aspect_ratio: As for `forward`, or one per frame [B, T].
            rope_scales: Training-time factors on the time and space coordinates.
            times: Time of each frame, in frames; the index if not given.
            grid_tables: Rotary tables of this patch grid; computed for this call if None.
        """
        self.check_layers(layers)
        _, T, _, H, W = images.shape
        h, w = self.grid_size(H, W)
        tokens = self._embed(images, frame_indices, masks, camera_token, aspect_ratio)
        num_prefix = tokens.shape[2] - h * w
        times = frame_indices if times is None else times
        if grid_tables is None:
            cos, sin = rope_tables(times, h, w, num_prefix, self.arch.head_dim, self.rope_layout, *rope_scales)
        else:
            cos, sin = grid_tables.at(times)
        cos, sin = (rearrange(table, "... t p d -> ... (t p) d") for table in (cos, sin))
        if times.ndim == 2:
            cos, sin = cos[:, None], sin[:, None]  # the same for all heads

        def grid(x: Tensor) -> Tensor:
            per_frame = rearrange(x, "b (t p) d -> b t p d", t=T)
            return rearrange(per_frame[:, :, num_prefix:], "b t (h w) d -> b t h w d", h=h)

        x = rearrange(tokens, "b t p d -> b (t p) d")
        patches = {}
        for i, block in enumerate(self.blocks):
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, context, use_reentrant=False)
            else:
                x = block(x, cos, sin, context)
            if i in layers:
                patches[i] = grid(x)
        x = self.norm(x)
        special = rearrange(x, "b (t p) d -> b t p d", t=T)[:, :, :num_prefix]
        return BackboneOutput(
            patches=patches,
            last=grid(x),
            cls=special[:, :, 0],
            registers=special[:, :, -NUM_REGISTERS:],
            camera=special[:, :, 1] if camera_token else None,
        )

    def _embed(
        self,
        images: Tensor,
        frame_indices: Tensor,
        masks: Tensor | None,
        camera_token: bool,
        aspect_ratio: Tensor | None,
    ) -> Tensor:
        """Tokens [B, T, P, D] in the order CLS, camera, registers, patches row by row."""
        B, T = images.shape[:2]
        patches = self.patch_embed(rearrange(images, "b t c h w -> (b t) c h w"))
        if masks is not None:
            expected = (B, T, *patches.shape[-2:])
            if masks.shape != expected:
                raise ValueError(f"masks must have shape {expected} (B, T, h, w), got {tuple(masks.shape)}")
            blank = self.mask_token.view(1, -1, 1, 1).to(patches.dtype)
            patches = torch.where(rearrange(masks, "b t h w -> (b t) 1 h w"), blank, patches)
        patches = rearrange(patches, "(b t) d h w -> b t (h w) d", b=B)
        later = (frame_indices > 0).long()
        special = [self.cls_token.expand(B, T, -1)[:, :, None]]
        if camera_token:
            camera = self.camera_token[0, later].expand(B, -1, -1, -1)
            if aspect_ratio is not None:
                camera = camera + self.aspect_embed(aspect_ratio.log().view(B, -1, 1, 1).to(camera.dtype))
            special.append(camera)
        elif aspect_ratio is not None:
            check_camera_token(camera_token)
        special.append(self.register_token[0, later].expand(B, -1, -1, -1))
        return torch.cat([token.to(patches.dtype) for token in special] + [patches], dim=2)

    def _draw_scales(self) -> tuple[float, float]:
        """Training-time factors on (time, space), drawn by every process for itself; 1 in eval mode."""
        if not self.training or self.rope_rescale is None:
            return 1.0, 1.0
        return draw_scale(self.rope_rescale), draw_scale(self.rope_rescale)
