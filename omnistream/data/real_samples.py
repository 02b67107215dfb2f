"""All three objectives on whatever is found below one folder: RGB-D sequences, videos and photos."""

import logging
from pathlib import Path

from omnistream.data.captions import ImageFolderCaptions
from omnistream.data.files import Split
from omnistream.data.images import ImageFolder
from omnistream.data.multitask import MultiTaskDataModule, Source
from omnistream.data.real import find_media
from omnistream.data.scenes import ClipSampling, SceneFolder
from omnistream.data.videos import VideoFolder
from omnistream.tasks.ssl.views import CropConfig, MultiCropDataset

logger = logging.getLogger(__name__)


class RealSamples(MultiTaskDataModule):
    """Finds media below a folder and makes a source of each kind.

    Photos (one folder per class) give `ssl/image` and, with captions built from the class names, `captioning`; videos
    give `ssl/video`; RGB-D sequences in a known layout give `geometry`. Broken files are named, skipped and counted.

    Args:
        root: Folder to search.
        size: Side of clips and captioned images in pixels.
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
        splits: tuple[Split, Split] = ("train", "val")
        sources: dict[str, Source | None] = {}
        if media.images is not None:
            path = media.images.path
            photos = [MultiCropDataset(ImageFolder(path, split=split, seed=seed), crops, seed) for split in splits]
            sources["ssl/image"] = Source(train=photos[0], val=photos[1], batch_size=image_batch_size)
            named = [ImageFolderCaptions(path, size=size, split=split, seed=seed) for split in splits]
            sources["captioning"] = Source(train=named[0], val=named[1], batch_size=caption_batch_size)
        if media.videos is not None:
            folder = media.videos.path
            clips = [
                VideoFolder(folder, num_frames=num_frames, size=2 * size, split=split, seed=seed) for split in splits
            ]
            films = [MultiCropDataset(clip, crops, seed) for clip in clips]
            sources["ssl/video"] = Source(train=films[0], val=films[1], batch_size=video_batch_size)
        if media.scenes_root is not None:
            sampling = ClipSampling(num_frames=num_frames)
            scenes = [
                SceneFolder(media.scenes_root, size=size, sampling=sampling, split=split, seed=seed) for split in splits
            ]
            sources["geometry"] = Source(train=scenes[0], val=scenes[1], batch_size=scene_batch_size)
        super().__init__(sources, num_workers=num_workers, seed=seed, pin_memory=pin_memory)
