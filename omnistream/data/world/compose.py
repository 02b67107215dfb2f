"""Draw a whole scene: room or open land, camera, objects that stand on the floor without touching, signs."""

import numpy as np
from jaxtyping import Float

from omnistream.data.world.config import WorldConfig
from omnistream.data.world.motion import Camera, clip_time, film, rotation
from omnistream.data.world.primitives import SHAPES
from omnistream.data.world.scene import (
    COLOURS,
    PHOTO_COLOUR,
    SIGN,
    Scene,
    background_materials,
    object_materials,
    random_lighting,
    sign_materials,
    stack_materials,
)
from omnistream.data.world.text import SIGN_ASPECT, random_word, word_texture
from omnistream.data.world.textures import mip_chain

_TRIES = 64
_CLEARANCE = 0.6
"""Least distance in metres between the camera and an object."""


def compose(rng: np.random.Generator, config: WorldConfig) -> Scene:
    """A random scene with its camera."""
    is_room, is_video = rng.random() < config.room_probability, rng.random() >= config.unordered_probability
    width, length, height = rng.uniform(4.5, 9), rng.uniform(5.5, 13), rng.uniform(2.4, 3.8)
    low, high = np.array([-width / 2, -height, -length / 2]), np.array([width / 2, 0, length / 2])
    camera = film(rng, config, (low, high) if is_room else None, is_video)
    count = int(rng.integers(config.num_objects[0], config.num_objects[1] + 1))
    words: list[str | None] = [None] * count
    if rng.random() < config.sign_probability:
        words.append(random_word(rng, config.difficulty))
    shape, half = _random_shapes(rng, config, words)
    position, turn, kept = _place(rng, config, camera, half, (low, high) if is_room else None, words, is_video)
    drawn = random_colours(rng, len(words), config)
    colour = [SIGN if words[k] is not None else drawn[k] for k in kept]
    words = [words[k] for k in kept]
    written = [word for word in words if word is not None]
    shown = [name for name in colour if name != SIGN]
    zero = np.zeros_like(turn)
    return Scene(
        is_room=is_room,
        low=low.astype(np.float32),
        high=high.astype(np.float32),
        shape=shape[kept],
        colour=colour,
        half=half[kept].astype(np.float32),
        position=position.astype(np.float32),
        rotation=rotation(turn, zero, zero).astype(np.float32),
        present=np.ones(turn.shape, dtype=bool),
        intrinsics=camera.intrinsics,
        camera_to_world=camera.camera_to_world,
        is_video=is_video,
        materials=stack_materials(
            background_materials(rng, is_room, config.difficulty),
            object_materials(rng, shown, config.difficulty),
            sign_materials(written),
        ),
        lighting=random_lighting(rng, is_room, low, high, config.difficulty),
        words=words,
        word_texels=[mip_chain(word_texture(rng, word, config.difficulty)) for word in written],
    )


def random_colours(rng: np.random.Generator, count: int, config: WorldConfig) -> list[str]:
    """Named colours, and now and then a photograph in their place."""
    plain = (1 - config.photo_probability) / len(COLOURS)
    chances = [plain] * len(COLOURS) + [config.photo_probability]
    return [str(name) for name in rng.choice([*COLOURS, PHOTO_COLOUR], count, p=chances)]


