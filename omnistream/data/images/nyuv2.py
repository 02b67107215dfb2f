"""NYUv2: indoor images with depth, as a folder of images with two lists."""

import os
from pathlib import Path
from typing import Literal, NamedTuple

from jaxtyping import Float32, UInt8
from torch import Tensor

from omnistream.data.batch import DepthImage
from omnistream.data.broken_files import BrokenFiles, FileDataset
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import dataset_root
from omnistream.data.media.depth import read_depth_png
from omnistream.data.media.errors import MediaReadError
from omnistream.data.media.image import read_image
from omnistream.data.sampling import SampleKey, sample_seed
from omnistream.data.transforms import PairTransform, transform_pair

NYUSplit = Literal["train", "test"]
EXPECTED = (
    "nyu_train.txt (24,231 lines `rgb depth focal`) and nyu_test.txt (654) beside the files they name, such as "
    "kitchen_0028b/rgb_00045.jpg and kitchen_0028b/sync_depth_00045.png"
)
MILLIMETRES = 0.001
_FARTHEST = 10_000
"""Largest depth in millimetres that NYUv2 holds."""
_CHECKED = 5
"""Depth maps that are read to recognise another unit."""


class NYUImages(FileDataset[DepthImage]):
    """What both layouts of NYUv2 share: an image and its depth, transformed together."""

    collate = staticmethod(DepthImage.collate)

    def __init__(
        self, split: NYUSplit, transform: PairTransform | None, seed: int, broken_files: BrokenFiles | None
    ) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split must be train or test, got {split!r}")
        super().__init__(seed, broken_files)
        self.split, self.transform = split, transform

    def _pair(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Float32[Tensor, "h w"], str]:
        """Image, depth in metres and name, as stored: sizes may differ."""
        raise NotImplementedError

    def _read(self, key: SampleKey) -> DepthImage:
        image, depth, name = self._pair(key.index)
        if image.shape[-2:] != depth.shape:
            sizes = f"{tuple(image.shape[-2:])} and {tuple(depth.shape)}"
            raise MediaReadError(name, f"image and depth differ in size: {sizes}")
        seed = sample_seed(self.seed, key)
        image, depth = transform_pair(self.transform, image, depth, seed)
        return DepthImage(image=image, depth=depth, name=name, seed=seed)


class Pair(NamedTuple):
    """One line of a list."""

    image: Path
    depth: Path


class NYUv2(NYUImages):
    """NYUv2 as the lists of BTS split it: 24,231 images for training and 654 for test, from two folders or one.

        <root>/nyu_train.txt, nyu_test.txt                lines `rgb depth focal`
        <root>/kitchen_0028b/rgb_00045.jpg                 8 bits, 640x480
        <root>/kitchen_0028b/sync_depth_00045.png          16 bits, millimetres, 0 where nothing was measured

    Lines are sorted and a leading `/` of a path is ignored. An image without its depth, because a file is missing or
    broken, is replaced by another one in training; an evaluation leaves it out and counts it as `skipped`.

    Args:
        root: The folder of the lists.
        split: Which of them.
        transform: Applied to image and depth, such as `nyuv2_augmentation()`.
        depth_scale: Metres per stored unit; null for millimetres, which are then checked. Some copies need 10 / 65535.
        seed: Determines what `transform` draws, replacements, and each sample's `seed`.
        broken_files: Records broken files; by default up to 20 % are skipped.

    Raises:
        DatasetNotFoundError: If a list or the files that it names are missing.
        ValueError: If a line has not three parts, or depth is not in millimetres and `depth_scale` is null.

    Source: layout, facebookresearch/dinov3 DATASETS.md and cleinc/bts; "/" and order, dinov3/data/datasets/nyu.py.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: NYUSplit = "train",
        transform: PairTransform | None = None,
        *,
        depth_scale: float | None = None,
        seed: int = 0,
        broken_files: BrokenFiles | None = None,
    ) -> None:
        super().__init__(split, transform, seed, broken_files)
        self.root = dataset_root(root, EXPECTED)
        self.pairs = read_pairs(self.root, split)
        missing = [path for pair in self.pairs for path in pair if not path.is_file()]
        if len(missing) > self.broken_files.allowed(2 * len(self.pairs)):
            raise DatasetNotFoundError(
                f"{len(missing)} of {2 * len(self.pairs)} files of {self.root}/nyu_{split}.txt are missing, such as "
                f"{missing[0]}",
                EXPECTED,
            )
        self.depth_scale = MILLIMETRES if depth_scale is None else depth_scale
        if depth_scale is None:
            self._check_unit()

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def num_files(self) -> int:
        """An image and a depth map per sample."""
        return 2 * len(self.pairs)

    def _check_unit(self) -> None:
        step = max(1, len(self.pairs) // _CHECKED)
        farthest = []
        for pair in self.pairs[::step][:_CHECKED]:
            try:
                farthest.append(float(read_depth_png(pair.depth, scale=1).max()))
            except MediaReadError:  # reported when the sample is read
                continue
        if sum(value > _FARTHEST for value in farthest) > len(farthest) / 2:
            raise ValueError(
                f"{self.root}: depth of up to {max(farthest):.0f} is not in millimetres, NYUv2 ends at 10 m; set "
                "depth_scale to metres per stored unit (10 / 65535 = 0.000152590 for copies scaled to 16 bits)"
            )

    def _pair(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Float32[Tensor, "h w"], str]:
        pair = self.pairs[index]
        image = read_image(pair.image, upright=False)
        return image, read_depth_png(pair.depth, scale=self.depth_scale), str(pair.image)


def read_pairs(root: Path, split: NYUSplit) -> list[Pair]:
    """The files of a split, in the order of the sorted lines of its list.

    Raises:
        DatasetNotFoundError: If there is no list, or it is empty.
        ValueError: If a line has not three parts.
    """
    path = root / f"nyu_{split}.txt"
    if not path.is_file():
        labeled = (root / "nyu_depth_v2_labeled.mat").is_file()
        hint = "; beside it lies nyu_depth_v2_labeled.mat, which is the layout `labeled`" if labeled else ""
        raise DatasetNotFoundError(f"no such file: {path}{hint}", EXPECTED)
    pairs = []
    for line in sorted(path.read_text().splitlines()):
        if not line.strip():
            continue
        if len(parts := line.split()) != 3:
            raise ValueError(f"{path}: expected lines `rgb depth focal`, got {line[:80]!r}; is it the list itself?")
        pairs.append(Pair(root / parts[0].strip("/"), root / parts[1].strip("/")))
    if not pairs:
        raise DatasetNotFoundError(f"{path} is empty", EXPECTED)
    return pairs
