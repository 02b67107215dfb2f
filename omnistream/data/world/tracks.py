"""Exact tracks of surface points through a clip."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from omnistream.data.world.clip import WorldClip
from omnistream.data.world.primitives import NEAR
from omnistream.data.world.scene import Scene
from omnistream.data.world.trace import nearest_object

_TOLERANCE = 2e-3
"""A point is hidden if something is nearer by more than this share of its depth."""


@dataclass
class Tracks:
    """Tracks of surface points.

    Attributes:
        position: Pixels x, y (pixel i has its centre at i + 0.5), also where hidden; NaN behind the camera.
        depth: z-depth in metres.
        visible: In the frame and not hidden.
        thing: The object each point is on, 0 for the background.
    """

    position: Float[np.ndarray, "T N 2"]
    depth: Float[np.ndarray, "T N"]
    visible: Bool[np.ndarray, "T N"]
    thing: Int[np.ndarray, " N"]


def track_points(rng: np.random.Generator, clip: WorldClip, num_points: int) -> Tracks:
    """Track points that are visible at random pixels of random frames.

    Args:
        rng: Chooses the points.
        clip: A rendered clip.
        num_points: How many; their pixels are drawn with replacement from all that show a surface.

    Raises:
        ValueError: If the clip shows no surface with valid depth.
    """
    seen = np.flatnonzero(clip.valid)
    if len(seen) == 0:
        raise ValueError("track_points: the clip shows no surface with valid depth")
    frame, row, column = np.unravel_index(rng.choice(seen, num_points), clip.valid.shape)
    pixels = np.stack([column + 0.5, row + 0.5, np.ones(num_points)], axis=1)
    rays = np.einsum("nij,nj->ni", np.linalg.inv(clip.intrinsics.astype(np.float64))[frame], pixels)
    pose = clip.camera_to_world.astype(np.float64)
    world = np.einsum("nij,nj->ni", pose[frame, :3, :3], rays * clip.depth[frame, row, column, None])
    thing = clip.instances[frame, row, column]
    paths = _carry(clip.scene, world + pose[frame, :3, 3], frame, thing)
    return _observe(clip, paths, thing)


def _carry(scene: Scene, world: np.ndarray, frame: np.ndarray, thing: np.ndarray) -> Float[np.ndarray, "T N 3"]:
    """Positions of points in all frames, as they move with their objects."""
    paths = np.repeat(world[None], len(scene.camera_to_world), axis=0)
    on = np.flatnonzero(thing > 0)
    k = thing[on] - 1
    rotation = scene.rotation.astype(np.float64)
    local = np.einsum("nji,nj->ni", rotation[frame[on], k], world[on] - scene.position[frame[on], k])
    paths[:, on] = np.einsum("tnij,nj->tni", rotation[:, k], local) + scene.position[:, k]
    return paths


def _observe(clip: WorldClip, paths: np.ndarray, thing: np.ndarray) -> Tracks:
    frames, count = paths.shape[:2]
    pose = clip.camera_to_world.astype(np.float64)
    local = np.einsum("tji,tnj->tni", pose[:, :3, :3], paths - pose[:, None, :3, 3])
    depth = local[..., 2]
    ahead = depth > NEAR
    safe = np.where(ahead, depth, 1)[..., None]
    position = np.einsum("tij,tnj->tni", clip.intrinsics, local / safe)[..., :2]
    height, width = clip.valid.shape[1:]
    visible = ahead & (position >= 0).all(-1) & (position < (width, height)).all(-1)
    # Rays that reach the point at t = 1; only objects hide, rooms and the ground are convex from inside.
    start = np.repeat(pose[:, None, :3, 3], count, axis=1)
    flat = (array.reshape(-1, 3).T.astype(np.float32) for array in (start, paths - start))
    t = nearest_object(clip.scene, np.repeat(np.arange(frames), count), *flat).reshape(frames, count)
    visible &= t >= 1 - _TOLERANCE
    on = np.flatnonzero(thing > 0)
    visible[:, on] &= clip.scene.present[:, thing[on] - 1]
    position = np.where(ahead[..., None], position, np.nan)
    return Tracks(position.astype(np.float32), depth.astype(np.float32), visible, thing)
