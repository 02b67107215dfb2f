"""From surfaces to colours: textures, Lambert light, haze, sky, shadows."""

import numpy as np
from jaxtyping import Float, UInt8

from omnistream.data.world.scene import Scene
from omnistream.data.world.textures import atlas, sample
from omnistream.data.world.trace import BACKGROUND, SKY, Hits, Rays, nearest_object

_BLOCK = 1 << 15
"""Rays shaded at a time: temporary arrays then stay in the CPU cache, which doubles the speed."""


def shade(scene: Scene, rays: Rays, hits: Hits, max_depth: float, shadows: bool = False) -> Float[np.ndarray, "N 3"]:
    """The colour of every ray, 0 to 255.

    Args:
        scene: Materials and light.
        rays: All rays of a clip.
        hits: The first surface along each.
        max_depth: Distance in metres at which the haze of open scenes hides everything.
        shadows: Whether objects cast shadows.
    """
    count = hits.depth.shape[0]
    texels = np.concatenate([atlas(), *scene.word_texels]) if scene.word_texels else atlas()
    colour = np.empty((count, 3), dtype=np.float32)
    for start in range(0, count, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, count))
        is_sky = hits.thing[block] == SKY
        seen = block[~is_sky]
        colour[seen] = _surface_colour(scene, rays, hits, texels, seen, shadows)
        if not scene.is_room:
            haze = np.minimum((hits.depth[seen] / max_depth) ** 2, 1)[:, None]
            colour[seen] += haze * (scene.lighting.horizon - colour[seen])
            colour[block[is_sky]] = _sky(scene, rays.direction[:, block[is_sky]])
    return colour


def _surface_colour(
    scene: Scene, rays: Rays, hits: Hits, texels: np.ndarray, seen: np.ndarray, shadows: bool
) -> np.ndarray:
    """Colours of the rays numbered `seen`, all of which hit a surface, without haze."""
    frame = seen // (hits.depth.shape[0] // rays.frames)
    depth, thing, face = hits.depth[seen], hits.thing[seen].astype(np.int32), hits.face[seen].astype(np.int32)
    view = rays.direction[:, seen]
    point = rays.origin.T[:, frame] + depth * view
    u, v, normal, scale = _background_surface(scene, point, face)
    objects = np.flatnonzero(thing != BACKGROUND)
    if len(objects):
        parts = _object_surface(scene, hits.local[:, seen[objects]], thing[objects] - 1, frame[objects])
        face[objects], u[objects], v[objects], normal[:, objects], scale[objects] = parts
    row, table = thing * 6 + face, scene.materials
    repeats, contrast = table.repeats.reshape(-1).take(row), table.contrast.reshape(-1).take(row)[:, None]
    slant = np.abs((normal * view).sum(0)) / np.sqrt((view * view).sum(0))
    pixel = depth * (rays.x[1] - rays.x[0]) / np.sqrt(np.maximum(slant, 0.05))
    colour = sample(texels, table.texture.reshape(-1).take(row), u * repeats, v * repeats, pixel * repeats * scale)
    colour *= contrast / 255
    colour += 1 - contrast
    colour *= table.tint.reshape(-1, 3).take(row, 0)
    colour *= _light(scene, point, normal, shadows, frame)[:, None] * scene.lighting.colour
    return np.minimum(colour, 255)


def _background_surface(scene: Scene, point: np.ndarray, face: np.ndarray) -> tuple[np.ndarray, ...]:
    """Texture coordinates in metres, inward normals, and texture units per metre of floor, walls and ceiling."""
    count = face.shape[0]
    normal = np.zeros((3, count), dtype=np.float32)
    scale = np.ones(count, dtype=np.float32)
    if not scene.is_room:
        normal[1] = -1
        return point[0].copy(), point[2].copy(), normal, scale
    axis = face >> 1
    inward = (1 - 2 * (face & 1)).astype(np.float32)
    for i in range(3):
        normal[i] = inward * (axis == i)
    return np.where(axis == 0, point[2], point[0]), np.where(axis == 1, point[2], point[1]), normal, scale


