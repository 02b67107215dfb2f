"""Compose a random scene: room or open ground, camera, standing objects that do not touch, signs, buildings."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from omnistream.data.world.config import WorldConfig
from omnistream.data.world.motion import Camera, clip_time, film, rotation
from omnistream.data.world.primitives import SHAPES
from omnistream.data.world.scene import (
    BUILDING,
    COLOURS,
    PHOTO_COLOUR,
    SIGN,
    Scene,
    background_materials,
    building_materials,
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

Room = tuple[np.ndarray, np.ndarray]
"""Lower and upper corner of a room."""


@dataclass
class _Cast:
    """Objects that have been placed, one entry each."""

    shape: list[int] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    half: list[np.ndarray] = field(default_factory=list)
    centre: list[np.ndarray] = field(default_factory=list)
    """Paths, [T, 3]."""
    turn: list[np.ndarray] = field(default_factory=list)
    """Rotations about the vertical, [T]."""

    def add(self, kind: str, half: np.ndarray, centre: np.ndarray, turn: np.ndarray) -> None:
        """Add an object."""
        self.shape.append(SHAPES.index(kind if kind in SHAPES else "box"))
        self.kind.append(kind)
        self.half.append(half)
        self.centre.append(centre)
        self.turn.append(turn)


def compose(rng: np.random.Generator, config: WorldConfig) -> Scene:
    """A random scene with its camera."""
    is_room, is_video = rng.random() < config.room_probability, rng.random() >= config.unordered_probability
    width, length, height = rng.uniform(4.5, 9), rng.uniform(5.5, 13), rng.uniform(2.4, 3.8)
    low, high = np.array([-width / 2, -height, -length / 2]), np.array([width / 2, 0, length / 2])
    room = (low, high) if is_room else None
    camera = film(rng, config, room, is_video)
    cast = _Cast()
    if rng.random() < config.sign_probability:
        _add_sign(rng, config, camera, room, cast)
    for _ in range(rng.integers(config.num_objects[0], config.num_objects[1] + 1)):
        _add_object(rng, config, camera, room, cast, is_video)
    if not is_room:
        _add_buildings(rng, config, camera, cast)
    order = sorted(range(len(cast.kind)), key=lambda k: (cast.kind[k] == BUILDING) * 2 + (cast.kind[k] == SIGN))
    kinds = [cast.kind[k] for k in order]
    plain = sum(kind in SHAPES for kind in kinds)
    colour = random_colours(rng, plain, config)
    words = {k: random_word(rng, config.difficulty) for k, kind in enumerate(kinds) if kind == SIGN}
    frames, count = config.num_frames, len(kinds)
    turn = np.array([cast.turn[k] for k in order]).reshape(count, frames).T
    position = np.array([cast.centre[k] for k in order]).reshape(count, frames, 3).swapaxes(0, 1)
    return Scene(
        is_room=is_room,
        low=low.astype(np.float32),
        high=high.astype(np.float32),
        shape=np.array([cast.shape[k] for k in order], dtype=np.int64),
        kinds=kinds,
        colour=colour + [""] * (count - plain),
        half=np.array([cast.half[k] for k in order], dtype=np.float32).reshape(count, 3),
        position=position.astype(np.float32),
        rotation=rotation(turn, np.zeros_like(turn), np.zeros_like(turn)).astype(np.float32),
        present=np.ones((frames, count), dtype=bool),
        intrinsics=camera.intrinsics,
        camera_to_world=camera.camera_to_world,
        is_video=is_video,
        materials=stack_materials(
            background_materials(rng, is_room, config.difficulty),
            object_materials(rng, colour, config.difficulty),
            sign_materials(list(words.values())),
            building_materials(rng, count - plain - len(words)),
        ),
        lighting=random_lighting(rng, is_room, low, high, config.difficulty),
        words=words,
        word_texels=[mip_chain(word_texture(rng, word, config.difficulty)) for word in words.values()],
    )


def random_colours(rng: np.random.Generator, count: int, config: WorldConfig) -> list[str]:
    """Named colours, sometimes replaced by a photograph."""
    plain = (1 - config.photo_probability) / len(COLOURS)
    chances = [plain] * len(COLOURS) + [config.photo_probability]
    return [str(name) for name in rng.choice([*COLOURS, PHOTO_COLOUR], count, p=chances)]


def _add_object(
    rng: np.random.Generator, config: WorldConfig, camera: Camera, room: Room | None, cast: _Cast, is_video: bool
) -> None:
    """A random object that stands on the floor; some move, turn and hop. Omitted if there is no free place."""
    kind, radius = SHAPES[rng.integers(len(SHAPES))], rng.uniform(*config.object_size)
    half = np.full(3, radius)
    if kind != "ball":
        half[1] *= rng.uniform(0.8, 1.5)
    if kind == "box":
        half[2] *= rng.uniform(0.7, 1.2)
    moves = is_video and rng.random() < config.moving_probability
    s = clip_time(config)
    path = _free_path(rng, config, camera, room, cast, half, moves, reach=7.0, spread=0.9)
    hop = rng.uniform(0.2, 0.6) * np.abs(np.sin(2 * np.pi * s)) * (moves and rng.random() < 0.3)
    turn = rng.uniform(-np.pi, np.pi) + moves * np.deg2rad(config.object_turn) * rng.uniform(-1, 1) * s
    if path is not None:
        cast.add(kind, half, np.stack([path[:, 0], -half[1] - hop, path[:, 1]], axis=1), turn)


def _add_sign(rng: np.random.Generator, config: WorldConfig, camera: Camera, room: Room | None, cast: _Cast) -> None:
    """A board near the camera that roughly faces it."""
    wide = rng.uniform(0.55, 0.8)
    half = np.array([wide, wide / SIGN_ASPECT, 0.05])
    path = _free_path(rng, config, camera, room, cast, half, moves=False, reach=2.0, spread=0.55)
    lift = half[1] + rng.uniform(0.1, 0.8)
    aside = rng.uniform(-0.5, 0.5)
    if path is not None:
        facing = path[0] - camera.centre[[0, 2]]
        turn = np.full(len(path), np.arctan2(facing[0], facing[1]) + aside)
        cast.add(SIGN, half, np.stack([path[:, 0], np.full(len(path), -lift), path[:, 1]], axis=1), turn)


def _add_buildings(rng: np.random.Generator, config: WorldConfig, camera: Camera, cast: _Cast) -> None:
    """Blocks beyond all objects."""
    for _ in range(rng.integers(config.num_buildings[0], config.num_buildings[1] + 1)):
        half = rng.uniform((0.8, 1.0, 0.8), (2.8, 3.5, 2.8))
        distance = 10.5 + np.hypot(half[0], half[2]) + rng.uniform(0, 9)
        bearing = camera.yaw + rng.uniform(-1.3, 1.3) * camera.half_fov
        centre = camera.centre + distance * np.array([np.sin(bearing), 0, np.cos(bearing)])
        centre[1] = -half[1]
        turn = np.full(config.num_frames, rng.uniform(-np.pi, np.pi))
        cast.add(BUILDING, half, np.repeat(centre[None], config.num_frames, axis=0), turn)


def _free_path(
    rng: np.random.Generator,
    config: WorldConfig,
    camera: Camera,
    room: Room | None,
    cast: _Cast,
    half: Float[np.ndarray, " 3"],
    moves: bool,
    reach: float,
    spread: float,
) -> Float[np.ndarray, "T 2"] | None:
    """A path (x, z) on the floor that keeps clear of walls, camera and earlier objects; None if all attempts fail.

    Draws many paths at once, mostly in view and near, and takes the first that is free.

    Args:
        rng: Random numbers.
        config: Statistics of the world.
        camera: The camera that should see it.
        room: The room to stay in.
        cast: Objects to avoid.
        half: Half extents.
        moves: Whether the object moves.
        reach: How far beyond the nearest place, metres.
        spread: How far aside, as a share of the field of view.
    """
    radius, s = float(np.hypot(half[0], half[2])), clip_time(config)
    distance = 1.3 + radius + reach * rng.random(_TRIES) ** 1.6
    bearing = camera.yaw + camera.half_fov * spread * rng.uniform(-1, 1, _TRIES)
    heading, way = rng.uniform(-np.pi, np.pi, _TRIES), config.object_motion * rng.uniform(0.3, 1, _TRIES) * moves
    x = camera.centre[0] + distance * np.sin(bearing) + s[:, None] * (way * np.sin(heading))  # [T, C]
    z = camera.centre[2] + distance * np.cos(bearing) + s[:, None] * (way * np.cos(heading))
    eyes = camera.camera_to_world[:, :3, 3]
    free = ((x - eyes[:, :1]) ** 2 + (z - eyes[:, 2:]) ** 2).min(0) > (radius + _CLEARANCE) ** 2
    if room is not None:
        (left, _, back), (right, _, front) = room[0] + radius, room[1] - radius
        free &= ((x > left) & (x < right) & (z > back) & (z < front)).all(0)
    for other_half, other in zip(cast.half, cast.centre, strict=True):
        gap = radius + float(np.hypot(other_half[0], other_half[2]))
        free &= ((x - other[:, :1]) ** 2 + (z - other[:, 2:]) ** 2).min(0) > gap**2
    if not free.any():
        return None
    first = free.argmax()
    return np.stack([x[:, first], z[:, first]], axis=1)
