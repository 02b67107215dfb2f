"""What V-JEPA 2 does to the frames of a segment in action recognition: augmentation and spatial views."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomErasing, v2
from torchvision.transforms.v2 import functional as vision

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What ImageNet's normalisation subtracts and divides by."""


class ClipAugmentation:
    """RandAugment, a random resized crop and random erasing, each the same in all frames of a segment.

    There is no horizontal flip, which would exchange classes such as "from left to right". Erased pixels are those that
    normalise to standard normal noise, as far as uint8 holds it.

    Args:
        size: Side of the square crop in pixels.
        scale: Area of the crop, relative to the frame.
        ratio: Aspect ratio of the crop, log-uniform.
        rand_augment: Policy in timm's notation; null for none.
        erase: Probability of erasing one box of 2 % to 1/3 of the area.

    Source: facebookresearch/vjepa2 evals/video_classification_frozen/utils.py, app and src/datasets/utils/video.
    """

    def __init__(
        self,
        size: int = 256,
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        rand_augment: str | None = "rand-m7-n4-mstd0.5-inc1",
        erase: float = 0.25,
    ) -> None:
        if size < 1 or not 0 <= erase <= 1:
            raise ValueError(f"size must be positive and erase a probability; got {size} and {erase}")
        from timm.data.auto_augment import rand_augment_transform  # takes a second

        self.crop = v2.RandomResizedCrop(size, scale, ratio, InterpolationMode.BILINEAR, antialias=False)
        self.erase = erase
        bicubic = {"interpolation": Image.Resampling.BICUBIC}
        self.colours = None if rand_augment is None else rand_augment_transform(rand_augment, bicubic)

    def __call__(self, frames: UInt8[Tensor, "T 3 H W"]) -> UInt8[Tensor, "T 3 S S"]:
        """The augmented frames; choices are drawn from torch's global generator."""
        return self._erase(self.crop(self._distort(frames)))

    def _distort(self, frames: UInt8[Tensor, "T 3 H W"]) -> UInt8[Tensor, "T 3 H W"]:
        if self.colours is None:
            return frames
        seed, distorted = int(torch.randint(2**31, ())), []
        for frame in frames:
            with _seeded_python(seed):  # every frame meets the same choices
                distorted.append(vision.pil_to_tensor(self.colours(vision.to_pil_image(frame))))
        return torch.stack(distorted)

    def _erase(self, frames: UInt8[Tensor, "T 3 S S"]) -> UInt8[Tensor, "T 3 S S"]:
        if float(torch.rand(())) >= self.erase:
            return frames
        top, left, height, width, _ = RandomErasing.get_params(frames, (0.02, 1 / 3), (0.3, 10 / 3), [0.0])
        mean, std = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))
        noise = mean + std * torch.randn(len(frames), 3, height, width)
        frames[..., top : top + height, left : left + width] = (255 * noise).round().clamp(0, 255).to(torch.uint8)
        return frames


class SpatialViews:
    """Square crops of a clip along its longer side, as an axis before the frames.

    The shorter side is scaled to `size`; the crops start at 0, s, 2 s, ..., for 3 views with s half of what the longer
    side has more. A single view is the centre of a frame that is scaled to `size` * 256 / 224.

    Args:
        size: Side of the crops in pixels.
        num_views: Crops.

    Raises:
        ValueError: If an argument is not positive.

    Source: facebookresearch/vjepa2 evals/video_classification_frozen/utils.py (bilinear, without antialiasing).
    """

    def __init__(self, size: int = 256, num_views: int = 3) -> None:
        if min(size, num_views) < 1:
            raise ValueError(f"size and num_views must be positive, got {size} and {num_views}")
        self.size, self.num_views = size, num_views

    def __call__(self, frames: UInt8[Tensor, "T 3 H W"]) -> UInt8[Tensor, "V T 3 S S"]:
        """The views of a clip."""
        side = self.size if self.num_views > 1 else int(self.size * 256 / 224)
        frames = vision.resize(frames, [side], InterpolationMode.BILINEAR, antialias=False)
        if self.num_views == 1:
            return vision.center_crop(frames, [self.size])[None]
        H, W = frames.shape[-2:]
        step = (max(H, W) - self.size) // (self.num_views - 1)
        dim = -1 if W > H else -2
        return torch.stack([frames.narrow(dim, i * step, self.size) for i in range(self.num_views)])


@contextmanager
def _seeded_python(seed: int) -> Iterator[None]:
    """A context in which the generators of Python and NumPy, which timm draws from, start from `seed`."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
