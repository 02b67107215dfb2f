"""Folders of images in the ImageNet layout."""

import os
from collections.abc import Sequence

import torch

from omnistream.data.batch import FrameClip
from omnistream.data.broken_files import BrokenFiles, FileDataset, require_readable
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import IMAGE_SUFFIXES, dataset_root, find_files
from omnistream.data.media.image import read_image
from omnistream.data.path_table import Selection
from omnistream.data.sampling import SampleKey, sample_seed
from omnistream.data.splits import Split, split_positions
from omnistream.data.transforms import ImageTransform, transform_images

EXPECTED = "a folder of class folders with images"


class ImageFolder(FileDataset[FrameClip]):
    """Images of one folder per class, as clips of one frame.

        <root>/<class>/**/<name>.JPEG      any format that Pillow reads, by content

    Images in `root` itself have no class (label -1). Classes are numbered by sorted folder name, which is
    ImageNet's index only where all 1000 folders are present; `classes` fixes the numbers for a part of them. Links to
    folders are followed. EXIF orientation is applied.

    Broken files are logged and another sample is drawn instead.

    Args:
        root: The folder of class folders.
        transform: Applied to the image, uint8 [1, 3, H, W].
        split: The training or held-out part of the folder; null for all of it.
        val_fraction: Held-out fraction.
        classes: Class folder names in the order of their labels.
        seed: Determines what `transform` draws, replacements, and each sample's `seed`.
        broken_files: Records broken files; by default up to 20 % are skipped.

    Raises:
        DatasetNotFoundError: If there is no image that can be read.
        ValueError: If a class folder is missing from `classes`.
    """

    collate = staticmethod(FrameClip.collate)

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: ImageTransform | None = None,
        *,
        split: Split | None = None,
        val_fraction: float = 0.1,
        classes: Sequence[str] | None = None,
        seed: int = 0,
        broken_files: BrokenFiles | None = None,
    ) -> None:
        super().__init__(seed, broken_files)
        self.root, self.transform = dataset_root(root, EXPECTED), transform
        table = find_files(self.root, IMAGE_SUFFIXES)
        found = sorted({folder.split("/")[0] for folder in table.folders if folder})
        self.classes = list(classes) if classes is not None else found
        self._label = {name: label for label, name in enumerate(self.classes)}
        if unknown := [name for name in found if name not in self._label]:
            raise ValueError(f"{self.root}: class folders that are not in `classes`: {unknown[:5]}")
        self.files = Selection(table, split_positions(len(table), split, val_fraction))
        if not self.files:
            problem = f": {len(table)} images are too few for the {split} split" if table else " holds no images"
            raise DatasetNotFoundError(f"{self.root}{problem}", EXPECTED)
        require_readable("images", self.root, self.files, read_image, self.broken_files)

    def __len__(self) -> int:
        return len(self.files)

    def _read(self, key: SampleKey) -> FrameClip:
        path, seed = self.files[key.index], sample_seed(self.seed, key)
        name = self.files.folder(key.index).split("/")[0]  # empty for images in the root itself
        return FrameClip(
            images=transform_images(self.transform, read_image(path)[None], seed),
            label=torch.tensor(self._label[name] if name else -1),
            name=str(path),
            seed=seed,
        )
