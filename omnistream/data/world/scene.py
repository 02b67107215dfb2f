"""What a scene consists of, before it is drawn: arrays over frames and objects.

World axes are x right, y down, z forward; the floor is the plane y = 0. Row 0 of a material table is the background
(floor, walls or ground), row k + 1 is object k.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from omnistream.data.world.primitives import SHAPES
from omnistream.data.world.textures import NAMES, texture_ids

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 35),
    "green": (35, 175, 50),
    "blue": (40, 75, 235),
    "yellow": (245, 220, 40),
    "purple": (140, 45, 190),
    "orange": (250, 130, 20),
    "cyan": (40, 215, 225),
    "pink": (250, 130, 190),
    "white": (245, 245, 245),
    "black": (38, 38, 42),
}
PHOTO_COLOUR = "photo"
"""Used instead of a colour for objects that show a photograph."""

CLASSES = ("sky", "ground", "floor", "wall", "ceiling", *SHAPES, "sign", "building")
"""Names of the class ids."""
SIGN, BUILDING = "sign", "building"
"""Kinds of objects besides `SHAPES`; both are boxes without a named colour."""

_MUTED = ((200, 185, 165), (165, 175, 190), (175, 190, 165), (210, 205, 195), (185, 160, 150), (150, 150, 155))
_GROUNDS = ((120, 160, 85), (185, 165, 125), (150, 150, 150), (165, 130, 100))


@dataclass
class Materials:
    """Appearance of each face of each object; faces are -x, +x, -y, +y, -z, +z of its own frame.

    The colour of a point is `tint * (1 - contrast + contrast * texel)`.
    """

    texture: Int[np.ndarray, "K 6"]
    repeats: Float[np.ndarray, "K 6"]
    """Repetitions of the texture across an object's face; per metre for the background."""
    tint: Float[np.ndarray, "K 6 3"]
    contrast: Float[np.ndarray, "K 6"]


@dataclass
class Lighting:
    """Lambert shading by one light, plus ambient light."""

    position: Float[np.ndarray, " 3"]
    """A lamp in a room; for open scenes the unit vector towards the sun."""
    is_sun: bool
    ambient: float
    colour: Float[np.ndarray, " 3"]
    horizon: Float[np.ndarray, " 3"]
    """Colour of the haze, 0 to 255."""
    zenith: Float[np.ndarray, " 3"]


@dataclass
class Scene:
    """Everything that a clip shows. T frames, K objects; signs and buildings are objects too and come last."""

    is_room: bool
    low: Float[np.ndarray, " 3"]
    """Lower corner of the room; open scenes use only its floor at y = 0."""
    high: Float[np.ndarray, " 3"]
    shape: Int[np.ndarray, " K"]
    """Index into `primitives.SHAPES`."""
    kinds: list[str]
    """The class of each object: its shape, `SIGN` or `BUILDING`."""
    colour: list[str]
    """A key of `COLOURS` or `PHOTO_COLOUR`; empty for signs and buildings."""
    half: Float[np.ndarray, "K 3"]
    """Half extents in the object's own frame."""
    position: Float[np.ndarray, "T K 3"]
    """Centres."""
    rotation: Float[np.ndarray, "T K 3 3"]
    """Object to world."""
    present: Bool[np.ndarray, "T K"]
    intrinsics: Float[np.ndarray, "T 3 3"]
    camera_to_world: Float[np.ndarray, "T 4 4"]
    is_video: bool
    materials: Materials
    lighting: Lighting
    words: dict[int, str] = field(default_factory=dict)
    """Words on the face -z of signs, by the sign's index among the objects."""
    word_texels: list[UInt8[np.ndarray, "M 3"]] = field(default_factory=list)
    """Mip chains of the words, numbered after the textures of the atlas."""


def background_materials(rng: np.random.Generator, is_room: bool, difficulty: float) -> Materials:
    """Floor, walls and ceiling, or ground; muted, so that the named colours of objects stand out."""
    surfaces = texture_ids("grey:", "checker", "stripes", "dots", "noise", "motorcycle", "hubble")
    texture = np.repeat(rng.choice(surfaces), 6)
    texture[3] = rng.choice(texture_ids("grey:grass", "grey:gravel", "grey:brick", "checker", "noise", "dots"))
    texture[2] = texture_ids("noise")[0]
    repeats = np.full(6, 1 / rng.uniform(1.2, 3.0))
    repeats[3] = 1 / rng.uniform(0.8, 2.0)
    muted = np.array(_MUTED if is_room else _GROUNDS, dtype=np.float64)
    tint = np.repeat(muted[rng.integers(len(muted))][None], 6, axis=0) * rng.uniform(0.8, 1.1)
    tint[3] = muted[rng.integers(len(muted))] * rng.uniform(0.65, 1.0)
    tint[2] = 235
    contrast = np.full(6, rng.uniform(0.4, 0.7) + 0.25 * difficulty)
    contrast[2] = 0.2
    return _float32(texture[None], repeats[None], np.clip(tint, 0, 255)[None], contrast[None])


