"""Folders of videos."""

import os

import numpy as np
import torch

from omnistream.data.batch import FrameClip
from omnistream.data.broken_files import BrokenFiles, FileDataset, require_readable
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import VIDEO_SUFFIXES, dataset_root, find_files
from omnistream.data.media.errors import VideoReadError
from omnistream.data.media.video import read_frames
from omnistream.data.media.video_info import VideoInfo
from omnistream.data.media.video_probe import probe_video
from omnistream.data.path_table import Selection
from omnistream.data.sampling import SampleKey, sample_rng, sample_seed
from omnistream.data.splits import Split, split_positions
from omnistream.data.transforms import ImageTransform, transform_images

EXPECTED = "a folder with videos at any depth"
_CLIP_SALT = 2


def clip_positions(total: int, num_frames: int, stride: int, rng: np.random.Generator | None) -> np.ndarray:
    """Positions of a clip's frames in a video of `total` frames.

    The stride is reduced if the clip does not fit; a video shorter than the clip gives all its frames and then repeats
    the last one. The start is random, or central if `rng` is None.
    """
    fitting = max(1, min(stride, (total - 1) // max(1, num_frames - 1)))
    spare = max(0, total - 1 - (num_frames - 1) * fitting)
    start = spare // 2 if rng is None else int(rng.integers(spare + 1))
    return np.minimum(start + fitting * np.arange(num_frames), total - 1)


class VideoFolder(FileDataset[FrameClip]):
    """Clips of the videos at any depth below a folder, one per video and epoch.

    Files are found by suffix and read by content; links to folders are followed. Frame count and rate come from the
    packets, which are read once per file and cached on disk (see `omnistream.data.media.video_cache`). A clip that
    cannot be read is logged and replaced by one of another video; `verify_video` checks whole files.

    Args:
        root: The folder.
        transform: Applied to the frames of a clip, uint8 [T, 3, H, W], all at once.
        num_frames: Frames per clip.
        stride: Distance between the frames of a clip; reduced if a video is too short.
        size: Resize the shorter side to this length while decoding, which saves memory; null keeps the size.
        split: The training or held-out part of the folder; null for all of it.
        val_fraction: Held-out fraction.
        random_start: Start each clip at a random frame; otherwise clips are central.
        max_seconds: Treat longer videos as broken, because some can only be decoded from their start.
        seed: Determines starts, random choices of `transform`, replacements, and each sample's `seed`.
        broken_files: Records broken files; by default up to 20 % are skipped.

    Raises:
        DatasetNotFoundError: If there is no video that can be read.
        ValueError: If `num_frames` or `stride` is not positive.
    """

    collate = staticmethod(FrameClip.collate)

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: ImageTransform | None = None,
        *,
        num_frames: int = 16,
        stride: int = 4,
        size: int | None = None,
        split: Split | None = None,
        val_fraction: float = 0.1,
        random_start: bool = True,
        max_seconds: float | None = None,
        seed: int = 0,
        broken_files: BrokenFiles | None = None,
    ) -> None:
        if num_frames < 1 or stride < 1:
            raise ValueError(f"num_frames and stride must be at least 1, got {num_frames} and {stride}")
        super().__init__(seed, broken_files)
        self.root, self.transform = dataset_root(root, EXPECTED), transform
        self.num_frames, self.stride, self.size = num_frames, stride, size
        self.random_start, self.max_seconds = random_start, max_seconds
        table = find_files(self.root, VIDEO_SUFFIXES)
        self.files = Selection(table, split_positions(len(table), split, val_fraction))
        if not self.files:
            problem = f": {len(table)} videos are too few for the {split} split" if table else " holds no videos"
            raise DatasetNotFoundError(f"{self.root}{problem}", EXPECTED)
        require_readable("videos", self.root, self.files, probe_video, self.broken_files)

    def __len__(self) -> int:
        return len(self.files)

    def _check(self, info: VideoInfo) -> None:
        if self.max_seconds is not None and info.num_frames > self.max_seconds * info.fps:
            raise VideoReadError(info.path, f"{info.num_frames} frames are longer than max_seconds={self.max_seconds}")

    def _read(self, key: SampleKey) -> FrameClip:
        path = self.files[key.index]
        info = probe_video(path)
        self._check(info)
        rng = sample_rng(self.seed, key, _CLIP_SALT) if self.random_start else None
        positions = clip_positions(info.num_frames, self.num_frames, self.stride, rng)
        seed = sample_seed(self.seed, key)
        frames = read_frames(path, positions.tolist(), short_side=self.size)
        return FrameClip(
            images=transform_images(self.transform, frames, seed),
            label=torch.tensor(-1),
            name=str(path),
            seed=seed,
        )
