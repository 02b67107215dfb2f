"""ImageNet-1K in the trees that people have: class folders, Kaggle's, and the original one with its devkit."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int16

from omnistream.data.batch import FrameClip
from omnistream.data.broken_files import BrokenFiles, FileDataset, require_readable
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import IMAGE_SUFFIXES, dataset_root, find_files
from omnistream.data.images.imagenet_labels import FlatLabels, class_names, flat_labels
from omnistream.data.media.image import read_image
from omnistream.data.path_table import PathTable
from omnistream.data.sampling import SampleKey, sample_seed
from omnistream.data.splits import Split, check_official_split
from omnistream.data.transforms import ImageTransform, transform_images

logger = logging.getLogger(__name__)

EXPECTED = (
    "{train,val}/<class>/*.JPEG, Kaggle's ILSVRC/Data/CLS-LOC/{train,val} beside LOC_val_solution.csv, or train/<class>, "
    "val/*.JPEG and ILSVRC2012_devkit_t12"
)
_PARENTS = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
"""Where `train` and `val` lie below the root."""
_NUM_IMAGES = {"train": 1_281_167, "val": 50_000}


class ImageNet(FileDataset[FrameClip]):
    """ImageNet-1K, or any other data in its tree, as clips of one frame.

    Three trees are recognised:

        <root>/{train,val}/<class>/*.JPEG                          class folders, as torchvision and timm want them
        <root>/ILSVRC/Data/CLS-LOC/{train/<class>,val}/*.JPEG      Kaggle's; labels of val: <root>/LOC_val_solution.csv
        <root>/{train/<class>,val}/*.JPEG                          the original; labels of val:
        <root>/ILSVRC2012_devkit_t12/data/{ILSVRC2012_validation_ground_truth.txt,meta.mat}

    Labels number the sorted class folders of `train`, which for all 1000 is the order that everybody uses; without
    `train`, those of `val` or of its labels. EXIF orientation is not applied, as in the published evaluations. Greyscale
    and CMYK become RGB.

    Args:
        root: The folder.
        split: `train` or `val`; the labels of ImageNet's test set are not public.
        transform: Applied to the image, uint8 [1, 3, H, W].
        seed: Determines what `transform` draws, replacements, and each sample's `seed`.
        broken_files: Records broken files; by default up to 20 % are skipped.

    Raises:
        DatasetNotFoundError: If the split is not there, has no labels, lacks images that its labels name, or holds no
            image that can be read.
        ValueError: If there is no such split, or if `val` and `train` differ in their classes.
    """

    collate = staticmethod(FrameClip.collate)
    official: tuple[Split, ...] = ("train", "val")

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: Split = "train",
        transform: ImageTransform | None = None,
        *,
        seed: int = 0,
        broken_files: BrokenFiles | None = None,
    ) -> None:
        super().__init__(seed, broken_files)
        check_official_split(split, self.official, "ImageNet-1K")
        self.root, self.split, self.transform = dataset_root(root, EXPECTED), split, transform
        folder = _split_folder(self.root, split)
        self.files = find_files(folder, IMAGE_SUFFIXES)
        if not self.files:
            raise DatasetNotFoundError(f"{folder} holds no images", EXPECTED)
        flat = flat_labels(self.root, folder) if set(self.files.folders) == {""} else None
        self.classes = self._find_classes(flat)
        """Names of the class folders, in the order of the labels."""
        self.class_names = class_names(self.root, self.classes)
        """What the classes are called, where the tree says so; else `classes`."""
        if len(self.classes) == 1000 and len(self.files) != _NUM_IMAGES[split]:
            logger.warning("%s holds %d images; ImageNet-1K has %d", folder, len(self.files), _NUM_IMAGES[split])
        index = {name: label for label, name in enumerate(self.classes)}
        self._labels = _folder_labels(self.files, index) if flat is None else _file_labels(self.files, flat, index)
        require_readable("images", folder, self.files, _read_stored, self.broken_files)

    def _find_classes(self, flat: FlatLabels | None) -> list[str]:
        own = sorted(set(flat.of_file.values()) if flat else {_class_of(name) for name in self.files.folders})
        if "" in own:
            raise DatasetNotFoundError(f"{self.files.root} holds images beside class folders", EXPECTED)
        if self.split == "train":
            return own
        try:
            train = _split_folder(self.root, "train")
        except DatasetNotFoundError:  # an evaluation alone needs no training images
            return own
        known = sorted(entry.name for entry in os.scandir(train) if entry.is_dir() and not entry.name.startswith("."))
        if known and (different := sorted(set(known) ^ set(own))):
            raise ValueError(
                f"{self.root}: train has {len(known)} classes and val {len(own)}; only one of them has {different[:5]}"
            )
        return known or own

    def __len__(self) -> int:
        return len(self.files)

    def label(self, index: int) -> int:
        """The label of an image, without reading it."""
        return int(self._labels[index])

    def _read(self, key: SampleKey) -> FrameClip:
        path, seed = self.files[key.index], sample_seed(self.seed, key)
        return FrameClip(
            images=transform_images(self.transform, _read_stored(path)[None], seed),
            label=torch.tensor(self.label(key.index)),
            name=str(path),
            seed=seed,
        )


def _read_stored(path: Path) -> torch.Tensor:
    return read_image(path, upright=False)


def _split_folder(root: Path, split: str) -> Path:
    for parent in _PARENTS:
        if (root / parent / split).is_dir():
            return root / parent / split
    raise DatasetNotFoundError(f"{root} has no folder {split}, nor {_PARENTS[1]}/{split}", EXPECTED)


def _class_of(folder: str) -> str:
    return folder.split("/")[0]


def _folder_labels(files: PathTable, index: Mapping[str, int]) -> Int16[np.ndarray, " N"]:
    labels = np.empty(len(files), np.int16)
    for number, folder in enumerate(files.folders):
        places = files.positions(number)
        labels[places.start : places.stop] = index[_class_of(folder)]
    return labels


def _file_labels(files: PathTable, flat: FlatLabels, index: Mapping[str, int]) -> Int16[np.ndarray, " N"]:
    names: Sequence[str] = [name.rpartition(".")[0] for name in files.names]
    if unknown := [name for name in names if name not in flat.of_file]:
        raise DatasetNotFoundError(
            f"{files.root}: {len(unknown)} images are not in {flat.source.name}, such as {unknown[0]}", EXPECTED
        )
    if missing := sorted(set(flat.of_file) - set(names)):
        raise DatasetNotFoundError(
            f"{files.root} lacks {len(missing)} of the {len(flat.of_file)} images that {flat.source.name} labels, such "
            f"as {missing[0]}",
            EXPECTED,
        )
    return np.array([index[flat.of_file[name]] for name in names], np.int16)
