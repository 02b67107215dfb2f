"""Videos of the procedural world with a mask of every tracked object."""

from dataclasses import replace

import numpy as np
import torch

from omnistream.data.batch import MaskedVideo
from omnistream.data.sampling import SampleKey
from omnistream.data.splits import Split
from omnistream.data.transforms import ImageTransform
from omnistream.data.world.clip import WorldClip, render_clip
from omnistream.data.world.config import WorldConfig
from omnistream.data.world.datasets import _ImageWorld

_TRIES = 50


class WorldVideoObjects(_ImageWorld):
    """Whole videos with masks of the largest objects of their first frame.

    Args:
        num_samples: Length of the data set.
        split: Which of the disjoint splits.
        seed: Determines all scenes of the split.
        num_frames: Frames of a video, at least 3: the first and the last are not scored.
        size: Height and width in pixels.
        config: Statistics of the world; its size and number of frames are replaced by the above, and all clips are
            videos.
        max_objects: Most objects with a mask, the largest ones; everything else is background.
        min_share: Least share of the first frame that an object covers.
        transform: Applied to the images of a video, uint8 [T, 3, H, W].

    Raises:
        ValueError: If there are too few frames, or no object is asked for.
    """

    collate = staticmethod(MaskedVideo.collate)

    def __init__(
        self,
        num_samples: int = 16,
        split: Split = "test",
        seed: int = 0,
        num_frames: int = 16,
        size: tuple[int, int] = (96, 160),
        config: WorldConfig = WorldConfig(),  # noqa: B008 (frozen)
        max_objects: int = 3,
        min_share: float = 0.01,
        transform: ImageTransform | None = None,
    ) -> None:
        if num_frames < 3 or max_objects < 1:
            raise ValueError(f"needs num_frames >= 3 and max_objects >= 1, got {num_frames} and {max_objects}")
        super().__init__(
            num_samples, split, seed, num_frames, size, replace(config, unordered_probability=0.0), transform
        )
        self.max_objects, self.min_share = max_objects, min_share

    def __getitem__(self, key: int | SampleKey) -> MaskedVideo:
        """The video of an index or key.

        Raises:
            RuntimeError: If 50 scenes in a row show no object of that size.
        """
        for attempt in range(_TRIES):
            seed = self._seed(key, salt=20 + attempt)
            clip = render_clip(seed, self.config)
            if objects := self._tracked(clip):
                masks = sum((clip.instances == k) * np.uint8(i) for i, k in enumerate(objects, start=1))
                common = self._common(key, seed, clip)
                return MaskedVideo(
                    images=common["images"],
                    masks=torch.from_numpy(np.asarray(masks, dtype=np.uint8)),
                    num_objects=len(objects),
                    name=common["name"],
                    frame_names=[f"{t:05d}" for t in range(len(clip.images))],
                )
        raise RuntimeError(f"no scene shows an object on {self.min_share:.0%} of its first frame: lower min_share")

    def _tracked(self, clip: WorldClip) -> list[int]:
        """Numbers of the largest objects in the first frame, the largest first."""
        first = clip.instances[0]
        numbers, areas = np.unique(first[first > 0], return_counts=True)
        order = np.argsort(-areas, kind="stable")[: self.max_objects]
        return [int(numbers[i]) for i in order if areas[i] >= self.min_share * first.size]
