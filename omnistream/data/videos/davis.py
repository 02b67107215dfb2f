"""DAVIS 2017: videos with a mask of every object in every frame."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from omnistream.data.batch import MaskedVideo
from omnistream.data.benchmarks import EvaluationDataModule
from omnistream.data.broken_files import BrokenFiles, FileDataset
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import dataset_root
from omnistream.data.media.errors import ImageReadError
from omnistream.data.media.image import read_image
from omnistream.data.sampling import SampleKey, sample_key
from omnistream.data.splits import Split, check_official_split
from omnistream.data.transforms import ImageTransform

EXPECTED = (
    "the folder DAVIS of the release with JPEGImages/480p/NAME/00000.jpg, Annotations/480p/NAME/00000.png and "
    "ImageSets/2017/val.txt"
)
VOID = 255
"""Value of pixels that belong neither to an object nor to the background; the benchmark counts them as background."""
ResizeRule = Literal["dino", "dinov3"]
_MIN_FRAMES = 3
"""The first and the last frame are not scored."""


class ResizeFrames:
    """Resizes frames as label propagation with DINO or with DINOv3 does.

    `dino` makes the shorter side `short_side` and the longer one the multiple of 64 below its share (854x480 becomes
    832x480), bilinear without antialiasing. `dinov3` makes both the multiple of 16 above (864x480), bicubic.

    Args:
        short_side: Of the resized frame, in pixels.
        rule: Which of the two.
        multiple: In place of 64 or 16; the patch size must divide the result.

    Source: facebookresearch/dino: eval_video_segmentation.py; facebookresearch/dinov3:
    notebooks/segmentation_tracking.ipynb.
    """

    def __init__(self, short_side: int = 480, rule: ResizeRule = "dino", multiple: int | None = None) -> None:
        if rule not in ("dino", "dinov3"):
            raise ValueError(f"rule must be dino or dinov3, got {rule!r}")
        self.rule, self.multiple = rule, multiple or (64 if rule == "dino" else 16)
        self.short_side = short_side
        if short_side < self.multiple or self.multiple < 1:
            raise ValueError(f"short_side {short_side} must be at least the multiple, {self.multiple}")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a frame of this size after resizing."""
        low, high = min(height, width), max(height, width)
        if self.rule == "dino":
            short = self.short_side
            long = short * high // low // self.multiple * self.multiple
        else:
            short = -(-self.short_side // self.multiple) * self.multiple
            long = -(-high * short // (low * self.multiple)) * self.multiple
        return (short, long) if height <= width else (long, short)

    def __call__(self, images: UInt8[Tensor, "T 3 H W"]) -> UInt8[Tensor, "T 3 h w"]:
        """The resized frames."""
        size = self.size(images.shape[-2], images.shape[-1])
        if self.rule == "dinov3":
            return resize(images, list(size), InterpolationMode.BICUBIC, antialias=True)
        # In floating point and rounded once, as by OpenCV; resizing uint8 rounds after each axis.
        return F.interpolate(images.float(), size, mode="bilinear", align_corners=False).round().to(torch.uint8)


class DAVIS(FileDataset[MaskedVideo]):
    """Whole videos of DAVIS 2017 with the masks of their objects; one sample is one sequence, 34 to 104 frames in val.

    ::

        root
        ├── JPEGImages/480p/<sequence>/00000.jpg ...
        ├── Annotations/480p/<sequence>/00000.png ...   (palette; 0 background, 1 to n objects, 255 void)
        └── ImageSets/2017/{train,val}.txt              (60 and 30 names)

    An object counts if it is in the first frame. No sequence takes the place of one with a file that cannot be read: an
    evaluation names that in a warning, leaves it out and counts it as `skipped`. Scores of 29 of the 30 sequences are
    not those of the benchmark, and reports mark them. Licence: see https://davischallenge.org.

    Args:
        root: The folder `DAVIS`.
        split: `val` is the benchmark; `train` also has all masks. The masks of the test sets are not published.
        transform: Applied to each frame, uint8 [1, 3, H, W], such as `ResizeFrames`; masks keep their size.
        sequences: Names of the sequences to read; by default all of the split.
        resolution: Folder below `JPEGImages` and `Annotations`.
        broken_files: Records one broken file per sequence; by default up to 20 % of the sequences are left out.

    Raises:
        DatasetNotFoundError: If the tree is another, or frames and masks do not match.
        ValueError: If the split has no masks, or a sequence is not in it.

    Source: Pont-Tuset et al., The 2017 DAVIS Challenge on Video Object Segmentation, arXiv:1704.00675.
    """

    splits: tuple[Split, ...] = ("train", "val")
    collate = staticmethod(MaskedVideo.collate)

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: Split = "val",
        transform: ImageTransform | None = None,
        *,
        sequences: Sequence[str] | None = None,
        resolution: str = "480p",
        broken_files: BrokenFiles | None = None,
    ) -> None:
        super().__init__(broken_files=broken_files)
        check_official_split(split, self.splits, "DAVIS 2017")
        self.root, self.split, self.transform = dataset_root(root, EXPECTED), split, transform
        self.resolution = resolution
        names = self._names()
        if unknown := [name for name in sequences or () if name not in names]:
            raise ValueError(f"the {split} split has no sequences {', '.join(unknown)}; it has {', '.join(names)}")
        self.sequences = names if sequences is None else list(sequences)
        self.frame_names = {name: self._frames(name) for name in self.sequences}

    def _names(self) -> list[str]:
        path = self.root / "ImageSets" / "2017" / f"{self.split}.txt"
        if not path.is_file():
            raise DatasetNotFoundError(f"no file {path}", EXPECTED)
        if not (names := path.read_text(encoding="utf-8").split()):
            raise DatasetNotFoundError(f"{path} names no sequence", EXPECTED)
        return names

    def _folder(self, kind: str, sequence: str) -> Path:
        return self.root / kind / self.resolution / sequence

    def _frames(self, sequence: str) -> list[str]:
        """Names of the frames of a sequence, each with an image and a mask."""
        kinds = {"JPEGImages": ".jpg", "Annotations": ".png"}
        found = {kind: _stems(self._folder(kind, sequence), suffix) for kind, suffix in kinds.items()}
        images, masks = found["JPEGImages"], found["Annotations"]
        if images != masks:
            odd = sorted(set(images) ^ set(masks))
            raise DatasetNotFoundError(
                f"{sequence}: {len(images)} frames in {self._folder('JPEGImages', sequence)}, {len(masks)} masks in "
                f"{self._folder('Annotations', sequence)}; only one of them has {', '.join(odd[:3])}",
                EXPECTED,
            )
        if len(images) < _MIN_FRAMES:
            problem = f"{self._folder('JPEGImages', sequence)} holds {len(images)} frames, at least 3 are needed"
            raise DatasetNotFoundError(problem, EXPECTED)
        return images

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.sequences)

    def __getitem__(self, key: int | SampleKey) -> MaskedVideo:
        """One sequence.

        Raises:
            ImageReadError: If a file is damaged, or a mask does not fit its frame.
        """
        return self._read(sample_key(key))

    def _read(self, key: SampleKey) -> MaskedVideo:
        name = self.sequences[key.index]
        images, masks, size = [], [], None
        for frame in self.frame_names[name]:
            path = self._folder("JPEGImages", name) / f"{frame}.jpg"
            image = read_image(path, upright=False)
            mask = read_mask(self._folder("Annotations", name) / f"{frame}.png", (image.shape[-2], image.shape[-1]))
            if mask.shape != (size := size or mask.shape):
                raise ImageReadError(path, f"{_shown(mask)} pixels, but the first frame has {size[1]}x{size[0]}")
            images.append(image if self.transform is None else self.transform(image[None])[0])
            masks.append(mask)
        num_objects = int(masks[0].max())
        if num_objects == 0:
            path = self._folder("Annotations", name) / f"{self.frame_names[name][0]}.png"
            raise ImageReadError(
                path, "no object 1 to 254 in the first frame; masks of DAVIS 2016 (0 and 255) are not those of 2017"
            )
        return MaskedVideo(
            images=torch.stack(images),
            masks=torch.stack(masks),
            num_objects=num_objects,
            name=name,
            frame_names=self.frame_names[name],
        )


