"""How cameras and objects move: smooth paths over the clip, s from -0.5 to 0.5."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from omnistream.data.world.config import WorldConfig


@dataclass
class Camera:
    """A camera path, and the direction in which the scene is built."""

    camera_to_world: Float[np.ndarray, "T 4 4"]
    intrinsics: Float[np.ndarray, "T 3 3"]
    centre: Float[np.ndarray, " 3"]
    """Mean position of the camera."""
    yaw: float
    """Mean viewing direction in radians; 0 is +z, positive turns to +x."""
    half_fov: float
    """Half the horizontal field of view in radians."""


_NEVER_THE_SAME = 2 - (1 + 5**0.5) / 2
"""Taken from the frames of a pass, so that no later pass has its frames at the same places."""


def clip_time(config: WorldConfig) -> Float[np.ndarray, " T"]:
    """The place of every frame on its path, from -0.5 to 0.5; a single frame is in the middle."""
    if config.num_frames == 1:
        return np.zeros(1)
    if config.frames_per_pass is None:
        return np.linspace(-0.5, 0.5, config.num_frames)
    return -0.5 * np.cos(np.pi * np.arange(config.num_frames) / (config.frames_per_pass - _NEVER_THE_SAME))


def rotation(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray) -> Float[np.ndarray, "*N 3 3"]:
    """Camera-to-world rotations: turn about the vertical, look down by `pitch`, then roll about the optical axis.

    Angles in radians, arrays of one shape. Yaw turns +z towards +x, pitch turns +z towards +y (down).
    """
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = np.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).reshape(*yaw.shape, 3, 3)
    look = np.stack([one, zero, zero, zero, cp, sp, zero, -sp, cp], -1).reshape(*yaw.shape, 3, 3)
    spin = np.stack([cr, -sr, zero, sr, cr, zero, zero, zero, one], -1).reshape(*yaw.shape, 3, 3)
    return turn @ look @ spin


def intrinsics_of(fov: float, size: tuple[int, int], num_frames: int) -> Float[np.ndarray, "T 3 3"]:
    """Square pixels, principal point at the centre, `fov` degrees along the longer side."""
    height, width = size
    focal = 0.5 * max(size) / np.tan(np.deg2rad(fov) / 2)
    matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=np.float32)
    return np.repeat(matrix[None], num_frames, axis=0)


def film(
    rng: np.random.Generator, config: WorldConfig, room: tuple[np.ndarray, np.ndarray] | None, is_video: bool
) -> Camera:
    """Draw a camera: a smooth path with changing direction, or scattered views of one place."""
    yaw = rng.uniform(-np.pi, np.pi)
    forward = np.array([np.sin(yaw), 0, np.cos(yaw)])
    centre = np.array([0, -rng.uniform(*config.camera_height), 0])
    if room is not None:
        spread = (room[1] - room[0])[[0, 2]].min() / 2
        centre = centre - forward * spread * rng.uniform(0.35, 0.75)
    position, look = (_path if is_video else _scatter)(rng, config, centre, yaw)
    if room is not None:
        position = np.clip(position, room[0] + 0.25, room[1] - 0.25)
    intrinsics = intrinsics_of(rng.uniform(*config.fov), config.size, config.num_frames)
    pose = np.tile(np.eye(4), (config.num_frames, 1, 1))
    pose[:, :3, :3], pose[:, :3, 3] = rotation(*look), position
    half_fov = float(np.arctan(config.size[1] / 2 / intrinsics[0, 0, 0]))
    return Camera(pose.astype(np.float32), intrinsics, position.mean(0), yaw, half_fov)


Angles = tuple[np.ndarray, np.ndarray, np.ndarray]


def _path(rng: np.random.Generator, config: WorldConfig, centre: np.ndarray, yaw: float) -> tuple[np.ndarray, Angles]:
    s = clip_time(config)
    heading, way = rng.uniform(-np.pi, np.pi), config.camera_motion * rng.uniform(0.25, 1)
    along = np.array([np.sin(heading), rng.uniform(-0.2, 0.2), np.cos(heading)])
    sway = np.array([np.cos(heading), 0, -np.sin(heading)]) * way * rng.uniform(-0.25, 0.25)
    position = centre + way * s[:, None] * along + np.cos(2 * np.pi * s)[:, None] * sway
    turn = np.deg2rad(config.camera_turn) * rng.uniform(-1, 1)
    if rng.random() < 0.5:  # keep looking at a place in front, as when walking around it
        distance = rng.uniform(2.5, 5)
        focus = centre + distance * np.array([np.sin(yaw), 0, np.cos(yaw)])
        towards = focus - position
        turn = (np.arctan2(towards[:, 0], towards[:, 2]) - yaw + np.pi) % (2 * np.pi) - np.pi
    else:
        turn = turn * s
    pitch = np.deg2rad(rng.uniform(*config.camera_pitch) + rng.uniform(-4, 4) * s)
    roll = np.deg2rad(rng.uniform(-2, 2) + rng.uniform(-2, 2) * np.sin(2 * np.pi * s))
    return position, (yaw + turn, pitch, roll)


def _scatter(
    rng: np.random.Generator, config: WorldConfig, centre: np.ndarray, yaw: float
) -> tuple[np.ndarray, Angles]:
    count = config.num_frames
    radius, angle = config.camera_motion * np.sqrt(rng.random(count)), rng.uniform(-np.pi, np.pi, count)
    height = -rng.uniform(*config.camera_height, count)
    position = np.stack([centre[0] + radius * np.sin(angle), height, centre[2] + radius * np.cos(angle)], axis=1)
    focus = centre + rng.uniform(3, 5) * np.array([np.sin(yaw), 0, np.cos(yaw)])
    towards = focus - position
    turn = np.arctan2(towards[:, 0], towards[:, 2]) + np.deg2rad(rng.uniform(-10, 10, count))
    pitch = np.deg2rad(rng.uniform(*config.camera_pitch, count))
    return position, (turn, pitch, np.deg2rad(rng.uniform(-3, 3, count)))
