"""Folders of pictures in the ImageNet layout."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from omnistream.data.batch import FrameClip
from omnistream.data.files import IMAGE_SUFFIXES, Split, existing_folder, find_files, require_usable, split_items
from omnistream.data.media.image import read_image
from omnistream.data.media.resize import Crop, crop_square, resize_images, short_side_size
from omnistream.data.quarantine import NothingUsableError, Quarantine
from omnistream.data.resampling import ResamplingDataset
from omnistream.data.sampling import SampleKey, sample_rng, sample_seed

_CROP_SALT = 1


class ImageFolder(ResamplingDataset[FrameClip]):
    """Pictures of one folder per class, as clips of one frame.

    Layout: `<root>/<class>/**/<name>.JPEG`; pictures that lie in `root` itself have no class (label -1). Classes are
    numbered by sorted folder name, which is ImageNet's index only where all 1000 folders are present; `classes` fixes
    the numbers for a part of them.

    Broken files are recorded and another sample is drawn instead.

    Args:
        root: The folder of class folders.
        size: Scale the shorter side to this length; None keeps the pictures as they are.
        crop: `center` or `random` cuts a square, so that samples of one `size` can be batched; `none` keeps the whole.
        split: Take all pictures, or the training or held-out part of them.
        val_fraction: Held-out part.
        classes: Class folder names in the order of their labels.
        seed: Determines random crops, replacements, and each sample's `seed`.
        quarantine: Records broken files; by default up to 20 % are skipped.

    Raises:
        NothingUsableError: If there is no picture that can be read.
        ValueError: If a class folder is missing from `classes`.
    """

    collate = staticmethod(FrameClip.collate)

    def __init__(
        self,
        root: str | Path,
        *,
        size: int | None = None,
        crop: Crop = "none",
        split: Split = "all",
        val_fraction: float = 0.1,
        classes: Sequence[str] | None = None,
        seed: int = 0,
        quarantine: Quarantine | None = None,
    ) -> None:
        super().__init__(seed, quarantine)
        self.root = existing_folder(root)
        self.size, self.crop = size, crop
        files = find_files(self.root, IMAGE_SUFFIXES)
        self.classes = list(classes) if classes is not None else sorted({n for f in files if (n := self._class(f))})
        self._label = {name: label for label, name in enumerate(self.classes)}
        unknown = sorted({n for f in files if (n := self._class(f)) and n not in self._label})
        if unknown:
            raise ValueError(f"{self.root}: class folders that are not in `classes`: {unknown[:5]}")
        self.files = split_items(files, split, val_fraction)
        if files and not self.files:
            raise NothingUsableError(f"{self.root}: {len(files)} pictures are too few for the {split} split")
        require_usable(self.root, "pictures", self.files, read_image, self.quarantine)

    def _class(self, path: Path) -> str | None:
        parts = path.relative_to(self.root).parts
        return parts[0] if len(parts) > 1 else None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def num_files(self) -> int:
        """One file per sample."""
        return len(self.files)

    def _read(self, key: SampleKey) -> FrameClip:
        path = self.files[key.index]
        image = fit_image(read_image(path), self.size, self.crop, sample_rng(self.seed, key, _CROP_SALT))
        name = self._class(path)
        return FrameClip(
            images=image[None],
            label=torch.tensor(-1 if name is None else self._label[name]),
            name=str(path),
            seed=sample_seed(self.seed, key),
        )


def fit_image(
    image: UInt8[Tensor, "3 H W"], size: int | None, crop: Crop, rng: np.random.Generator
) -> UInt8[Tensor, "3 h w"]:
    """Scale the shorter side to `size` and cut a square, as told."""
    height, width = image.shape[-2:]
    return crop_square(resize_images(image, short_side_size(height, width, size)), crop, rng)