def _stems(folder: Path, suffix: str) -> list[str]:
    return sorted(path.stem for path in folder.glob(f"*{suffix}")) if folder.is_dir() else []


def _shown(mask: Tensor) -> str:
    return f"{mask.shape[1]}x{mask.shape[0]}"


def read_mask(path: Path, size: tuple[int, int]) -> UInt8[Tensor, "H W"]:
    """Object ids of a palette or grey image; void becomes background.

    Args:
        path: The file.
        size: Height and width that it should have.

    Raises:
        ImageReadError: If it is missing, damaged, of another size, or has colours in place of ids.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L"):
                raise ImageReadError(path, f"mode {image.mode} holds no object ids; expected a palette or grey image")
            ids = torch.from_numpy(np.array(image))  # not converted: that would give colours in place of ids
    except FileNotFoundError:
        raise ImageReadError(path, "no such file") from None
    except UnidentifiedImageError:
        raise ImageReadError(path, "not an image in a format that Pillow reads") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageReadError(path, f"damaged image ({error})") from error
    if tuple(ids.shape) != size:
        raise ImageReadError(path, f"a mask of {_shown(ids)} pixels, but its frame has {size[1]}x{size[0]}")
    return ids.masked_fill(ids == VOID, 0)


def mask_palette(length: int = 256) -> list[tuple[int, int, int]]:
    """Colours of object ids in DAVIS, those of PASCAL VOC: the bits of an id are dealt out to red, green and blue."""
    colours = []
    for index in range(length):
        channels = [sum(((index >> (3 * bit + c)) & 1) << (7 - bit) for bit in range(8)) for c in range(3)]
        colours.append((channels[0], channels[1], channels[2]))
    return colours


_PALETTE = [value for colour in mask_palette() for value in colour]


def write_mask(path: Path, mask: UInt8[Tensor, "H W"]) -> None:
    """Write object ids as a palette PNG, which the official tool reads."""
    image = Image.fromarray(mask.cpu().numpy(), mode="L")
    image.putpalette(_PALETTE)
    image.save(path)


class DAVISDataModule(EvaluationDataModule):
    """The sequences of a split of DAVIS 2017, one per batch; there is nothing to train on.

    `validate` and `test` read the same sequences: without training nothing has to be held out.

    Args:
        root: The folder `DAVIS`; see `DAVIS`.
        split: `val` is the benchmark.
        short_side: Shorter side of the resized frames.
        resize: Rule of `ResizeFrames`.
        multiple: Multiple of `ResizeFrames` that the sides become.
        sequences: Names of the sequences; by default all of the split.
        num_workers: Worker processes that read.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: Split = "val",
        *,
        short_side: int = 480,
        resize: ResizeRule = "dino",
        multiple: int | None = None,
        sequences: Sequence[str] | None = None,
        num_workers: int = 0,
    ) -> None:
        dataset = DAVIS(root, split, ResizeFrames(short_side, resize, multiple), sequences=sequences)
        super().__init__(test=dataset, val=dataset, batch_size=1, num_workers=num_workers)
        self.root, self.split, self.short_side, self.resize, self.multiple = root, split, short_side, resize, multiple
        self.sequences = None if sequences is None else list(sequences)
