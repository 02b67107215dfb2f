"""Transforms of an image together with its depth, and the published augmentation of NYUv2.

A transform of `NYUv2` takes an image (`tv_tensors.Image`, uint8 [3, H, W]) and its depth (`tv_tensors.Mask`, float32
[H, W], 0 where unknown), so those of `torchvision.transforms.v2` move both alike: images are interpolated, depth takes
the nearest value, and what comes from outside has no depth.
"""

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

TRAIN_BOX = (43, 45, 608, 472)
"""x1, y1, x2, y2 of the training crop; around it, images of NYUv2 have a white frame."""
EIGEN_BOX = (41, 45, 601, 471)
"""x1, y1, x2, y2 of the pixels that are evaluated (Eigen et al. 2014)."""
_SIZE = (480, 640)
"""Height and width that the boxes are for."""


def scaled_box(box: tuple[int, int, int, int], height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a box of 480x640 images in images of another size, cut to whole pixels.

    Source: facebookresearch/dinov3 dinov3/eval/depth/datasets/datasets_utils.py.
    """
    x1, y1, x2, y2 = box
    rows = slice(int(y1 / _SIZE[0] * height), int(y2 / _SIZE[0] * height))
    return rows, slice(int(x1 / _SIZE[1] * width), int(x2 / _SIZE[1] * width))


class BoxCrop(nn.Module):
    """Cuts out `TRAIN_BOX`, scaled to the size of the image."""

    def forward(self, image: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """The cropped pair."""
        rows, columns = scaled_box(TRAIN_BOX, *image.shape[-2:])
        return tv_tensors.Image(image[:, rows, columns]), tv_tensors.Mask(depth[rows, columns])


class DepthColor(nn.Module):
    """Changes the image by a power of its values in 0-255, its brightness, and the strength of each channel.

    Args:
        gamma: Range of the exponent.
        brightness: Range of the common factor.
        channel: Range of the factor of each channel.

    Source: facebookresearch/dinov3 dinov3/eval/depth/transforms.py (`ColorAug`), here rounded to uint8.
    """

    def __init__(
        self,
        gamma: tuple[float, float] = (0.9, 1.1),
        brightness: tuple[float, float] = (0.75, 1.25),
        channel: tuple[float, float] = (0.9, 1.1),
    ) -> None:
        super().__init__()
        self.gamma, self.brightness, self.channel = gamma, brightness, channel

    def forward(self, image: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """The changed image, and the depth as it is."""
        gamma, brightness = (torch.empty(1).uniform_(*span) for span in (self.gamma, self.brightness))
        factor = brightness * torch.empty(3, 1, 1).uniform_(*self.channel)
        values = image.as_subclass(Tensor).float() ** gamma * factor
        return tv_tensors.Image(values.clamp(0, 255).round().to(torch.uint8)), depth


def nyuv2_augmentation(size: tuple[int, int] = (416, 544), degrees: float = 2.5) -> v2.Compose:
    """The published training augmentation of NYUv2, in its order.

    Crop to `TRAIN_BOX`; with probability 0.5 rotate; with 0.5 mirror; cut a random window; with 0.5 change colours.

    Args:
        size: Height and width of the window.
        degrees: Largest angle of the rotation.

    Source: facebookresearch/dinov3 dinov3/eval/depth/transforms.py and configs/config-nyu.yaml; the same as in
    zhyever/Monocular-Depth-Estimation-Toolbox configs/_base_/datasets/nyu.py.
    """
    rotate = v2.RandomRotation(degrees, InterpolationMode.BILINEAR)
    return v2.Compose(
        [
            BoxCrop(),
            v2.RandomApply([rotate], p=0.5),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomCrop(size),
            v2.RandomApply([DepthColor()], p=0.5),
        ]
    )
