"""From a seed to a clip with its complete ground truth."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from omnistream.data.world.actions import compose_action
from omnistream.data.world.compose import compose
from omnistream.data.world.config import WorldConfig
from omnistream.data.world.scene import CLASSES, Scene
from omnistream.data.world.shading import shade, to_images
from omnistream.data.world.text import Overlay, draw_overlay, random_word
from omnistream.data.world.trace import BACKGROUND, SKY, camera_rays, trace


@dataclass
class WorldClip:
    """A rendered clip; arrays over T frames of H x W pixels.

    Attributes:
        images: uint8 RGB.
        depth: z-depth in metres, 0 where invalid.
        valid: False in the sky and past `WorldConfig.max_depth`.
        intrinsics: Pinhole matrices in pixels; pixel i has its centre at i + 0.5.
        camera_to_world: OpenCV axes.
        instances: -1 sky, 0 background, 1 + k object k of the scene.
        classes: Index into `scene.CLASSES`.
        is_video: False for unordered views of a static scene.
        scene: The scene that was rendered.
        overlay: The word drawn over the frames, or None; depth and masks are of the scene behind it.
    """

    images: UInt8[np.ndarray, "T 3 H W"]
    depth: Float[np.ndarray, "T H W"]
    valid: Bool[np.ndarray, "T H W"]
    intrinsics: Float[np.ndarray, "T 3 3"]
    camera_to_world: Float[np.ndarray, "T 4 4"]
    instances: Int[np.ndarray, "T H W"]
    classes: UInt8[np.ndarray, "T H W"]
    is_video: bool
    scene: Scene
    overlay: Overlay | None = None


def render_clip(seed: int, config: WorldConfig | None = None) -> WorldClip:
    """The clip of a seed; equal seeds and settings give equal clips.

    Args:
        seed: Any non-negative integer.
        config: Statistics of the world; the defaults where None.
    """
    config = config or WorldConfig()
    rng = np.random.default_rng(seed)
    clip = render_scene(compose(rng, config), config)
    if rng.random() < config.overlay_probability:
        word = random_word(rng, config.difficulty)
        clip.overlay = draw_overlay(rng, clip.images, word, config.difficulty)
    return clip


def render_action(seed: int, label: int, config: WorldConfig | None = None) -> WorldClip:
    """The clip of a seed in which the action `actions.ACTIONS[label]` happens."""
    config = config or WorldConfig()
    return render_scene(compose_action(np.random.default_rng(seed), config, label), config)


def render_scene(scene: Scene, config: WorldConfig) -> WorldClip:
    """Render a scene that is already composed."""
    shape = (len(scene.camera_to_world), *config.size)
    rays = camera_rays(scene, config.size)
    hits = trace(scene, rays)
    if config.supersample == 1:
        colour = shade(scene, rays, hits, config.max_depth, config.shadows)
    else:
        colour = _supersampled(scene, config)
    valid = hits.depth <= config.max_depth
    return WorldClip(
        images=to_images(colour, shape[0], config.size),
        depth=np.where(valid, hits.depth, 0).reshape(shape),
        valid=valid.reshape(shape),
        intrinsics=scene.intrinsics,
        camera_to_world=scene.camera_to_world,
        instances=hits.thing.reshape(shape),
        classes=_classes(scene, hits.thing, hits.face).reshape(shape),
        is_video=scene.is_video,
        scene=scene,
    )


def _supersampled(scene: Scene, config: WorldConfig) -> np.ndarray:
    count = config.supersample
    shifts = (np.arange(count) + 0.5) / count - 0.5
    total = np.zeros(1, dtype=np.float32)
    for dx in shifts:
        for dy in shifts:
            rays = camera_rays(scene, config.size, (float(dx), float(dy)))
            total = total + shade(scene, rays, trace(scene, rays), config.max_depth, config.shadows)
    return total / count**2


def _classes(scene: Scene, thing: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Class ids of hits: a table over sky, the six faces of the background, and the objects."""
    wall, floor = CLASSES.index("wall"), CLASSES.index("floor" if scene.is_room else "ground")
    faces = [wall, wall, CLASSES.index("ceiling"), floor, wall, wall]
    kinds = [CLASSES.index(kind) for kind in scene.kinds]
    table = np.array([CLASSES.index("sky"), *faces, *kinds], dtype=np.uint8)
    row = np.where(thing == SKY, 0, np.where(thing == BACKGROUND, 1 + face, 6 + thing))
    return table[row]
