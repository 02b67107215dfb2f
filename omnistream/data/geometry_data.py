"""The videos of one geometry benchmark as a data module, named by its folder."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omnistream.data.benchmarks import EvaluationDataModule
from omnistream.data.geometry_videos import FrameChoice, GeometryVideos, ModelImages
from omnistream.data.scenes.reader import SceneReader
from omnistream.paths import expand_path


class GeometryVideosDataModule(EvaluationDataModule):
    """The videos of a data set of scenes, one per test batch; there is nothing to train on or to validate with.

    Args:
        reader: Class of the data set, called with the folder; in YAML with further `init_args` where it has some.
        root: Folder of the data set.
        sequences: See `GeometryVideos`.
        frames: Which frames of each sequence.
        images: Size of the images that the model sees; None for that of the files.

    Raises:
        DatasetNotFoundError: If there is no such folder, or none of the sequences is in it.
        ValueError: If the data set has no list of that name.
    """

    def __init__(
        self,
        reader: Callable[[Path], SceneReader],
        root: str | os.PathLike[str],
        *,
        sequences: str | Sequence[str] | None = None,
        frames: FrameChoice = FrameChoice(),  # noqa: B008 (frozen)
        images: ModelImages | None = ModelImages(),  # noqa: B008 (frozen)
    ) -> None:
        videos = GeometryVideos(reader(expand_path(root)), sequences, frames, images)
        super().__init__(test=videos, batch_size=1)
        self.root = Path(root)

    def options(self) -> dict[str, Any]:
        """The folder; the rest is said by the videos themselves."""
        return {"root": str(self.root)}
