"""All three objectives on what is found below one folder: RGB-D sequences, videos and photos."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from omnistream.data.captions import ImageFolderCaptions
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import IMAGE_SUFFIXES, VIDEO_SUFFIXES, dataset_root, find_files
from omnistream.data.images import ImageFolder
from omnistream.data.multitask import MultiTaskDataModule, Source
from omnistream.data.path_table import PathTable
from omnistream.data.scenes import ClipSampling, SceneClips, SceneCrop, SceneFolder, SceneSequence
from omnistream.data.scenes.folder import LAYOUTS
from omnistream.data.splits import Split
from omnistream.data.transforms import square_crop
from omnistream.data.videos import VideoFolder
from omnistream.data.views import CropConfig, MultiCropDataset

logger = logging.getLogger(__name__)

EXPECTED = f"RGB-D sequences ({', '.join(LAYOUTS)}), videos, or a folder of class folders with images, at any depth"


@dataclass(frozen=True)
class FoundFolder:
    """A folder that one of the data sets can take as its root."""

    path: Path
    """The folder."""
    count: int
    """Files in it."""


@dataclass(frozen=True)
class FoundMedia:
    """What was found below a folder; each part may be empty."""

    root: Path
    """The folder searched; the root for `SceneFolder`."""
    scenes: dict[str, int]
    """Frames of each sequence by `layout:name`."""
    videos: FoundFolder | None
    """Root for `VideoFolder`."""
    images: FoundFolder | None
    """Root for `ImageFolder` and `ImageFolderCaptions`: the folder of class folders with the most images."""

    @property
    def summary(self) -> str:
        """One line per kind, for the user."""
        lines = [f"scenes: {len(self.scenes)} with {sum(self.scenes.values())} frames"]
        lines += [f"  {name}: {frames} frames" for name, frames in self.scenes.items()]
        lines.append(f"videos: {self.videos.count} files in {self.videos.path}" if self.videos else "videos: none")
        lines.append(f"images: {self.images.count} files in {self.images.path}" if self.images else "images: none")
        return "\n".join(lines)


def find_media(root: str | os.PathLike[str]) -> FoundMedia:
    """Scenes, videos and class folders of images below a folder; nothing is decoded.

    Videos and images are searched in `videos` and `images` directly below `root` if these exist, otherwise everywhere.

    Raises:
        DatasetNotFoundError: If there is no such folder, or nothing of any kind in it.
    """
    folder = dataset_root(root, EXPECTED)
    sequences = _find_scenes(folder)
    media = FoundMedia(
        root=folder,
        scenes={sequence.name: sequence.num_frames for sequence in sequences},
        videos=_find_videos(_kind_folder(folder, "videos")),
        images=_find_class_folders(
            _kind_folder(folder, "images"), {folder / s.name.partition(":")[2] for s in sequences}
        ),
    )
    if not media.scenes and media.videos is None and media.images is None:
        raise DatasetNotFoundError(
            f"{folder} holds no scene, no video and no folder of class folders with images", EXPECTED
        )
    return media


def _find_scenes(root: Path) -> list[SceneSequence]:
    reader = SceneFolder(root)
    try:
        return reader.index()
    except DatasetNotFoundError as error:
        if reader.broken:
            logger.warning("%s", error)
        return []


def _kind_folder(root: Path, kind: str) -> Path:
    return root / kind if (root / kind).is_dir() else root


def _find_videos(root: Path) -> FoundFolder | None:
    count = len(find_files(root, VIDEO_SUFFIXES))
    return FoundFolder(root, count) if count else None


def _find_class_folders(root: Path, scenes: set[Path]) -> FoundFolder | None:
    """The folder whose subfolders hold the most images, among those with two or more such subfolders.

    Folders of scenes hold their frames and are not classes.
    """
    files: PathTable = find_files(root, IMAGE_SUFFIXES)
    counts: dict[Path, list[int]] = {}
    for number, relative in enumerate(files.folders):
        folder = root / relative
        if folder != root and scenes.isdisjoint((folder, *folder.parents)):
            counts.setdefault(folder.parent, []).append(len(files.positions(number)))
    found = [FoundFolder(path, sum(classes)) for path, classes in counts.items() if len(classes) > 1]
    return max(found, key=lambda candidate: candidate.count, default=None)


class MediaFolderDataModule(MultiTaskDataModule):
    """Finds media below a folder and makes a source of each kind.

    Photos (one folder per class) give `ssl/image` and, with captions built from the class names, `captioning`; videos
    give `ssl/video`; RGB-D sequences in a known layout give `geometry`. Broken files are logged, skipped and counted.

    Args:
        root: Folder to search.
        size: Side of RGB-D clips and captioned images in pixels; videos are read with a shorter side of twice that, and
            `crops` sets the views.
        num_frames: Frames of a clip.
        crops: Views for self-supervision; `patch_size` must be the backbone's.
        image_batch_size: Photos per step.
        video_batch_size: Videos per step.
        scene_batch_size: RGB-D clips per step.
        caption_batch_size: Captioned photos per step.
        num_workers: Worker processes per source.
        seed: Of order, crops and clips.
        pin_memory: Page-locked batches, for GPUs.

    Raises:
        DatasetNotFoundError: If nothing is found.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        size: int = 224,
        num_frames: int = 16,
        crops: CropConfig = CropConfig(),  # noqa: B008 (frozen)
        image_batch_size: int = 8,
        video_batch_size: int = 2,
        scene_batch_size: int = 2,
        caption_batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        pin_memory: bool = False,
    ) -> None:
        media = find_media(root)
        logger.info("%s", media.summary)
        sources: dict[str, Source | None] = {}
        if media.images is not None:
            path = media.images.path
            images = _splits(lambda split: ImageFolder(path, split=split, seed=seed))
            sources["ssl/image"] = _views(images, crops, seed, image_batch_size)
            captions = _splits(
                lambda split: ImageFolderCaptions(
                    path, square_crop(size, random=split == "train"), split=split, seed=seed
                )
            )
            sources["captioning"] = Source(*captions, batch_size=caption_batch_size)
        if media.videos is not None:
            folder = media.videos.path
            videos = _splits(
                lambda split: VideoFolder(folder, num_frames=num_frames, size=2 * size, split=split, seed=seed)
            )
            sources["ssl/video"] = _views(videos, crops, seed, video_batch_size)
        if media.scenes:
            reader, sampling, crop = SceneFolder(media.root), ClipSampling(num_frames=num_frames), SceneCrop(size)
            scenes = _splits(lambda split: SceneClips(reader, sampling, crop, seed, split=split))
            sources["geometry"] = Source(*scenes, batch_size=scene_batch_size)
        super().__init__(sources, num_workers=num_workers, seed=seed, pin_memory=pin_memory)


def _views(parts: tuple[Dataset, Dataset | None], crops: CropConfig, seed: int, batch_size: int) -> Source:
    train, val = parts
    return Source(
        MultiCropDataset(train, crops, seed),
        None if val is None else MultiCropDataset(val, crops, seed),
        batch_size=batch_size,
    )


def _splits(make: Callable[[Split | None], Dataset]) -> tuple[Dataset, Dataset | None]:
    """Training and validation part; no validation, and a warning, if there is too little data to hold some out."""
    try:
        return make("train"), make("val")
    except DatasetNotFoundError as error:
        logger.warning("trained on everything, without validation: %s", error)
        return make(None), None
