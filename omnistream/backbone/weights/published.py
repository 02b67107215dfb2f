"""Published weights that `OmniStream.from_pretrained` loads by their hub id.

Sources: Go2Heart/OmniStream: README.md; facebookresearch/dinov3: README.md; timm's registry.
"""

from dataclasses import dataclass

from omnistream.backbone.variants import VARIANTS

SATELLITE_VARIANTS = ("vit_large", "vit_7b")
"""Sizes of which there is a DINOv3 trained on satellite images."""

_META_NAMES = {
    "vit_small": "vits16",
    "vit_small_plus": "vits16plus",
    "vit_base": "vitb16",
    "vit_large": "vitl16",
    "vit_huge_plus": "vith16plus",
    "vit_7b": "vit7b16",
}


@dataclass(frozen=True)
class PublicWeights:
    """One repository of the Hugging Face hub."""

    hub_id: str
    """What `from_pretrained` takes."""
    variant: str
    """Size of the model."""
    description: str
    """Who made it, from what."""
    name: str | None = None
    """Short name that can be given instead of the hub id; None if there is none."""


def list_public_weights() -> list[PublicWeights]:
    """Published weights in a known layout, the authors' release first.

    Example:
        >>> list_public_weights()[0].hub_id
        'StreamFormer/OmniStream'
    """
    found = [PublicWeights("StreamFormer/OmniStream", "vit_large", "the authors' release", "omnistream")]
    for tag, images, variants in (
        ("lvd1689m", "web images", tuple(_META_NAMES)),
        ("sat493m", "satellite images", SATELLITE_VARIANTS),
    ):
        for variant in variants:
            timm_name = timm_id(variant, tag)
            facebook = f"facebook/dinov3-{_META_NAMES[variant]}-pretrain-{tag}"
            name = f"dinov3_{_META_NAMES[variant]}_{tag}"
            found.append(PublicWeights(timm_name, variant, f"DINOv3, {images}", name))
            found.append(PublicWeights(facebook, variant, f"DINOv3, {images}; licence to accept on the hub"))
    return found


def find_published(name: str) -> str | None:
    """Hub id of the weights with this short name; None if there are none.

    Example:
        >>> find_published("dinov3_vitl16_lvd1689m")
        'timm/vit_large_patch16_dinov3_qkvb.lvd1689m'
    """
    return next((weights.hub_id for weights in list_public_weights() if weights.name == name), None)


def timm_id(variant: str, tag: str = "lvd1689m") -> str:
    """Hub id of timm's DINOv3 of this size, trained on the data set `tag`.

    Raises:
        ValueError: If there are none.
    """
    name = VARIANTS[variant].timm_name
    if name is None:
        raise ValueError(f"there are no pretrained weights for {variant}; give checkpoint=<file> instead")
    if tag == "sat493m" and variant not in SATELLITE_VARIANTS:
        raise ValueError(f"there are sat493m weights for {' and '.join(SATELLITE_VARIANTS)} only, not for {variant}")
    return f"timm/{name.split('.')[0]}.{tag}"
