"""Global and local crops of images and clips for self-supervision.

Only geometry happens here, on the CPU and in uint8: a box and a flip per view, the same for all frames, so that
apparent motion is real motion. Colours are distorted later, batched on the device.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from omnistream.boxes import Box
from omnistream.data.batch import ViewBatch
from omnistream.data.masking import (
    ImageMaskConfig,
    VideoMaskConfig,
    block_mask,
    block_shapes,
    masked_counts,
    video_mask,
)
from omnistream.data.sampling import SampleKey, batch_place, sample_rng

_CROP_SALT, _MASK_SALT, _BATCH_SALT = 101, 102, 103
_BOX_TRIES = 10


@dataclass(frozen=True)
class CropConfig:
    """Crops of one sample; scales are DINOv3's, two local crops are the released OmniStream configuration's."""

    global_size: int = 224
    """Side of a global crop in pixels, a multiple of the patch size."""
    local_size: int = 96
    """Side of a local crop in pixels, a multiple of the patch size."""
    num_global: int = 2
    """Global crops per sample."""
    num_local: int = 2
    """Local crops per sample."""
    global_scale: tuple[float, float] = (0.32, 1.0)
    """Area of a global crop relative to the image."""
    local_scale: tuple[float, float] = (0.05, 0.32)
    """Area of a local crop relative to the image."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of box width over height, log-uniform."""
    flip_probability: float = 0.5
    """Horizontal flip; 0 for data whose labels or meaning know left and right."""
    gram_size: int | None = None
    """If larger than `global_size`, global crops of images are cut at this size: the gram teacher sees them so, student
    and teacher see them reduced to `global_size`. None: all see the same. Not used for clips."""
    patch_size: int = 16
    """Of the backbone; determines the grid of the masks."""

    def __post_init__(self) -> None:
        for name in ("global_size", "local_size", "gram_size"):
            size = getattr(self, name)
            if size is not None and (size < 1 or size % self.patch_size):
                raise ValueError(f"{name} must be a positive multiple of patch_size={self.patch_size}, got {size}")
        if self.num_global < 2 or self.num_local < 0:
            raise ValueError(f"needs num_global >= 2 and num_local >= 0, got {self.num_global} and {self.num_local}")
        for name in ("global_scale", "local_scale", "aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be 0 < low <= high, got {(low, high)}")
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"flip_probability must be in [0, 1], got {self.flip_probability}")


def random_box(
    rng: np.random.Generator, size: tuple[int, int], scale: tuple[float, float], aspect: tuple[float, float]
) -> Box:
    """A box in whole pixels, of random area (relative to the image) and aspect (width over height), at a random place.

    If none fits in ten tries, the largest central box of an allowed aspect.

    Source: the rule of torchvision's RandomResizedCrop.
    """
    rows, columns = size
    low, high = math.log(aspect[0]), math.log(aspect[1])
    for _ in range(_BOX_TRIES):
        area = rows * columns * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(low, high))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= columns and 0 < height <= rows:
            top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
            return Box(left, top, left + width, top + height)
    ratio = min(max(columns / rows, aspect[0]), aspect[1])
    height, width = min(rows, round(columns / ratio)), min(columns, round(rows * ratio))
    top, left = (rows - height) // 2, (columns - width) // 2
    return Box(left, top, left + width, top + height)


def crop_resize(images: UInt8[Tensor, "T 3 H W"], box: Box, size: int, flip: bool) -> UInt8[Tensor, "T 3 S S"]:
    """The box of every frame, resized to a square (bicubic, antialiased) and perhaps mirrored."""
    x1, y1, x2, y2 = map(int, box)
    part = images[:, :, y1:y2, x1:x2]
    view = F.interpolate(part, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
    return view.flip(-1) if flip else view


class MultiCropDataset(Dataset[ViewBatch]):
    """Turns a data set of images or clips into views for `SSLModule`.

    Images (T=1) get block masks, clips tubes. Everything derives from (seed, epoch, index), except how many patches of
    an image are masked and how large the blocks of a clip are: that is spread over the batch, so it derives from the
    place in the global batch (`batch_place`). The number of processes changes nothing.

    Args:
        base: Yields FrameClip (uint8 [T, 3, H, W], any size) by index or SampleKey.
        crops: Sizes and numbers.
        seed: Of crops and masks.
        image_masking: Masks of images.
        video_masking: Masks of clips.
    """

    collate = staticmethod(ViewBatch.collate)

    def __init__(
        self,
        base: Dataset,
        crops: CropConfig | None = None,
        seed: int = 0,
        *,
        image_masking: ImageMaskConfig | None = None,
        video_masking: VideoMaskConfig | None = None,
    ) -> None:
        self.base, self.crops, self.seed = base, crops or CropConfig(), seed
        self.image_masking = image_masking or ImageMaskConfig()
        self.video_masking = video_masking or VideoMaskConfig()

    def __len__(self) -> int:
        return len(self.base)  # type: ignore[arg-type]

    def __getitem__(self, key: int | SampleKey) -> ViewBatch:
        clip = self.base[key]
        rng, crops = sample_rng(self.seed, key, _CROP_SALT), self.crops
        is_image = len(clip.images) == 1
        global_size = crops.gram_size if is_image and crops.gram_size else crops.global_size
        return ViewBatch(
            global_crops=self._views(rng, clip.images, crops.num_global, global_size, crops.global_scale),
            local_crops=self._views(rng, clip.images, crops.num_local, crops.local_size, crops.local_scale),
            masks=self._masks(key, len(clip.images)),
            seed=clip.seed,
            name=clip.name,
        )

    def _views(
        self, rng: np.random.Generator, images: Tensor, count: int, size: int, scale: tuple[float, float]
    ) -> UInt8[Tensor, "V T 3 S S"]:
        views = images.new_empty(count, len(images), 3, size, size)
        for view in views:
            box = random_box(rng, (images.shape[-2], images.shape[-1]), scale, self.crops.aspect)
            view.copy_(crop_resize(images, box, size, bool(rng.random() < self.crops.flip_probability)))
        return views

    def _masks(self, key: int | SampleKey, num_frames: int) -> Bool[Tensor, "G T h w"]:
        """Masks of one sample: what is spread over a batch by its place there, everything else by the sample."""
        num_global, side = self.crops.num_global, self.crops.global_size // self.crops.patch_size
        place, rng = batch_place(key, len(self)), sample_rng(self.seed, key, _MASK_SALT)
        batch_rng = np.random.default_rng([self.seed, place.batch, _BATCH_SALT])
        if num_frames > 1:
            shape = (num_frames, side, side)
            blocks = block_shapes(batch_rng, shape, self.video_masking)
            masks = [video_mask(rng, shape, blocks, self.video_masking) for _ in range(num_global)]
            return torch.from_numpy(np.stack(masks))
        counts = masked_counts(batch_rng, place.size * num_global, side**2, self.image_masking)
        own = counts[place.position * num_global : (place.position + 1) * num_global]
        masks = [block_mask(rng, (side, side), int(count), self.image_masking) for count in own]
        return torch.from_numpy(np.stack(masks)[:, None])
