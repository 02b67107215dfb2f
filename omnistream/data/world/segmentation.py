"""Images of the procedural world with a class per pixel, from the masks of its instances."""

from dataclasses import replace

import torch

from omnistream.data.batch import LabelledImage
from omnistream.data.sampling import SampleKey, sample_seed
from omnistream.data.splits import Split
from omnistream.data.transforms import PairTransform, transform_pair
from omnistream.data.world.clip import render_clip
from omnistream.data.world.config import WorldConfig
from omnistream.data.world.datasets import _World
from omnistream.data.world.scene import CLASSES
from omnistream.metrics.segmentation import IGNORE_INDEX


class WorldSegmentation(_World[PairTransform]):
    """Single images; a pixel's class is that of the thing it shows (`classes`), 255 behind a word drawn over the image.

    Args:
        num_samples: Length of the data set.
        split: Which of the disjoint splits.
        seed: Determines all scenes of the split.
        size: Height and width in pixels.
        config: Statistics of the world; its size and number of frames are replaced by the above and 1.
        transform: Applied to image and labels; see `data/segmentation_transforms.py`.
    """

    classes = CLASSES
    collate = staticmethod(LabelledImage.collate)

    def __init__(
        self,
        num_samples: int = 1024,
        split: Split = "train",
        seed: int = 0,
        size: tuple[int, int] = (64, 96),
        config: WorldConfig = WorldConfig(),  # noqa: B008 (frozen)
        transform: PairTransform | None = None,
    ) -> None:
        super().__init__(num_samples, split, seed, 1, size, replace(config, unordered_probability=0.0), transform)

    def __getitem__(self, key: int | SampleKey) -> LabelledImage:
        """The image of an index or key."""
        seed, drawn = self._seed(key), sample_seed(self.seed, key, salt=1)
        clip = render_clip(seed, self.config)
        labels = clip.classes[0]
        if clip.overlay is not None:
            labels[clip.overlay.plate] = IGNORE_INDEX
        images, labels = transform_pair(self.transform, torch.from_numpy(clip.images), torch.from_numpy(labels), drawn)
        return LabelledImage(images=images, labels=labels, name=f"world/{self.split}/{seed}", seed=drawn)
