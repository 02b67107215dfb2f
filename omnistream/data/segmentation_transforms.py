"""Transforms of images with a class per pixel: the augmentation and the evaluation of linear probing on ADE20K.

A transform takes an image, uint8 [1, 3, H, W], and its labels, uint8 [H, W], as `torchvision.tv_tensors.Image` and
`Mask`, so those of `torchvision.transforms.v2` serve as well. What is random is drawn from torch's global generator,
which data sets seed for every sample.

The augmentation is that of DINOv3 (`dinov3/eval/segmentation/transforms.py`); mmsegmentation's differs in the range of
hues, which is an option. Unlike theirs, images stay uint8: they are normalised on the device.
"""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from omnistream.metrics.segmentation import IGNORE_INDEX

DINOV3_HUE, MMSEG_HUE = 0.5, 0.1
"""Largest shift of the hue in turns of the colour wheel; mmsegmentation's is 18 of 180 degrees of OpenCV."""
MEAN_COLOUR = (124, 116, 104)
"""Of ImageNet, rounded: what images are padded with, about 0 once they are normalised."""


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))


def _coin(probability: float = 0.5) -> bool:
    return bool(torch.rand(()) < probability)


def shorter_side_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width with the shorter side scaled to `size`, the longer one rounded half up."""
    if height > width:
        return int(size * height / width + 0.5), size
    return size, int(size * width / height + 0.5)


class ResizeShorterSide:
    """Scales the shorter side to a size, with the longer one in proportion and without a limit.

    Images are resized bilinearly by Pillow, as in DINOv3: it averages when it makes an image smaller. Labels take the
    nearest pixel.

    Args:
        size: Of the shorter side in pixels.
        scale: Factors of `size`, lowest and highest; drawn evenly for every image.
        labels: Resize the labels too; evaluation leaves them in the size of the file.
    """

    def __init__(self, size: int, scale: tuple[float, float] = (1.0, 1.0), *, labels: bool = True) -> None:
        if size < 1 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f"expected a positive size and scale (lowest, highest), got {size} and {scale}")
        self.size, self.scale, self.labels = size, scale, labels

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The resized image and labels."""
        drawn = self.size if self.scale[0] == self.scale[1] == 1 else int(self.size * _uniform(*self.scale))
        height, width = image.shape[-2:]
        size = list(shorter_side_size(height, width, drawn))
        resized = F.resize(F.to_pil_image(image[0]), size, InterpolationMode.BILINEAR)
        image = tv_tensors.Image(F.pil_to_tensor(resized)[None])
        return image, F.resize(labels, size, InterpolationMode.NEAREST) if self.labels else labels


class RandomLabelCrop:
    """A random square in which no class prevails.

    It is drawn again, at most 10 times, until it holds more than one class and none on `max_share` of its labelled
    pixels. Sides that are shorter than the square stay as they are.

    Args:
        size: Side of the square in pixels.
        max_share: Share that no class may reach.
    """

    tries = 10

    def __init__(self, size: int, max_share: float = 0.75) -> None:
        self.size, self.max_share = size, max_share

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The crop of both."""
        box = self._box(labels)
        for _ in range(self.tries):
            if self._is_varied(F.crop(labels, *box)):
                break
            box = self._box(labels)
        return F.crop(image, *box), F.crop(labels, *box)

    def _box(self, labels: Tensor) -> tuple[int, int, int, int]:
        sides = [min(length, self.size) for length in labels.shape[-2:]]
        top, left = (int(torch.randint(n - s + 1, ())) for n, s in zip(labels.shape[-2:], sides, strict=True))
        return top, left, sides[0], sides[1]

    def _is_varied(self, labels: Tensor) -> bool:
        counts = torch.bincount(labels[labels != IGNORE_INDEX].flatten().long())
        return int((counts > 0).sum()) > 1 and bool(counts.max() / counts.sum() < self.max_share)


class PhotometricDistortion:
    """Random brightness, contrast, saturation and hue, each with probability 0.5; contrast first or last.

    Args:
        hue: Largest shift in turns of the colour wheel, at most 0.5.
        brightness: Largest number added to or subtracted from values of 0 to 255.
        contrast: Lowest and highest factor of the values.
        saturation: Lowest and highest factor of the difference from grey.
    """

    def __init__(
        self,
        hue: float = DINOV3_HUE,
        brightness: float = 32.0,
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
    ) -> None:
        if not 0 <= hue <= 0.5:
            raise ValueError(f"hue must be from 0 to 0.5 turns, got {hue}")
        self.hue, self.brightness, self.contrast, self.saturation = hue, brightness, contrast, saturation

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The distorted image, and the labels as they are."""
        colours = [self._saturate, self._shift_hue]
        steps = [self._brighten, *([self._scale, *colours] if _coin() else [*colours, self._scale])]
        for step in steps:
            if _coin():
                image = step(image)
        return image, labels

    def _brighten(self, image: Tensor) -> Tensor:
        return _bytes(image.float() + _uniform(-self.brightness, self.brightness))

    def _scale(self, image: Tensor) -> Tensor:
        return _bytes(image.float() * _uniform(*self.contrast))

    def _saturate(self, image: Tensor) -> Tensor:
        return F.adjust_saturation(image, _uniform(*self.saturation))

    def _shift_hue(self, image: Tensor) -> Tensor:
        return F.adjust_hue(image, _uniform(-self.hue, self.hue))


def _bytes(values: Tensor) -> Tensor:
    return tv_tensors.Image(values.clamp(0, 255).to(torch.uint8))  # rounds down, as the original


class PadToSquare:
    """Extends the right and the bottom to a square: the image in the mean colour, the labels with 255.

    Args:
        size: Side of the square in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The padded image and labels."""
        height, width = image.shape[-2:]
        sides = [0, 0, max(self.size - width, 0), max(self.size - height, 0)]
        return F.pad(image, sides, fill=list(MEAN_COLOUR)), F.pad(labels, sides, fill=IGNORE_INDEX)


def segmentation_augmentation(
    size: int = 512, scale: tuple[float, float] = (0.5, 2.0), hue: float = DINOV3_HUE
) -> v2.Compose:
    """Training: resize, crop, flip, distort and pad, in this order.

    Args:
        size: Side of the square in pixels.
        scale: Range of the shorter side before cropping, as factors of `size`.
        hue: Largest shift of the hue; see `PhotometricDistortion`.
    """
    flip: Any = v2.RandomHorizontalFlip(0.5)
    return v2.Compose(
        [
            ResizeShorterSide(size, scale),
            RandomLabelCrop(size),
            flip,
            PhotometricDistortion(hue),
            PadToSquare(size),
        ]
    )
