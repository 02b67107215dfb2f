"""ADE20K scene parsing with 150 classes (the SceneParsing benchmark, `ADEChallengeData2016`)."""

import logging
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from omnistream.data.batch import LabelledImage
from omnistream.data.benchmarks import EvaluationDataModule
from omnistream.data.broken_files import BrokenFiles, FileDataset, require_readable
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import dataset_root
from omnistream.data.media.errors import ImageReadError
from omnistream.data.media.image import read_image
from omnistream.data.sampling import SampleKey, sample_seed
from omnistream.data.segmentation_transforms import (
    DINOV3_HUE,
    ResizeShorterSide,
    segmentation_augmentation,
)
from omnistream.data.splits import Split, check_official_split
from omnistream.data.transforms import PairTransform, transform_pair
from omnistream.metrics.segmentation import IGNORE_INDEX

logger = logging.getLogger(__name__)

EXPECTED = (
    "images/{training,validation}/*.jpg and annotations/{training,validation}/*.png (ADEChallengeData2016, the "
    "SceneParsing benchmark with 150 classes)"
)
NUM_CLASSES = 150
_FOLDERS = {"train": "training", "val": "validation"}
_OFFICIAL_SIZES = {"train": 20210, "val": 2000}


class ADE20K(FileDataset[LabelledImage]):
    """Images with a class per pixel.

        <root>/images/{training,validation}/ADE_{train,val}_%08d.jpg
        <root>/annotations/{training,validation}/ADE_{train,val}_%08d.png    8 bits: 0 = none, 1 to 150 = class
        <root>/objectInfo150.txt                                             names of the classes; may be missing

    Files are taken in sorted order, or, where DINOv3's lists `ADE20K_object150_{train,val}.txt` lie in the root (one
    path relative to `images` per line), in theirs. Labels are read as classes 0 to 149, and 255 where there is none.

    Broken files are logged; in training another sample is drawn instead, an evaluation leaves them out and counts them.

    Args:
        root: The folder of `images` and `annotations`, or the one around it.
        split: `train` or `val`; the test set has no public labels.
        transform: Applied to image and labels; see `data/segmentation_transforms.py`.
        seed: Determines what `transform` draws, replacements, and each sample's `seed`.
        broken_files: Records broken files; by default up to 20 % are skipped.

    Raises:
        DatasetNotFoundError: If the tree is another one or the split is empty.
        ValueError: If there is no such split, or images and annotations do not belong together.
    """

    collate = staticmethod(LabelledImage.collate)
    num_classes = NUM_CLASSES

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: Split = "train",
        transform: PairTransform | None = None,
        *,
        seed: int = 0,
        broken_files: BrokenFiles | None = None,
    ) -> None:
        check_official_split(split, ("train", "val"), "ADE20K with public labels")
        super().__init__(seed, broken_files)
        self.root, self.split, self.transform = _find_root(dataset_root(root, EXPECTED)), split, transform
        self.files = self._listed() or self._found()
        if len(self.files) != _OFFICIAL_SIZES[split]:
            logger.warning(
                "%s holds %d images of the %s split; ADE20K has %d",
                self.root, len(self.files), split, _OFFICIAL_SIZES[split],
            )  # fmt: skip
        require_readable("images", self.root, [image for image, _ in self.files], read_image, self.broken_files)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def class_names(self) -> list[str] | None:
        """Names in `objectInfo150.txt`, of several for one class the first; None without that file.

        Raises:
            ValueError: If it is not a table with a name for each class.
        """
        path = self.root / "objectInfo150.txt"
        if not path.is_file():
            return None
        head, *rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if head[-1].strip() != "Name" or [row[0].strip() for row in rows] != [str(k + 1) for k in range(NUM_CLASSES)]:
            raise ValueError(f"{path}: expected the columns Idx to Name, separated by tabs, and {NUM_CLASSES} rows")
        return [row[-1].split(",")[0].strip() for row in rows]

    def _listed(self) -> list[tuple[Path, Path]]:
        """Images and annotations of DINOv3's list; none without one."""
        path = self.root / f"ADE20K_object150_{self.split}.txt"
        if not path.is_file():
            return []
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not lines:
            raise DatasetNotFoundError(f"{path} is empty", EXPECTED)
        files = [
            (self.root / "images" / line, (self.root / "annotations" / line).with_suffix(".png")) for line in lines
        ]
        if missing := [file for pair in files for file in pair if not file.is_file()]:
            raise DatasetNotFoundError(f"{len(missing)} files of {path} do not exist, such as {missing[0]}", EXPECTED)
        return files

    def _found(self) -> list[tuple[Path, Path]]:
        """Images and annotations of the folders of the split, in sorted order."""
        images = _files(self.root / "images" / _FOLDERS[self.split], ".jpg")
        labels = _files(self.root / "annotations" / _FOLDERS[self.split], ".png")
        if not images:
            raise DatasetNotFoundError(f"{self.root} holds no images of the {self.split} split", EXPECTED)
        if alone := sorted(images.keys() ^ labels.keys()):
            raise ValueError(
                f"{self.root}: of {len(images)} images and {len(labels)} annotations of the {self.split} split "
                f"{len(alone)} lack the other, such as {alone[0]}; unpack the archive again"
            )
        return [(image, labels[name]) for name, image in sorted(images.items())]

    def _read(self, key: SampleKey) -> LabelledImage:
        image_file, labels_file = self.files[key.index]
        image, labels = read_image(image_file, upright=False), read_labels(labels_file)
        if image.shape[1:] != labels.shape:
            sizes = f"{tuple(labels.shape)}, its image {tuple(image.shape[1:])}"
            raise ImageReadError(labels_file, f"height and width are {sizes}")
        seed = sample_seed(self.seed, key)
        images, labels = transform_pair(self.transform, image[None], reduce_zero_label(labels), seed)
        return LabelledImage(images=images, labels=labels, name=str(image_file), seed=seed)


