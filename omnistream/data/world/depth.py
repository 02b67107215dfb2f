"""Single images of the world with their depth."""

import torch
from torch.utils.data import Dataset

from omnistream.data.batch import DepthImage
from omnistream.data.sampling import SampleKey
from omnistream.data.splits import Split
from omnistream.data.world.config import WorldConfig
from omnistream.data.world.datasets import WorldScenes


class WorldDepth(Dataset[DepthImage]):
    """Images with exact depth in metres; 0 in the sky and past `WorldConfig.max_depth`.

    Args:
        num_samples: Length of the data set.
        split: Which of the disjoint splits.
        seed: Determines all scenes of the split.
        size: Height and width in pixels.
        config: Statistics of the world; its size and number of frames are replaced.
    """

    takes_keys = True
    collate = staticmethod(DepthImage.collate)

    def __init__(
        self,
        num_samples: int = 1024,
        split: Split = "train",
        seed: int = 0,
        size: tuple[int, int] = (64, 64),
        config: WorldConfig = WorldConfig(),  # noqa: B008 (frozen)
    ) -> None:
        self.scenes = WorldScenes(num_samples, split, seed, 1, size, config)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: int | SampleKey) -> DepthImage:
        """The image of an index or key."""
        clip = self.scenes[key]
        depth = torch.where(clip.valid[0], clip.depth[0], 0.0)
        return DepthImage(image=clip.images[0], depth=depth, name=clip.name, seed=clip.seed)
