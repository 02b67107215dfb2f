"""All three objectives on whatever is found below one folder: RGB-D sequences, videos and photos."""

import logging
from collections.abc import Callable
from pathlib import Path

from torch.utils.data import Dataset

from omnistream.data.captions import ImageFolderCaptions
from omnistream.data.files import Split
from omnistream.data.images import ImageFolder
from omnistream.data.multitask import MultiTaskDataModule, Source
from omnistream.data.quarantine import NothingUsableError
from omnistream.data.real import find_media
from omnistream.data.scenes import ClipSampling, SceneFolder
from omnistream.data.videos import VideoFolder
from omnistream.data.views import CropConfig, MultiCropDataset

logger = logging.getLogger(__name__)


class RealSamples(MultiTaskDataModule):
    """Finds media below a folder and makes a source of each kind.

    Photos (one folder per class) give `ssl/image` and, with captions built from the class names, `captioning`; videos
    give `ssl/video`; RGB-D sequences in a known layout give `geometry`. Broken files are named, skipped and counted.

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
        NothingUsableError: If nothing is found.
    """

    def __init__(
        self,
        root: Path,
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
        logger.info("%s", media.report)
        sources: dict[str, Source | None] = {}
        if media.images is not None:
            path = media.images.path
            train, val = _splits(lambda split: ImageFolder(path, split=split, seed=seed))
            sources["ssl/image"] = _views(train, val, crops, seed, image_batch_size)
            train, val = _splits(lambda split: ImageFolderCaptions(path, size=size, split=split, seed=seed))
            sources["captioning"] = Source(train, val, batch_size=caption_batch_size)
        if media.videos is not None:
            folder = media.videos.path
            train, val = _splits(
                lambda split: VideoFolder(folder, num_frames=num_frames, size=2 * size, split=split, seed=seed)
            )
            sources["ssl/video"] = _views(train, val, crops, seed, video_batch_size)
        if media.scenes_root is not None:
            root, sampling = media.scenes_root, ClipSampling(num_frames=num_frames)
            train, val = _splits(lambda split: SceneFolder(root, size=size, sampling=sampling, split=split, seed=seed))
            sources["geometry"] = Source(train, val, batch_size=scene_batch_size)
        super().__init__(sources, num_workers=num_workers, seed=seed, pin_memory=pin_memory)


def _views(train: Dataset, val: Dataset | None, crops: CropConfig, seed: int, batch_size: int) -> Source:
    return Source(
        MultiCropDataset(train, crops, seed),
        None if val is None else MultiCropDataset(val, crops, seed),
        batch_size=batch_size,
    )


def _splits(make: Callable[[Split], Dataset]) -> tuple[Dataset, Dataset | None]:
    """Training and validation part; no validation, and a warning, where there is too little to hold some out."""
    try:
        return make("train"), make("val")
    except NothingUsableError as error:
        logger.warning("all of it is trained on, nothing is validated: %s", error)
        return make("all"), None
