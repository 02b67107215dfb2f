"""Any vision transformer of timm as a `Backbone`: frame by frame, without memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from omnistream.backbone import BackboneOutput
from omnistream.errors import one_line
from omnistream.paths import expand_path


class TimmBackbone(nn.Module):
    """A ViT of timm, such as DINOv2, DINOv3 or SigLIP 2; every frame is encoded by itself.

    `cls` is the class token after the final norm. Models without one have in its place what timm pools: the output of
    attention pooling (SigLIP) where the model has it, else the mean of the patch tokens; `summary` says which. Other
    prefix tokens are `registers`. `patches` are block outputs before the final norm.

    Args:
        name: Name in timm, such as `vit_large_patch16_dinov3.lvd1689m` or `vit_base_patch16_siglip_224.v2_webli`.
        pretrained: Download timm's weights.
        checkpoint: Load these weights instead: a file of timm's, or one as published that timm converts, such as
            Meta's DINOv2 and DINOv3. Pickled files are read without running code.
        image_size: Side that learned position embeddings are resampled to, for models that need a fixed size; None for
            images of any size.

    Raises:
        ValueError: If timm has no such model, it is not a ViT with one patch size and intermediate outputs, or the
            checkpoint holds other weights.
        FileNotFoundError: If there is no such checkpoint.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = False,
        checkpoint: str | Path | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        import timm  # takes a second

        if not timm.is_model(name):
            close = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:3]
            raise ValueError(f"timm has no model {name!r}; see timm.list_models(), for example {', '.join(close)}")
        size: dict[str, Any] = {"dynamic_img_size": True} if image_size is None else {"img_size": image_size}
        if checkpoint is not None:
            size["pretrained_cfg_overlay"] = _weights(name, expand_path(checkpoint))
        try:
            model: Any = timm.create_model(name, pretrained=pretrained or checkpoint is not None, num_classes=0, **size)
        except RuntimeError as error:
            if checkpoint is None:
                raise
            raise ValueError(f"{checkpoint} holds no weights of timm's {name}: {one_line(error, 300)}") from error
        except TypeError as error:
            raise ValueError(f"timm's {name} is not a ViT that takes {next(iter(size))}: {error}") from error
        if not hasattr(model, "forward_intermediates") or not hasattr(model, "num_prefix_tokens"):
            raise ValueError(f"timm's {name} is not a ViT: it lacks patch tokens or intermediate outputs")
        self.model, self.name = model, name
        self.embed_dim, self.num_layers = int(model.embed_dim), len(model.blocks)
        self.patch_size = int(model.patch_embed.patch_size[0])
        config = model.pretrained_cfg
        config.pop("state_dict", None)
        self.summary = "class token" if _has_cls(model) else "attention pooling" if _pools(model) else "mean of patches"
        """What `cls` is."""
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
        return BackboneOutput(
            patches=dict(zip(sorted(layers), map(grid, patches), strict=True)),
            last=grid(own),
            cls=rearrange(self._summarize(tokens), "(b t) d -> b t d", b=B),
            registers=special[:, :, int(_has_cls(model)) :],
            camera=None,
        )

    def _summarize(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N D"]:
        """`cls` of every frame."""
        model: Any = self.model
        if _has_cls(model):
            return tokens[:, 0]
        return model.attn_pool(tokens) if _pools(model) else tokens[:, model.num_prefix_tokens :].mean(1)


def _weights(name: str, path: Path) -> dict[str, Any]:
    """Settings with which timm takes weights from a file, converts them, and accepts no others than the model's."""
    from timm.models import get_pretrained_cfg, load_state_dict

    if not path.is_file():
        raise FileNotFoundError(f"no weights of {name} at {path}")
    try:
        state = load_state_dict(str(path))
    except Exception as error:  # of several libraries, by the kind of file
        raise ValueError(f"{path} cannot be read as weights: {one_line(error, 300)}") from error
    head = f"{getattr(get_pretrained_cfg(name), 'classifier', None) or 'head'}."
    kept = {key: value for key, value in state.items() if not key.startswith(head)}
    return {"state_dict": kept, "num_classes": 0, "custom_load": False}


def _has_cls(model: Any) -> bool:
    return getattr(model, "cls_token", None) is not None


def _pools(model: Any) -> bool:
    return getattr(model, "attn_pool", None) is not None
