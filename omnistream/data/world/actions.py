"""Clips of one action that no single frame reveals.

Two actors, a ball and a box, float before the camera. Each has a state: shifts along the camera's axes, a tilt, and
whether it is present. During an action one component sweeps over an evenly spaced grid of values; in all other clips
that component stays at a value drawn from the same grid. A frame taken at random therefore shows every position and
tilt with the same probability for every class. Every class is the exact time reversal of its opposite, presence
included, so within a pair the frames are the same and only their order differs. (A missing actor hints at the pairs
with presence, never at the class within the pair: the best guess from one frame of unknown time is right in 1 of 8
clips of 8 frames, chance being 1 in 12.)
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from omnistream.data.world.compose import random_colours
from omnistream.data.world.config import WorldConfig
from omnistream.data.world.motion import film, rotation
from omnistream.data.world.primitives import SHAPES
from omnistream.data.world.scene import (
    Scene,
    background_materials,
    object_materials,
    random_lighting,
    stack_materials,
)
from omnistream.data.world.textures import texture_ids

ACTIONS = (
    "move_left",
    "move_right",
    "move_up",
    "move_down",
    "approach",
    "recede",
    "turn_clockwise",
    "turn_counterclockwise",
    "appear",
    "vanish",
    "ball_then_box",
    "box_then_ball",
)
"""Names of the labels; 2 i and 2 i + 1 are opposites. The last two: which actor blinks first."""

MIN_FRAMES = 4
_RANGE = np.array([0.5, 0.5, 0.9, np.deg2rad(75)])
"""Half the range of each component: right, down, forward (metres), clockwise (radians)."""
_USUAL_MOTION = 1.6
"""`WorldConfig.object_motion` that these ranges are for; they are proportional to it."""
_SIGN = (-1, 1, -1, 1, -1, 1, 1, -1)
_ACTOR_SHAPES = (SHAPES.index("ball"), SHAPES.index("box"))
_DISTANCE, _BESIDE, _HEIGHT = 3.4, 1.05, 1.35


@dataclass
class ActorStates:
    """What both actors (ball, box) do."""

    offset: Float[np.ndarray, "T 2 4"]
    """Right, down, forward (metres) and clockwise (radians), relative to the actor's home."""
    present: Bool[np.ndarray, "T 2"]


def act(rng: np.random.Generator, label: int, num_frames: int) -> ActorStates:
    """The states of both actors during an action.

    Raises:
        ValueError: If the clip is too short to show an order, or the label is unknown.
    """
    if num_frames < MIN_FRAMES or not 0 <= label < len(ACTIONS):
        raise ValueError(
            f"actions need at least {MIN_FRAMES} frames and a label below {len(ACTIONS)}; got {num_frames}, {label}"
        )
    grid = np.linspace(-1, 1, num_frames)
    offset = np.repeat(rng.choice(grid, (1, 2, 4)), num_frames, axis=0)
    present = np.ones((num_frames, 2), dtype=bool)
    actor = int(rng.integers(2))
    component, sign = divmod(label, 2)[0], _SIGN[label] if label < len(_SIGN) else 0
    if component < 4:
        offset[:, actor, component] = sign * grid
    elif component == 4:
        there = np.arange(num_frames) >= rng.integers(1, num_frames)
        present[:, actor] = there if label % 2 == 0 else there[::-1]
    else:
        first, second = _blinks(rng, num_frames)
        ball_first = label % 2 == 0
        present[first, 0 if ball_first else 1] = False
        present[second, 1 if ball_first else 0] = False
    return ActorStates(offset * _RANGE, present)


def _blinks(rng: np.random.Generator, num_frames: int) -> tuple[slice, slice]:
    """Two disjoint intervals of equal length, uniform over all ways to place them."""
    length = max(1, num_frames // 5)
    free = num_frames - 2 * length
    cuts = np.sort(rng.choice(free + 2, 2, replace=False))
    first, second = int(cuts[0]), int(cuts[1]) - 1 + length
    return slice(first, first + length), slice(second, second + length)


def compose_action(rng: np.random.Generator, config: WorldConfig, label: int) -> Scene:
    """A scene in which the action of a label happens, in front of static cylinders and cones."""
    frames = config.num_frames
    is_room = rng.random() < config.room_probability
    width, length, height = rng.uniform(9, 13), rng.uniform(9, 13), rng.uniform(2.9, 3.6)
    low, high = np.array([-width / 2, -height, -length / 2]), np.array([width / 2, 0, length / 2])
    camera = film(rng, config, (low, high) if is_room else None, is_video=True)
    states = act(rng, label, frames)
    right = np.array([np.cos(camera.yaw), 0, -np.sin(camera.yaw)])
    forward = np.array([np.sin(camera.yaw), 0, np.cos(camera.yaw)])
    ground = camera.centre * np.array([1, 0, 1])
    side = _BESIDE * rng.choice([-1, 1]) * np.array([1, -1])
    homes = ground + _DISTANCE * forward - np.array([0, _HEIGHT, 0]) + side[:, None] * right
    axes = np.stack([right, np.array([0, 1, 0]), forward])
    actors = homes + states.offset[..., :3] * (config.object_motion / _USUAL_MOTION) @ axes
    audience = int(rng.integers(1, 4))
    shape, half = _shapes(rng, audience)
    spread = rng.permutation(np.linspace(-1, 1, 4))[:audience] * 2.2 + rng.uniform(-0.2, 0.2, audience)
    rows = ground + rng.uniform(5.2, 5.7, audience)[:, None] * forward + spread[:, None] * right
    rows[:, 1] = -half[2:, 1]
    position = np.concatenate([actors, np.repeat(rows[None], frames, axis=0)], axis=1)
    turn = np.repeat(np.append([camera.yaw] * 2, rng.uniform(-np.pi, np.pi, audience))[None], frames, axis=0)
    roll = np.concatenate([states.offset[..., 3], np.zeros((frames, audience))], axis=1)
    roll[:, :2] += rng.uniform(-np.pi, np.pi, 2)
    colour = random_colours(rng, 2 + audience, config)
    looks = object_materials(rng, colour, config.difficulty)
    looks.texture[:2] = rng.choice(texture_ids("checker", "stripes", "grey:page", "grey:coffee"), (2, 1))
    looks.contrast[:2] = 0.75
    return Scene(
        is_room=is_room,
        low=low.astype(np.float32),
        high=high.astype(np.float32),
        shape=shape,
        kinds=[SHAPES[k] for k in shape],
        colour=colour,
        half=half.astype(np.float32),
        position=position.astype(np.float32),
        rotation=rotation(turn, np.zeros_like(turn), roll).astype(np.float32),
        present=np.concatenate([states.present, np.ones((frames, audience), dtype=bool)], axis=1),
        intrinsics=camera.intrinsics,
        camera_to_world=camera.camera_to_world,
        is_video=True,
        materials=stack_materials(background_materials(rng, is_room, config.difficulty), looks),
        lighting=random_lighting(rng, is_room, low, high, config.difficulty),
    )


def _shapes(rng: np.random.Generator, audience: int) -> tuple[np.ndarray, np.ndarray]:
    shape = np.append(_ACTOR_SHAPES, rng.choice([SHAPES.index("cylinder"), SHAPES.index("cone")], audience))
    half = np.concatenate([[[0.48] * 3, [0.54, 0.3, 0.3]], rng.uniform(0.25, 0.45, (audience, 1)) * np.ones(3)])
    half[2:, 1] *= rng.uniform(1, 1.5, audience)
    return shape, half
