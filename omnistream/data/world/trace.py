"""The first surface along every ray of a clip: all frames at once, exact z-depth."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from omnistream.data.world.primitives import NEAR, intersect
from omnistream.data.world.scene import Scene

SKY = -1
BACKGROUND = 0

_CORNERS = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij"), axis=-1).reshape(8, 3).astype(np.float32)
HORIZON = 1e5
"""Floor beyond this distance in metres counts as sky: the distance along a nearly level ray may overflow float32."""


@dataclass
class Rays:
    """Rays through every pixel, flattened to N = T * H * W; directions have z = 1 in their camera."""

    x: Float[np.ndarray, " W"]
    """Horizontal position of each column on the plane z = 1."""
    y: Float[np.ndarray, " H"]
    frames: int
    origin: Float[np.ndarray, "T 3"]
    camera_rotation: Float[np.ndarray, "T 3 3"]
    direction: Float[np.ndarray, "3 N"]
    """World directions."""


@dataclass
class Hits:
    """The first surface along each ray."""

    depth: Float[np.ndarray, " N"]
    """z-depth; infinite for the sky."""
    thing: Int[np.ndarray, " N"]
    """`SKY`, `BACKGROUND` or 1 + the index of an object."""
    face: Int[np.ndarray, " N"]
    """Which face of the room where the background is hit: -x, +x, -y, +y, -z, +z (3 is the floor)."""
    local: Float[np.ndarray, "3 N"]
    """Where objects are hit, in the frame of their unit primitive; undefined elsewhere."""


def camera_rays(scene: Scene, size: tuple[int, int], shift: tuple[float, float] = (0.0, 0.0)) -> Rays:
    """Rays through all pixels, `shift` (x, y) pixels off their centres."""
    focal_x, focal_y, centre_x, centre_y = scene.intrinsics[0][[0, 1, 0, 1], [0, 1, 2, 2]]
    x = ((np.arange(size[1]) + 0.5 + shift[0] - centre_x) / focal_x).astype(np.float32)
    y = ((np.arange(size[0]) + 0.5 + shift[1] - centre_y) / focal_y).astype(np.float32)
    rotation = scene.camera_to_world[:, :3, :3]
    across, down = rotation[:, :, 0].T[:, :, None, None] * x, rotation[:, :, 1].T[:, :, None, None] * y[:, None]
    direction = (across + rotation[:, :, 2].T[:, :, None, None]) + down  # [3, T, H, W]
    return Rays(x, y, len(rotation), scene.camera_to_world[:, :3, 3], rotation, direction.reshape(3, -1))


def trace(scene: Scene, rays: Rays) -> Hits:
    """The nearest hit of every ray."""
    hits = _trace_background(scene, rays)
    affine, origin = _to_unit_frames(scene, rays)
    boxes = _screen_boxes(scene, rays)
    for shape in np.unique(scene.shape):
        _trace_shape(int(shape), np.flatnonzero(scene.shape == shape), affine, origin, boxes, rays, hits)
    return hits


def nearest_object(
    scene: Scene, frame: Int[np.ndarray, " N"], start: Float[np.ndarray, "3 N"], direction: Float[np.ndarray, "3 N"]
) -> Float[np.ndarray, " N"]:
    """The smallest t at which free rays, each in its own frame, hit an object; infinity if they hit none.

    Tries every object for every ray; for rays that are not those of a camera.
    """
    nearest = np.full(frame.shape, np.inf, dtype=np.float32)
    for k in range(len(scene.shape)):
        to_unit = (np.swapaxes(scene.rotation[:, k], -1, -2) / scene.half[k][:, None])[frame]
        unit_start = np.einsum("nij,jn->in", to_unit, start - scene.position[:, k].T[:, frame])
        t = intersect(int(scene.shape[k]), unit_start, np.einsum("nij,jn->in", to_unit, direction), near=0.0)
        np.minimum(nearest, np.where(scene.present[frame, k], t, np.inf), out=nearest)
    return nearest


def _trace_background(scene: Scene, rays: Rays) -> Hits:
    """From inside a room every ray leaves through one face; open scenes have only the floor."""
    frames, count = rays.frames, rays.direction.shape[1]
    origin = np.ascontiguousarray(rays.origin.T)[:, :, None]  # [3, T, 1]
    direction = rays.direction.reshape(3, frames, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        if not scene.is_room:
            t = -origin[1] / direction[1]
            t = np.where((t > NEAR) & (t < HORIZON), t, np.float32(np.inf)).reshape(-1)
            thing = np.where(np.isfinite(t), BACKGROUND, SKY).astype(np.int16)
            return Hits(t, thing, np.full(count, 3, dtype=np.int8), np.empty((3, count), dtype=np.float32))
        positive = direction > 0
        bound = np.where(positive, scene.high[:, None, None] - origin, scene.low[:, None, None] - origin)
        # The two have the same sign; a ray that runs along a wall would leave through it at minus infinity.
        leave = np.abs(bound / direction).reshape(3, -1)
    t = np.minimum(np.minimum(leave[0], leave[1]), leave[2])
    axis = np.where(t == leave[0], 0, np.where(t == leave[1], 1, 2)).astype(np.int8)
    positive = positive.reshape(3, -1)
    side = np.where(axis == 0, positive[0], np.where(axis == 1, positive[1], positive[2]))
    return Hits(t, np.zeros(count, dtype=np.int16), 2 * axis + side, np.empty((3, count), dtype=np.float32))


def _to_unit_frames(scene: Scene, rays: Rays) -> tuple[np.ndarray, np.ndarray]:
    """For each frame and object: camera directions to unit-frame directions [T, K, 3, 3], and the origin [T, K, 3]."""
    world_to_unit = np.swapaxes(scene.rotation, -1, -2) / scene.half[None, :, :, None]
    origin = np.einsum("tkij,tkj->tki", world_to_unit, rays.origin[:, None] - scene.position)
    return world_to_unit @ rays.camera_rotation[:, None], origin.astype(np.float32)


def _screen_boxes(scene: Scene, rays: Rays) -> Int[np.ndarray, "T K 4"]:
    """First and past-the-last column and row that can see each object: the projected corners of its bounding box.

    The whole frame where a corner is behind the camera but not all are; empty where all are, or the object is absent.
    """
    corners = np.einsum("tkij,ckj->tkci", scene.rotation, _CORNERS[:, None] * scene.half) + scene.position[:, :, None]
    local = np.einsum("tji,tkcj->tkci", rays.camera_rotation, corners - rays.origin[:, None, None])
    z = local[..., 2]
    behind = z < NEAR
    z = np.where(behind, 1, z)
    limits = []
    for axis, grid in ((0, rays.x), (1, rays.y)):
        at = local[..., axis] / z
        first = np.searchsorted(grid, at.min(-1) - 1e-4)
        last = np.searchsorted(grid, at.max(-1) + 1e-4)
        whole = behind.any(-1)
        limits += [np.where(whole, 0, first), np.where(whole, len(grid), last)]
    boxes = np.stack(limits, axis=-1)
    boxes[behind.all(-1) | ~scene.present] = 0
    return boxes


def _trace_shape(
    shape: int,
    objects: np.ndarray,
    affine: np.ndarray,
    origin: np.ndarray,
    boxes: np.ndarray,
    rays: Rays,
    hits: Hits,
) -> None:
    """Intersect all objects of one shape in all frames in one go, then keep the nearer hits."""
    frames = rays.frames
    left, right, top, bottom = np.moveaxis(boxes[:, objects].swapaxes(0, 1).reshape(-1, 4), 1, 0)
    frame, thing = np.tile(np.arange(frames), len(objects)), np.repeat(objects, frames)
    columns = right - left
    counts = columns * (bottom - top)
    total = int(counts.sum())
    if total == 0:
        return
    starts = np.cumsum(counts) - counts
    window = np.repeat(np.arange(len(counts)), counts)  # which (object, frame) each candidate ray belongs to
    row, column = np.divmod((np.arange(total) - starts[window]).astype(np.int32), columns[window].astype(np.int32))
    column += left[window].astype(np.int32)
    row += top[window].astype(np.int32)
    x, y = rays.x[column], rays.y[row]
    matrix = affine[frame, thing].reshape(-1, 9).T[:, window]  # [9, total]
    start = origin[frame, thing].T[:, window]
    direction = np.stack([matrix[3 * i] * x + matrix[3 * i + 1] * y + matrix[3 * i + 2] for i in range(3)])
    t = intersect(shape, start, direction)
    ray = (frame[window] * len(rays.y) + row) * len(rays.x) + column
    ends = [*starts.reshape(len(objects), frames)[:, 0].tolist(), total]
    for index, (first, last) in enumerate(pairwise(ends)):
        mine, mine_t = ray[first:last], t[first:last]
        nearer = np.flatnonzero(mine_t < hits.depth[mine])
        won = mine[nearer]
        hits.depth[won] = mine_t[nearer]
        hits.thing[won] = objects[index] + 1
        picked = first + nearer
        hits.local[:, won] = start[:, picked] + t[picked] * direction[:, picked]