def read_labels(path: str | Path, num_classes: int = NUM_CLASSES) -> Tensor:
    """Labels as stored, uint8 [H, W]: 0 for none, classes from 1.

    Raises:
        ImageReadError: If the file is missing or damaged, is not of one channel of 8 bits, or holds other labels.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P"):
                raise ImageReadError(
                    path, f"labels of mode {image.mode}; expected 8 bits, 0 for none and 1 to {num_classes} for classes"
                )
            labels = torch.from_numpy(np.array(image))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageReadError(path, f"labels cannot be read ({error})") from error
    classes = labels[labels != IGNORE_INDEX]
    if len(classes) and int(classes.max()) > num_classes:
        raise ImageReadError(
            path, f"holds label {int(classes.max())}; there are {num_classes} classes, 1 to {num_classes}"
        )
    return labels


def reduce_zero_label(labels: Tensor) -> Tensor:
    """Classes from 1 to classes from 0: label 0, which is no class, becomes 255, and 255 stays 255.

    Args:
        labels: uint8, as stored.
    """
    return torch.where(labels == IGNORE_INDEX, labels, labels - 1)  # 0 - 1 is 255 in uint8


def _files(folder: Path, suffix: str) -> dict[str, Path]:
    """Files of a folder by their names without suffix."""
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in folder.iterdir() if path.suffix.lower() == suffix and path.name[0] != "."}


def _find_root(root: Path) -> Path:
    """The folder of `images` and `annotations`: this one or the archive's inside it.

    Raises:
        DatasetNotFoundError: If it is neither, or that of the full release.
    """
    for folder in (root, root / "ADEChallengeData2016"):
        if (folder / "images").is_dir() and (folder / "annotations").is_dir():
            return folder
    for folder in (root, root / "ADE20K_2021_17_01"):
        if (folder / "images" / "ADE").is_dir() or (folder / "index_ade20k.pkl").is_file():
            raise DatasetNotFoundError(
                f"{folder} is the full ADE20K, whose thousands of object names have no official map to the 150 classes",
                EXPECTED,
            )
    raise DatasetNotFoundError(f"{root} lacks images or annotations", EXPECTED)


class ADE20KDataModule(EvaluationDataModule):
    """ADE20K for linear segmentation probing: augmented crops to train on, whole images to evaluate.

    Training has no epochs: it runs for `trainer.max_steps`, all batches have the same size. The validation set is what
    is reported, so it is also the test set. Its images differ in size and are evaluated one at a time.

    Args:
        root: See `ADE20K`.
        size: Side of training crops, and shorter side in evaluation, in pixels (paper Table 10: 512).
        hue: Largest shift of the hue in training, in turns: 0.5 is DINOv3's, 0.1 mmsegmentation's.
        batch_size: Training crops per process; the published batch is 16 over all processes.
        num_workers: Worker processes per loader.
        seed: Of order and augmentation.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        size: int = 512,
        hue: float = DINOV3_HUE,
        batch_size: int = 16,
        num_workers: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=1, num_workers=num_workers, seed=seed, endless=True)
        self.root, self.size, self.hue = root, size, hue

    def setup(self, stage: str) -> None:
        """Find the files of the splits that a stage needs."""
        if stage == "fit" and self.train is None:
            augmentation = segmentation_augmentation(self.size, hue=self.hue)
            self.train = ADE20K(self.root, "train", augmentation, seed=self.seed)
        if self.val is None:
            self.val = self.test = ADE20K(self.root, "val", ResizeShorterSide(self.size, labels=False))
