"""Colours of classes and objects in label images."""

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor


def label_palette(size: int = 256) -> UInt8[Tensor, "size 3"]:
    """Colours of PASCAL VOC, which DAVIS uses too: 0 black, 1 dark red (128, 0, 0), 2 dark green, 3 olive, ...

    The bits of a label are dealt to red, green and blue in turn, from their highest bits down.

    Args:
        size: Number of labels, at most 256.
    """
    labels = torch.arange(size)
    colours = torch.zeros(size, 3, dtype=torch.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((labels >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.to(torch.uint8)


def colour_classes(labels: Shaped[Tensor, "H W"], ignore_index: int = 255) -> UInt8[Tensor, "3 H W"]:
    """An image of class labels: class k in colour k + 1 of `label_palette`, ignored pixels black.

    Args:
        labels: Classes from 0 to 254, of any integer type.
        ignore_index: Label of pixels without a class.
    """
    places = torch.where(labels == ignore_index, 0, labels.long() + 1).cpu()
    return label_palette()[places].permute(2, 0, 1)
