"""The base class of scene data sets, which define where their sequences are and how a frame is read.

Everything else is shared: the index on disk, splits by fraction, clips, crops and broken files
(`omnistream.data.scenes.SceneClips`).
"""

import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from omnistream.data.batch import SceneFrame
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import dataset_root, walk_folders
from omnistream.data.media.errors import MediaReadError
from omnistream.data.path_table import StringTable
from omnistream.data.scenes.index_cache import SceneIndex, SceneSequence, load_index, save_index, tree_signature
from omnistream.data.splits import Split, check_official_split
from omnistream.paths import cache_folder

logger = logging.getLogger(__name__)

_RIGID_TOLERANCE = 1e-2
"""Largest entry of R Rᵀ - 1; files with a few digits are well inside, a scaled or lost pose is not."""


class SceneReader(ABC):
    """Reads the frames of one data set of scenes; a subclass is one file layout.

    A subclass sets `expected`, `markers` and perhaps `descriptions` and `splits`, and implements `open_sequence` and
    `read`. Data sets whose sequences are not folders with known files override `find`.

    Args:
        root: Folder that holds sequences at any depth; links are followed.
        split: One of the authors' own `splits`; null takes every sequence.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        ValueError: If the authors published no such split.
    """

    expected: ClassVar[str]
    """The tree in words, for error messages."""
    markers: ClassVar[tuple[str, ...]] = ()
    """Names (or patterns) of files that together identify the folder of a sequence."""
    descriptions: ClassVar[tuple[str, ...]] = ()
    """Names (or patterns) of further files that `open_sequence` or `find` reads, one or a few per sequence."""
    splits: ClassVar[tuple[Split, ...]] = ()
    """The authors' own splits."""
    sequence_lists: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Names of the sequences that published evaluations use, by what they evaluate, such as `depth` or `pose`."""
    has_all_cameras: bool = True
    """Whether intrinsics and pose of every frame are known. Where they are not, they are NaN: such a reader is for
    evaluations, and `SceneClips` refuses it."""
    has_poses: ClassVar[bool] = True
    """Whether the data set states poses at all; where it does not, evaluations of poses refuse it."""
    index_version: ClassVar[int] = 1
    """Increase when `open_sequence` changes, so that indexes on disk are rebuilt."""

    def __init__(self, root: str | os.PathLike[str], split: Split | None = None) -> None:
        self.root, self.split = dataset_root(root, self.expected), split
        check_official_split(split, self.splits, type(self).__name__)
        self.broken: list[tuple[str, str]] = []
        self._sequences: list[SceneSequence] | None = None

    def index_options(self) -> tuple[str, ...]:
        """Further arguments that decide which sequences and frames there are; every choice has an index of its own."""
        return ()

    def find(self) -> Iterable[Path]:
        """Folders (or files) of the sequences of the split, in any order; nothing is decoded."""
        for folder, files in walk_folders(self.root):
            if self.markers and all(any(fnmatch(name, marker) for name in files) for marker in self.markers):
                yield self.root / folder

    @abstractmethod
    def open_sequence(self, path: Path) -> SceneSequence:
        """The sequence at a path that `find` gave; images and depth are not decoded.

        Raises:
            MediaReadError: If a file that describes it is broken; the sequence is then skipped and counted.
        """

    @abstractmethod
    def read(self, sequence: SceneSequence, positions: Sequence[int]) -> list[SceneFrame]:
        """The frames at these positions of a sequence, in their order and as stored.

        Raises:
            MediaReadError: If a file is broken.
        """

    def read_without_depth(self, sequence: SceneSequence, positions: Sequence[int]) -> list[SceneFrame]:
        """The frames for evaluations of poses alone, which a depth map that is missing or broken does not concern.

        Overridden by data sets with a published list of sequences for poses; others read depth as well.

        Raises:
            MediaReadError: If a file is broken.
        """
        return self.read(sequence, positions)

    def index(self) -> list[SceneSequence]:
        """The sequences that can be read, sorted by name; those that cannot are in `broken`.

        Found once per reader. Read from disk if nothing in the tree has changed; otherwise the tree is searched, which
        may take minutes. Changed are added, removed and renamed files and folders, and rewritten files among `markers`
        and `descriptions`. A file of a single frame, such as its pose, that is rewritten in place is not noticed:
        remove the folder `scenes` of OmniStream's cache then.

        Raises:
            DatasetNotFoundError: If there is none.
        """
        if self._sequences is not None:
            return self._sequences
        index = self.load_index(tree_signature(self.root, (*self.markers, *self.descriptions)))
        self.broken = index.broken
        if not index.sequences:
            problem = f"{self.root} holds no sequence"
            if index.broken:
                problem += f" that can be read; broken are {'; '.join(': '.join(entry) for entry in index.broken[:3])}"
            raise DatasetNotFoundError(problem, self.expected)
        self._sequences = index.sequences
        return index.sequences

    def load_index(self, signature: str) -> SceneIndex:
        """The index of the tree with this `tree_signature`, which may be empty."""
        kind = (type(self).__module__, type(self).__qualname__, self.index_version)
        what = [*kind, self.root.resolve(), self.split, *self.index_options()]
        key = hashlib.sha256("\0".join(map(str, what)).encode("utf-8", "surrogateescape")).hexdigest()[:24]
        path = cache_folder("scenes") / f"{key}.npz"
        if (index := load_index(path, signature)) is None:
            index = self._search()
            save_index(path, signature, index)
        return index

    def state(self) -> dict[str, str]:
        """What decides the frames beside the arguments: where `root` really is, and its files by name, size and times.

        Asks the file system about every file below `root`.
        """
        return {"root": str(self.root.resolve()), "files": tree_signature(self.root, ("*",), images=True)}

    def _search(self) -> SceneIndex:
        sequences: list[SceneSequence] = []
        broken: list[tuple[str, str]] = []
        for path in sorted(self.find()):
            try:
                sequence = self.open_sequence(path)
            except MediaReadError as error:
                broken.append((error.path, error.reason))
                continue
            if sequence.num_frames:
                sequences.append(sequence._replace(frames=StringTable.of(sequence.frames)))
        return SceneIndex(sorted(sequences, key=lambda sequence: sequence.name), broken)

    def published_name(self, name: str) -> str:
        """Name of a sequence in `sequence_lists` and in results: that of the root's folder for the root.

        Args:
            name: In the index, or as a user calls the sequence; a published name stays as it is.
        """
        return self.root.resolve().name if name == "." else name

    def name_of(self, folder: Path) -> str:
        """Name of the sequence in a folder: its path relative to the root, `.` for the root itself."""
        return folder.relative_to(self.root).as_posix()


def usable_frames(path: Path, frames: Sequence[str], is_usable: Iterable[bool], *, keep_all: bool = False) -> list[str]:
    """The usable frames; logs how many others there are.

    Args:
        path: Of the sequence.
        frames: Its frames.
        is_usable: For each, whether it has depth and a pose.
        keep_all: Whether the others are not left out.
    """
    usable = [frame for frame, good in zip(frames, is_usable, strict=True) if good]
    if missing := len(frames) - len(usable):
        what = "kept" if keep_all else "skipped"
        logger.warning("%s: %d of %d frames have no depth or pose; %s", path, missing, len(frames), what)
    return list(frames) if keep_all else usable


def unknown_camera(size: int) -> Float64[Tensor, "N N"]:
    """NaN in place of intrinsics (`size` 3) or a pose (4) that a data set does not state."""
    return torch.full((size, size), torch.nan, dtype=torch.float64)


def check_same_size(path: Path, depth: Tensor, image: Tensor) -> None:
    """Refuse a depth map that is not of the size of its image.

    Args:
        path: Of the depth map.
        depth: [h, w].
        image: [3, H, W].

    Raises:
        MediaReadError: If the sizes differ.
    """
    if depth.shape != image.shape[-2:]:
        raise MediaReadError(path, f"depth of {tuple(depth.shape)} for an image of {tuple(image.shape[-2:])}")


def is_rigid(pose: Float64[np.ndarray, "4 4"]) -> bool:
    """Whether a pose is finite, with a proper rotation and the last row 0 0 0 1."""
    if not np.isfinite(pose).all():
        return False
    rotation = pose[:3, :3]
    orthonormal = np.abs(rotation @ rotation.T - np.eye(3)).max() < _RIGID_TOLERANCE
    return bool(orthonormal and np.linalg.det(rotation) > 0 and np.allclose(pose[3], [0, 0, 0, 1]))


def read_matrix(path: Path, shape: tuple[int, ...]) -> Float64[np.ndarray, "..."]:
    """Numbers of a text file in this shape, -1 is free; read-only, as they are kept in memory until the file changes.

    Raises:
        MediaReadError: If the file is missing, does not hold this many numbers.
    """
    try:
        status = path.stat()
        return _read_matrix(path, shape, (status.st_size, status.st_mtime_ns))
    except (OSError, ValueError) as error:
        raise MediaReadError(path, f"expected numbers in the shape {shape} ({error})") from error


@lru_cache(maxsize=512)
def _read_matrix(path: Path, shape: tuple[int, ...], state: tuple[int, int]) -> np.ndarray:
    matrix = np.loadtxt(path, dtype=np.float64, ndmin=1).reshape(shape)
    matrix.flags.writeable = False
    return matrix
