"""Sizes of the backbone: every DINOv3 ViT, and small ones for tests and the quickstart."""

from dataclasses import dataclass
from typing import Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# DINOv3's for its models trained on satellite images; facebookresearch/dinov3: README.md.
SAT493M_MEAN = (0.430, 0.411, 0.296)
SAT493M_STD = (0.213, 0.156, 0.143)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Architecture of one backbone size."""

    embed_dim: int
    """Width D."""
    num_layers: int
    """Number of transformer blocks L."""
    num_heads: int
    """Attention heads; the head width is `embed_dim / num_heads`."""
    hidden_dim: int
    """Width inside the feed-forward network."""
    ffn: Literal["mlp", "swiglu"] = "mlp"
    """GELU MLP or SwiGLU."""
    qkv_bias: bool = True
    """Whether the query/key/value projection has a bias."""
    patch_size: int = 16
    """Side of a patch in pixels."""
    default_layers: tuple[int, int, int, int] = (2, 5, 8, 11)
    """Four blocks (0-based) whose outputs a dense head reads."""
    timm_name: str | None = None
    """Name of the same DINOv3 model in timm, for `pretrained=True`."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Channel means the weights expect, for images in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Channel standard deviations."""
    description: str = ""
    """One line for `omnistream models`."""

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.embed_dim // self.num_heads


# Sizes: facebookresearch/dinov3: dinov3/hub/backbones.py. Layers (4, 11, 17, 23) of 24 blocks: the released setting.
VARIANTS: dict[str, Variant] = {
    "vit_nano": Variant(
        embed_dim=64, num_layers=4, num_heads=2, hidden_dim=256, patch_size=8, default_layers=(0, 1, 2, 3),
        description="for tests",
    ),
    "vit_tiny": Variant(
        embed_dim=128, num_layers=6, num_heads=4, hidden_dim=512, patch_size=8, default_layers=(1, 2, 4, 5),
        description="for the quickstart on a CPU",
    ),
    "vit_small": Variant(
        embed_dim=384, num_layers=12, num_heads=6, hidden_dim=1536,
        timm_name="vit_small_patch16_dinov3_qkvb.lvd1689m", description="DINOv3 ViT-S/16",
    ),
    "vit_small_plus": Variant(
        embed_dim=384, num_layers=12, num_heads=6, hidden_dim=1536, ffn="swiglu",
        timm_name="vit_small_plus_patch16_dinov3_qkvb.lvd1689m", description="DINOv3 ViT-S+/16",
    ),
    "vit_base": Variant(
        embed_dim=768, num_layers=12, num_heads=12, hidden_dim=3072,
        timm_name="vit_base_patch16_dinov3_qkvb.lvd1689m", description="DINOv3 ViT-B/16",
    ),
    "vit_large": Variant(
        embed_dim=1024, num_layers=24, num_heads=16, hidden_dim=4096, default_layers=(4, 11, 17, 23),
        timm_name="vit_large_patch16_dinov3_qkvb.lvd1689m", description="DINOv3 ViT-L/16, the paper's",
    ),
    "vit_huge_plus": Variant(
        embed_dim=1280, num_layers=32, num_heads=20, hidden_dim=5120, ffn="swiglu", default_layers=(7, 15, 23, 31),
        timm_name="vit_huge_plus_patch16_dinov3_qkvb.lvd1689m", description="DINOv3 ViT-H+/16",
    ),
    "vit_7b": Variant(
        embed_dim=4096, num_layers=40, num_heads=32, hidden_dim=8192, ffn="swiglu", qkv_bias=False,
        default_layers=(9, 19, 29, 39), timm_name="vit_7b_patch16_dinov3.lvd1689m", description="DINOv3 ViT-7B/16",
    ),
}  # fmt: skip


def list_models() -> list[str]:
    """Names accepted by `create_model` and `OmniStream(variant=...)`, small to large."""
    return list(VARIANTS)


def get_variant(name: str) -> Variant:
    """The architecture with this name.

    Raises:
        ValueError: If there is no such variant; the message lists all variants.
    """
    if name not in VARIANTS:
        raise ValueError(f"unknown backbone variant {name!r}; choose one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
