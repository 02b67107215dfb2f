"""Transforms of the published image classification probes, for images as uint8 [T, 3, H, W]."""

from torchvision.transforms import InterpolationMode, v2

_RESIZE = 256 / 224
"""Shorter side before the central crop, over the side of the crop."""


def random_resized_crop(size: int) -> v2.Compose:
    """A random part of 8 to 100 % of the image in an aspect of 3/4 to 4/3, bicubic, flipped in half of the cases.

    Args:
        size: Side of the result in pixels (published: 224).

    Source: facebookresearch/dinov3 dinov3/data/transforms.py, make_classification_train_transform.
    """
    crop = v2.RandomResizedCrop(size, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip()])


def center_crop(size: int) -> v2.Compose:
    """The shorter side to 256 for a crop of 224, in proportion for others, bicubic; then the central square.

    Args:
        size: Side of the result in pixels (published: 224).

    Source: facebookresearch/dinov3 dinov3/data/transforms.py, make_classification_eval_transform.
    """
    resize = v2.Resize(round(size * _RESIZE), interpolation=InterpolationMode.BICUBIC, antialias=True)
    return v2.Compose([resize, v2.CenterCrop(size)])