def object_materials(rng: np.random.Generator, colours: list[str], difficulty: float) -> Materials:
    """One texture per object: grey and tinted by the named colour, or a photograph."""
    greys, photos = texture_ids("grey:", "checker", "stripes", "dots", "noise"), texture_ids("astronaut", "chelsea")
    photos = np.concatenate([photos, texture_ids("coffee", "rocket", "motorcycle")])
    count = len(colours)
    is_photo = np.array([colour == PHOTO_COLOUR for colour in colours], dtype=bool)
    texture = np.where(is_photo, rng.choice(photos, count), rng.choice(greys, count))
    tint = np.array([COLOURS.get(colour, (255, 255, 255)) for colour in colours], dtype=np.float64).reshape(count, 3)
    tint = np.clip(tint * rng.uniform(0.85, 1.1, (count, 1)), 0, 255)
    contrast = np.where(is_photo, 1.0, rng.uniform(0.3, 0.6, count) + 0.3 * difficulty)
    repeats = np.where(is_photo, 1, rng.integers(1, 3, count))
    wide = (np.repeat(values[:, None], 6, axis=1) for values in (texture, repeats, tint, contrast))
    return _float32(*wide)


def random_lighting(
    rng: np.random.Generator, is_room: bool, low: np.ndarray, high: np.ndarray, difficulty: float
) -> Lighting:
    """A lamp below the ceiling, or the sun somewhere above."""
    if is_room:
        position = low + (high - low) * np.array([rng.uniform(0.25, 0.75), 0.06, rng.uniform(0.25, 0.75)])
    else:
        azimuth, elevation = rng.uniform(-np.pi, np.pi), np.deg2rad(rng.uniform(25, 65))
        flat = np.cos(elevation)
        position = np.array([flat * np.sin(azimuth), -np.sin(elevation), flat * np.cos(azimuth)])
    brightness = rng.uniform(1.15 - 0.5 * difficulty, 1.25)
    warmth = rng.uniform(-1, 1) * (0.03 + 0.12 * difficulty)
    horizon = np.array([205, 215, 225]) + rng.uniform(-1, 1) * np.array([25, 5, -20])
    return Lighting(
        position=position.astype(np.float32),
        is_sun=not is_room,
        ambient=float(rng.uniform(0.5, 0.7) - 0.25 * difficulty),
        colour=(brightness * np.array([1 + warmth, 1, 1 - warmth])).astype(np.float32),
        horizon=horizon.astype(np.float32),
        zenith=(horizon * rng.uniform(0.45, 0.85) * np.array([0.6, 0.85, 1.1])).clip(0, 255).astype(np.float32),
    )


def stack_materials(*parts: Materials) -> Materials:
    """Concatenate several tables."""
    names = ("texture", "repeats", "tint", "contrast")
    return Materials(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def sign_materials(words: list[str]) -> Materials:
    """A bright board with the word's own texture, numbered after the atlas, on the face -z.

    The tint is brighter than white, as if the sign was lit, so that letters are legible away from the light.
    """
    count = len(words)
    texture = np.full((count, 6), texture_ids("noise")[0])
    texture[:, 4] = len(NAMES) + np.arange(count)
    contrast = np.full((count, 6), 0.3)
    contrast[:, 4] = 1.0
    return _float32(texture, np.ones((count, 6)), np.full((count, 6, 3), 380.0), contrast)


def building_materials(rng: np.random.Generator, count: int) -> Materials:
    """Muted walls, different for each building."""
    texture = np.repeat(rng.choice(texture_ids("grey:brick", "grey:page", "checker", "stripes"), (count, 1)), 6, axis=1)
    tint = np.array(_MUTED, dtype=np.float64)[rng.integers(len(_MUTED), size=count)] * rng.uniform(0.7, 1, (count, 1))
    repeats = np.repeat(rng.integers(1, 4, (count, 1)), 6, axis=1)
    return _float32(texture, repeats, np.repeat(tint[:, None], 6, axis=1), np.full((count, 6), 0.6))


def _float32(texture: np.ndarray, repeats: np.ndarray, tint: np.ndarray, contrast: np.ndarray) -> Materials:
    return Materials(
        texture.astype(np.int32), repeats.astype(np.float32), tint.astype(np.float32), contrast.astype(np.float32)
    )
