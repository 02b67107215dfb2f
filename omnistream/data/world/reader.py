"""Long videos of the procedural world, read frame by frame like recorded ones."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from omnistream.data.batch import SceneFrame
from omnistream.data.scenes.index_cache import SceneSequence
from omnistream.data.scenes.reader import SceneReader
from omnistream.data.splits import Split
from omnistream.data.world.clip import render_scene
from omnistream.data.world.compose import compose
from omnistream.data.world.config import WorldConfig
from omnistream.data.world.datasets import clip_seed
from omnistream.data.world.scene import Scene

_KEPT_SCENES = 4
_OF_FRAMES = ("position", "rotation", "present", "intrinsics", "camera_to_world")
"""Arrays of a scene that have a row per frame."""


class WorldVideos(SceneReader):
    """Videos of the procedural world with exact depth and cameras; a frame is rendered when it is read.

    Camera and objects swing along their paths, so a video of any length stays in its scene and no two frames are equal.

    Args:
        num_videos: How many, named `test/000` and so on.
        num_frames: Of each.
        frames_per_pass: See `WorldConfig`; the default moves at about the speed of the training clips.
        split: Which of the disjoint splits.
        seed: Determines all scenes of the split.
        size: Height and width in pixels.
        config: Statistics of the world; the arguments above replace its fields of the same names, and all are videos.

    Raises:
        ValueError: If a number is out of range.
    """

    expected = "no files: the procedural world is rendered"

    def __init__(
        self,
        num_videos: int = 8,
        num_frames: int = 64,
        frames_per_pass: int = 12,
        split: Split = "test",
        seed: int = 0,
        size: tuple[int, int] = (64, 64),
        config: WorldConfig = WorldConfig(),  # noqa: B008 (frozen)
    ) -> None:
        # Not SceneReader's: there is no folder.
        if num_videos < 1:
            raise ValueError(f"num_videos: expected at least 1, got {num_videos}")
        self.root, self.split, self.seed = Path("world"), split, seed
        self.broken = []
        self.config = replace(
            config, num_frames=num_frames, frames_per_pass=frames_per_pass, size=(size[0], size[1]),
            unordered_probability=0.0, overlay_probability=0.0,
        )  # fmt: skip
        frames = [str(index) for index in range(num_frames)]
        self._seeds = {f"{split}/{index:03d}": clip_seed(seed, split, index, salt=6) for index in range(num_videos)}
        self._sequences = [SceneSequence(name, frames) for name in self._seeds]
        self._scenes: OrderedDict[str, Scene] = OrderedDict()
        self._lock = Lock()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in ("_scenes", "_lock")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _scenes=OrderedDict(), _lock=Lock())

    def index_options(self) -> tuple[str, ...]:
        """Seed and statistics, which decide the frames."""
        return (f"seed {self.seed}", str(self.config))

    def state(self) -> dict[str, str]:
        """Nothing: there are no files."""
        return {}

    def find(self) -> Iterable[Path]:
        """Nothing: there are no files."""
        return []

    def open_sequence(self, path: Path) -> SceneSequence:
        """Sequences are known by their names.

        Raises:
            FileNotFoundError: Always.
        """
        raise FileNotFoundError(f"{path}: {self.expected}")

    def read(self, sequence: SceneSequence, positions: Sequence[int]) -> list[SceneFrame]:
        """Frames, rendered one by one."""
        scene = self._scene(sequence.name)
        return [self._frame(scene, position) for position in positions]

    def _scene(self, name: str) -> Scene:
        """The whole scene, without its images; the latest few are kept."""
        with self._lock:
            if name not in self._scenes:
                self._scenes[name] = compose(np.random.default_rng(self._seeds[name]), self.config)
            self._scenes.move_to_end(name)
            if len(self._scenes) > _KEPT_SCENES:
                self._scenes.popitem(last=False)
            return self._scenes[name]

    def _frame(self, scene: Scene, position: int) -> SceneFrame:
        one = replace(scene, **{name: getattr(scene, name)[position : position + 1] for name in _OF_FRAMES})
        clip = render_scene(one, self.config)
        return SceneFrame(
            image=torch.from_numpy(clip.images[0]),
            depth=torch.from_numpy(clip.depth[0]),
            valid=torch.from_numpy(clip.valid[0]),
            intrinsics=torch.from_numpy(clip.intrinsics[0]),
            camera_to_world=torch.from_numpy(clip.camera_to_world[0]),
        )