def _random_shapes(
    rng: np.random.Generator, config: WorldConfig, words: list[str | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Shape indices [K] and half extents [K, 3]; a sign is a thin box."""
    count = len(words)
    shape = rng.integers(len(SHAPES), size=count)
    radius = rng.uniform(*config.object_size, count)
    stretch = rng.uniform(0.8, 1.5, count)
    half = radius[:, None] * np.stack([np.ones(count), stretch, np.ones(count)], axis=1)
    half[shape == 0] = radius[shape == 0, None]
    half[:, 2] *= np.where(shape == 1, rng.uniform(0.7, 1.2, count), 1)
    for k, word in enumerate(words):
        if word is not None:
            wide = rng.uniform(0.55, 0.8)
            shape[k], half[k] = 1, (wide, wide / SIGN_ASPECT, 0.05)
    return shape, half


def _place(
    rng: np.random.Generator,
    config: WorldConfig,
    camera: Camera,
    half: Float[np.ndarray, "K 3"],
    room: tuple[np.ndarray, np.ndarray] | None,
    words: list[str | None],
    is_video: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paths of the objects that found a free place: centres [T, K', 3], turns [T, K'], their indices [K'].

    Each object draws many paths at once and takes the first that keeps clear of walls, camera and earlier objects.
    """
    s = clip_time(config.num_frames)
    eyes = camera.camera_to_world[:, :3, 3]
    centres, turns, kept = [], [], []
    radii: list[float] = []
    for k in range(len(half)):
        radius = float(np.hypot(half[k, 0], half[k, 2]))
        is_sign = words[k] is not None
        moves = is_video and not is_sign and rng.random() < config.moving_probability
        paths = _candidates(rng, config, camera, s, moves, is_sign, radius)  # [C, T, 2]
        free = np.linalg.norm(paths - eyes[None, :, [0, 2]], axis=-1).min(1) > radius + _CLEARANCE
        if room is not None:
            inside = (paths > room[0][[0, 2]] + radius) & (paths < room[1][[0, 2]] - radius)
            free &= inside.all((1, 2))
        if kept:
            others = np.stack(centres, axis=1)[None][..., [0, 2]]  # [1, T, k, 2]
            gap = np.linalg.norm(paths[:, :, None] - others, axis=-1) - np.array(radii)
            free &= gap.min((1, 2)) > radius
        if not free.any():
            continue
        path = paths[free.argmax()]
        hop = rng.uniform(0.2, 0.6) * np.abs(np.sin(2 * np.pi * s)) * (moves and rng.random() < 0.3)
        turn = rng.uniform(-np.pi, np.pi) + moves * np.deg2rad(config.object_turn) * rng.uniform(-1, 1) * s
        if is_sign:
            facing = path[0] - camera.centre[[0, 2]]
            turn = np.full_like(s, np.arctan2(facing[0], facing[1]) + rng.uniform(-0.5, 0.5))
        lift = half[k, 1] + hop
        if is_sign:
            lift = lift + rng.uniform(0.1, 0.6)
        centres.append(np.stack([path[:, 0], -lift * np.ones_like(s), path[:, 1]], axis=1))
        turns.append(turn)
        radii.append(radius)
        kept.append(k)
    frames = len(s)
    return (
        np.stack(centres, axis=1) if kept else np.zeros((frames, 0, 3)),
        np.stack(turns, axis=1) if kept else np.zeros((frames, 0)),
        np.array(kept, dtype=np.int64),
    )


def _candidates(
    rng: np.random.Generator,
    config: WorldConfig,
    camera: Camera,
    s: np.ndarray,
    moves: bool,
    is_sign: bool,
    radius: float,
) -> Float[np.ndarray, "C T 2"]:
    """Paths on the floor, most of them in view; near places are more likely than far ones."""
    distance = 1.3 + radius + (2.2 if is_sign else 7) * rng.random(_TRIES) ** 1.6
    bearing = camera.yaw + camera.half_fov * rng.uniform(-0.9, 0.9, _TRIES) * (0.6 if is_sign else 1)
    start = camera.centre[[0, 2]] + distance[:, None] * np.stack([np.sin(bearing), np.cos(bearing)], axis=1)
    if not moves:
        return np.repeat(start[:, None], len(s), axis=1)
    heading, way = rng.uniform(-np.pi, np.pi, _TRIES), config.object_motion * rng.uniform(0.3, 1, _TRIES)
    step = way[:, None] * np.stack([np.sin(heading), np.cos(heading)], axis=1)
    return start[:, None] + s[None, :, None] * step[:, None]
