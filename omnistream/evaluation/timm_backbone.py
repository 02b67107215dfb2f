"""Any vision transformer of timm as a `Backbone`: frame by frame, without memory."""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from omnistream.backbone import BackboneOutput


class TimmBackbone(nn.Module):
    """A ViT of timm; every frame is encoded by itself.

    `cls` is the class token after the final norm, or the mean of the patch tokens where the model has none; other
    prefix tokens are `registers`. `patches` are block outputs before the final norm.

    Args:
        name: Name in timm, such as `vit_small_patch16_dinov3`.
        pretrained: Download timm's weights.
        image_size: Side that learned position embeddings are resampled to, for models that need a fixed size; None for
            images of any size.

    Raises:
        ValueError: If timm has no such model, or it is not a ViT with one patch size and intermediate outputs.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, *, pretrained: bool = False, image_size: int | None = None) -> None:
        super().__init__()
        import timm  # takes a second

        if not timm.is_model(name):
            close = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:3]
            raise ValueError(f"timm has no model {name!r}; see timm.list_models(), for example {', '.join(close)}")
        size = {"dynamic_img_size": True} if image_size is None else {"img_size": image_size}
        try:
            model: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, **size)
        except TypeError as error:
            raise ValueError(f"timm's {name} is not a ViT that takes {next(iter(size))}: {error}") from error
        if not hasattr(model, "forward_intermediates") or not hasattr(model, "num_prefix_tokens"):
            raise ValueError(f"timm's {name} is not a ViT: it lacks patch tokens or intermediate outputs")
        self.model, self.name = model, name
        self.embed_dim, self.num_layers = int(model.embed_dim), len(model.blocks)
        self.patch_size = int(model.patch_embed.patch_size[0])
        config = model.pretrained_cfg
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(config[key]).view(3, 1, 1), persistent=False)

    def normalize(self, images: UInt8[Tensor, "*N 3 H W"]) -> Float[Tensor, "*N 3 H W"]:
        """Subtract the mean and divide by the standard deviation of timm's configuration of the model."""
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def forward(self, images: Float[Tensor, "B T 3 H W"], *, layers: Sequence[int] = ()) -> BackboneOutput:
        """Features of every frame; see `Backbone`.

        Raises:
            ValueError: If a layer does not exist, or a side is not a multiple of the patch size.
        """
        if bad := [layer for layer in layers if not 0 <= layer < self.num_layers]:
            raise ValueError(f"layers {bad} do not exist; {self.name} has blocks 0 to {self.num_layers - 1}")
        B, T, _, H, W = images.shape
        if H % self.patch_size or W % self.patch_size:
            raise ValueError(f"image sides must be multiples of the patch size {self.patch_size}, got {H} x {W}")
        frames = rearrange(images, "b t c h w -> (b t) c h w")
        model: Any = self.model
        tokens, patches = (
            model.forward_intermediates(frames, indices=list(layers), norm=False, output_fmt="NLC")
            if layers
            else (model.forward_features(frames), [])
        )
        prefix = model.num_prefix_tokens
        shape = {"b": B, "t": T, "h": H // self.patch_size, "w": W // self.patch_size}

        def grid(x: Tensor) -> Tensor:
            return rearrange(x, "(b t) (h w) d -> b t h w d", **shape)

        own, special = tokens[:, prefix:], rearrange(tokens[:, :prefix], "(b t) n d -> b t n d", b=B)
        has_cls = getattr(model, "cls_token", None) is not None
        return BackboneOutput(
            patches=dict(zip(sorted(layers), map(grid, patches), strict=True)),
            last=grid(own),
            cls=special[:, :, 0] if has_cls else rearrange(own.mean(1), "(b t) d -> b t d", b=B),
            registers=special[:, :, int(has_cls) :],
            camera=None,
        )
