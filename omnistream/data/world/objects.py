"""Images of one object; its colour and shape are the class."""

from dataclasses import replace
from itertools import product

import numpy as np
import torch

from omnistream.data.batch import FrameClip
from omnistream.data.sampling import SampleKey, sample_key
from omnistream.data.splits import Split
from omnistream.data.transforms import ImageTransform
from omnistream.data.world.clip import render_scene
from omnistream.data.world.config import WorldConfig
from omnistream.data.world.datasets import _ImageWorld
from omnistream.data.world.motion import film, rotation
from omnistream.data.world.primitives import SHAPES
from omnistream.data.world.scene import Scene, background_materials, object_materials, random_lighting, stack_materials

OBJECT_COLOURS = ("red", "green", "blue", "yellow")
OBJECTS = tuple(f"{colour} {shape}" for colour, shape in product(OBJECT_COLOURS, SHAPES))
"""Names of the labels."""


def compose_object(rng: np.random.Generator, config: WorldConfig, label: int) -> Scene:
    """A scene with one object of a class before the camera, in a room or in the open.

    Raises:
        ValueError: If the label is unknown.
    """
    if not 0 <= label < len(OBJECTS):
        raise ValueError(f"expected a label below {len(OBJECTS)}, got {label}")
    colour, shape = OBJECT_COLOURS[label // len(SHAPES)], label % len(SHAPES)
    frames, is_room = config.num_frames, rng.random() < config.room_probability
    width, length, height = rng.uniform(9, 13), rng.uniform(9, 13), rng.uniform(2.9, 3.6)
    low, high = np.array([-width / 2, -height, -length / 2]), np.array([width / 2, 0, length / 2])
    camera = film(rng, config, (low, high) if is_room else None, is_video=True)
    half = rng.uniform(*config.object_size) * np.ones(3)
    bearing = camera.yaw + camera.half_fov * rng.uniform(-0.4, 0.4)
    place = camera.centre + rng.uniform(1.6, 2.6) * np.array([np.sin(bearing), 0, np.cos(bearing)])
    place[1] = min(place[1] + rng.uniform(0.1, 0.6), -half[1])
    turn = np.full((frames, 1), rng.uniform(-np.pi, np.pi))
    return Scene(
        is_room=is_room,
        low=low.astype(np.float32),
        high=high.astype(np.float32),
        shape=np.array([shape]),
        kinds=[SHAPES[shape]],
        colour=[colour],
        half=half[None].astype(np.float32),
        position=np.tile(place, (frames, 1, 1)).astype(np.float32),
        rotation=rotation(turn, np.zeros_like(turn), np.zeros_like(turn)).astype(np.float32),
        present=np.ones((frames, 1), dtype=bool),
        intrinsics=camera.intrinsics,
        camera_to_world=camera.camera_to_world,
        is_video=True,
        materials=stack_materials(
            background_materials(rng, is_room, config.difficulty), object_materials(rng, [colour], config.difficulty)
        ),
        lighting=random_lighting(rng, is_room, low, high, config.difficulty),
    )


class WorldObjects(_ImageWorld):
    """Images of the objects in `OBJECTS`; label = index modulo the number of classes.

    Labels are thus balanced in every run of indices, and chance is one in the number of classes.

    Args:
        num_samples: Length of the data set.
        split: Which of the disjoint splits.
        seed: Determines all scenes of the split.
        size: Height and width in pixels.
        config: Statistics of the world; its size and number of frames are replaced by the above.
        transform: Applied to the image, uint8 [1, 3, H, W].
    """

    classes = OBJECTS
    collate = staticmethod(FrameClip.collate)

    def __init__(
        self,
        num_samples: int = 1600,
        split: Split = "train",
        seed: int = 0,
        size: tuple[int, int] = (64, 64),
        config: WorldConfig = WorldConfig(),  # noqa: B008 (frozen)
        transform: ImageTransform | None = None,
    ) -> None:
        still = replace(config, camera_motion=0.0, camera_turn=0.0)
        super().__init__(num_samples, split, seed, 1, size, still, transform)

    def __getitem__(self, key: int | SampleKey) -> FrameClip:
        """The image of an index or key."""
        seed, label = self._seed(key, salt=5), sample_key(key).index % len(self.classes)
        clip = render_scene(compose_object(np.random.default_rng(seed), self.config, label), self.config)
        return FrameClip(**self._common(key, seed, clip), label=torch.tensor(label))