def _object_surface(scene: Scene, local: np.ndarray, which: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, ...]:
    """Face, texture coordinates across it, world normals, and texture units per metre for hits on objects.

    Textures are laid on the faces of the cube around the primitive, and around the mantle of cylinders and cones.
    """
    shape = scene.shape[which]
    size = np.abs(local)
    axis = np.where(size[0] >= np.maximum(size[1], size[2]), 0, np.where(size[1] >= size[2], 1, 2)).astype(np.int32)
    round_mantle = (shape >= 2) & (size[1] < 0.999)
    axis[(shape >= 2) & ~round_mantle] = 1
    dominant = np.where(axis == 0, local[0], np.where(axis == 1, local[1], local[2]))
    # Seen from outside, u runs to the right: the sign of the dominant axis mirrors it.
    facing = np.where(dominant < 0, np.float32(1), np.float32(-1)) * np.where(axis == 0, np.float32(-1), np.float32(1))
    reach = np.maximum(np.abs(dominant), 1e-6)
    u = facing * np.where(axis == 0, local[2], local[0]) / reach
    v = np.where(axis == 1, local[2], local[1]) / reach
    mantle = np.flatnonzero(round_mantle)
    u[mantle] = np.arctan2(local[0, mantle], local[2, mantle]) * np.float32(4 / np.pi)
    v[mantle] = local[1, mantle]
    flat = np.where(axis == np.arange(3)[:, None], np.sign(dominant), 0).astype(np.float32)
    normal = np.where(shape == 1, flat, np.where(shape == 0, local, flat))
    upward = np.where(
        shape[mantle] == 3, -(local[1, mantle] + 1) / 4, 0
    )  # the mantle of the cone x^2 + z^2 = (y+1)^2/4
    normal[:, mantle] = np.stack([local[0, mantle], upward, local[2, mantle]])
    normal = normal / scene.half[which].T
    turned = np.einsum("nij,jn->in", scene.rotation[frame, which], normal)
    turned /= np.sqrt((turned * turned).sum(0)) + 1e-12
    face = 2 * axis + (dominant > 0)
    scale = (0.5 / np.sort(scene.half, axis=1)[:, 1:].mean(1))[which]  # a thin sign is as large as its face
    return face, u * 0.5 + 0.5, v * 0.5 + 0.5, turned, scale


def _light(scene: Scene, point: np.ndarray, normal: np.ndarray, shadows: bool, frame: np.ndarray) -> np.ndarray:
    """Brightness, from the ambient minimum to 1."""
    lighting = scene.lighting
    if lighting.is_sun:
        towards = np.broadcast_to(lighting.position[:, None], point.shape)
        cosine = lighting.position @ normal
    else:
        towards = lighting.position[:, None] - point
        cosine = (normal * towards).sum(0) / np.sqrt((towards * towards).sum(0))
    cosine = np.maximum(cosine, 0)
    if shadows:
        # `towards` ends at the lamp, where t = 1; the sun is infinitely far away.
        free = nearest_object(scene, frame, point + 1e-3 * normal, towards) >= (np.inf if lighting.is_sun else 1)
        cosine = cosine * free
    return lighting.ambient + (1 - lighting.ambient) * cosine


def _sky(scene: Scene, direction: np.ndarray) -> np.ndarray:
    """From the horizon's colour to the zenith's with the height of the ray."""
    length = np.sqrt((direction * direction).sum(0))
    height = np.clip(-direction[1] / length * 1.6, 0, 1)[:, None]
    return scene.lighting.horizon * (1 - height) + scene.lighting.zenith * height


def to_images(colour: Float[np.ndarray, "N 3"], frames: int, size: tuple[int, int]) -> UInt8[np.ndarray, "T 3 H W"]:
    """Round colours into frames."""
    pixels = (colour + 0.5).astype(np.uint8).reshape(frames, size[0], size[1], 3)
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 1))
