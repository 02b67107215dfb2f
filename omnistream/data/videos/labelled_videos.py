"""Videos with one class each, as clips of several segments: the base of the action recognition data sets."""

import logging
import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from omnistream.data.batch import FrameClip
from omnistream.data.broken_files import BrokenFiles, FileDataset, require_readable
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import VIDEO_SUFFIXES, dataset_root, find_files
from omnistream.data.media.video import read_frames
from omnistream.data.media.video_probe import probe_video
from omnistream.data.path_table import PathTable, Selection
from omnistream.data.sampling import SampleKey, sample_rng, sample_seed
from omnistream.data.splits import Split
from omnistream.data.transforms import ImageTransform, transform_images
from omnistream.data.videos.clip_sampling import segment_positions

logger = logging.getLogger(__name__)

UNLABELLED = -1
_CLIP_SALT = 3


class Annotations(NamedTuple):
    """What the authors' files say about a split."""

    source: Path
    """The file with the videos of the split."""
    videos: list[str]
    """Name of every video's file without suffix; with `by_path`, its path below the root."""
    labels: list[int]
    """Class of every video; -1 where it is not published."""
    classes: list[str]
    """Names of the classes, in the order of their numbers; empty if the file only has numbers."""
    by_path: bool = False
    """Whether videos are given by path."""


class LabelledVideos(FileDataset[FrameClip]):
    """Clips of videos with one class each; a subclass reads the authors' annotations.

    A clip has the frames of all its segments, one segment after the other (see `segment_positions`). Only these frames
    are decoded. Windows are at random places in the training split, and in the middle in the others. A video that
    cannot be read is logged, counted in `broken_files`, and replaced by another one; an `EvaluationDataModule` leaves
    it out of validation and test instead. Annotated videos without a file are left out, with a warning.

    Args:
        root: Folder of the data set.
        split: Split of the authors.
        transform: Applied to the frames of each segment, uint8 [T, 3, H, W].
        num_frames: Frames of a segment.
        stride: Nominal distance between them.
        num_segments: Segments of a clip.
        short_side: Resize the shorter side to this length while decoding, which saves time and memory; null keeps the
            size, as published.
        seed: Determines windows, random choices of `transform`, and replacements.
        broken_files: Records broken files; by default up to 20 % are skipped.

    Raises:
        DatasetNotFoundError: If annotations or videos are not found, or no video can be read.
        ValueError: If annotations contradict each other, or a count is not positive.
    """

    collate = staticmethod(FrameClip.collate)
    expected: ClassVar[str]
    """The expected tree, in words."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: Split = "train",
        transform: ImageTransform | None = None,
        *,
        num_frames: int = 16,
        stride: int = 4,
        num_segments: int = 1,
        short_side: int | None = None,
        seed: int = 0,
        broken_files: BrokenFiles | None = None,
    ) -> None:
        super().__init__(seed, broken_files)
        segment_positions(1, num_frames, stride, num_segments)  # raises if one is not positive
        self.root, self.split, self.transform = dataset_root(root, self.expected), split, transform
        self.num_frames, self.stride, self.num_segments = num_frames, stride, num_segments
        self.short_side, self.random_windows = short_side, split == "train"
        annotations = self._annotations()
        self.classes = annotations.classes
        self.missing = 0
        """Videos of the annotations that the folder does not hold."""
        self.files, self.labels = self._find(annotations)
        require_readable("videos", self.root, self.files, probe_video, self.broken_files)

    @abstractmethod
    def _annotations(self) -> Annotations:
        """Read the annotations of the split."""

    def _rank(self, folder: str) -> int:
        """Which of several files of one name is read: the one whose folder has the lowest rank."""
        return 0

    def _find(self, annotations: Annotations) -> tuple[Selection, np.ndarray]:
        """The files of the annotated videos that there are, and their labels."""
        table = find_files(self.root, VIDEO_SUFFIXES)
        places = self._places(table, set(annotations.videos), annotations.by_path)
        kept = [index for index, name in enumerate(annotations.videos) if name in places]
        absent = [name for name in annotations.videos if name not in places]
        if not kept:
            example = f", such as {absent[0]}" if absent else ""
            problem = f"{self.root} holds none of the {len(absent)} videos of {annotations.source}{example}"
            raise DatasetNotFoundError(problem, self.expected)
        if absent:
            logger.warning(
                "%s: %d of %d videos of the %s split are not in %s, such as %s; they are left out",
                annotations.source, len(absent), len(annotations.videos), self.split, self.root, absent[0],
            )  # fmt: skip
        self.missing = len(absent)
        files = Selection(table, [places[annotations.videos[index]] for index in kept])
        return files, np.array(annotations.labels, np.int64)[kept]

    def _places(self, table: PathTable, wanted: set[str], by_path: bool) -> dict[str, int]:
        """Positions in the table of the wanted videos."""
        found: dict[str, tuple[int, int]] = {}
        for number, folder in enumerate(table.folders):
            rank = self._rank(folder)
            for position in table.positions(number):
                name = table.names[position]
                key = (f"{folder}/{name}" if folder else name) if by_path else os.path.splitext(name)[0]  # noqa: PTH122
                if key in wanted and (key not in found or rank < found[key][0]):
                    found[key] = rank, position
        return {key: position for key, (_, position) in found.items()}

    def __len__(self) -> int:
        return len(self.files)

    @property
    def num_classes(self) -> int:
        """Number of classes; where they have no names, one more than the highest number."""
        return len(self.classes) or int(self.labels.max()) + 1

    def fits(self, num_classes: int) -> bool:
        """Whether a classifier of so many classes suits the data set; unnamed classes need not all occur."""
        return self.num_classes == num_classes if self.classes else self.num_classes <= num_classes

    def _read(self, key: SampleKey) -> FrameClip:
        path, seed = self.files[key.index], sample_seed(self.seed, key)
        rng = sample_rng(self.seed, key, _CLIP_SALT) if self.random_windows else None
        total = probe_video(path).num_frames
        positions = segment_positions(total, self.num_frames, self.stride, self.num_segments, rng)
        frames = read_frames(path, positions.flatten().tolist(), short_side=self.short_side)
        return FrameClip(
            images=transform_images(self._transformed, frames, seed),
            label=torch.tensor(int(self.labels[key.index])),
            name=str(path),
            seed=seed,
        )

    def _transformed(self, frames: torch.Tensor) -> torch.Tensor:
        """The frames of all segments; a transform that adds an axis before the frames adds it to the clip."""
        if self.transform is None:
            return frames
        return torch.cat([self.transform(segment) for segment in frames.split(self.num_frames)], dim=-4)


def first_file(root: Path, folders: Sequence[str], names: Sequence[str], expected: str) -> Path:
    """The first of some files that exists in one of some folders.

    Args:
        root: Of the data set.
        folders: Below the root; empty for the root itself.
        names: File names, the best first.
        expected: The expected tree, in words.

    Raises:
        DatasetNotFoundError: If there is none.
    """
    for name in names:
        for folder in folders:
            if (path := root / folder / name).is_file():
                return path
    raise DatasetNotFoundError(f"{root} holds no {' or '.join(names)}", expected)
