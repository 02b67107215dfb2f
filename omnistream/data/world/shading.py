"""From surfaces to colours: textures, Lambert light, haze, sky, shadows."""

import numpy as np
from jaxtyping import Float, UInt8

from omnistream.data.world.primitives import intersect
from omnistream.data.world.scene import Scene
from omnistream.data.world.textures import atlas, sample
from omnistream.data.world.trace import BACKGROUND, SKY, Hits, Rays


def shade(scene: Scene, rays: Rays, hits: Hits, max_depth: float, shadows: bool = False) -> Float[np.ndarray, "N 3"]:
    """The colour from 0 to 255 that every ray sees."""
    count = hits.depth.shape[0]
    frame = np.repeat(np.arange(rays.frames, dtype=np.int32), count // rays.frames)
    seen = np.flatnonzero(hits.thing != SKY) if not scene.is_room else slice(None)
    depth, thing, face = hits.depth[seen], hits.thing[seen], hits.face[seen].astype(np.int32)
    origin = rays.origin.T[:, frame[seen]]
    point = origin + depth * rays.direction[:, seen]
    u, v, normal, scale = _background_surface(scene, point, face)
    objects = np.flatnonzero(thing != BACKGROUND)
    if len(objects):
        local, which = hits.local[:, seen][:, objects], thing[objects].astype(np.int32) - 1
        parts = _object_surface(scene, local, which, frame[seen][objects])
        face[objects], u[objects], v[objects], normal[:, objects], scale[objects] = parts
    row = thing.astype(np.int32) * 6 + face
    table = scene.materials
    repeats = table.repeats.reshape(-1).take(row)
    view = rays.direction[:, seen]
    slant = np.abs((normal * view).sum(0)) / np.sqrt((view * view).sum(0))
    pixel = depth * (rays.x[1] - rays.x[0]) / np.sqrt(np.maximum(slant, 0.05))
    texels = np.concatenate([atlas(), *scene.word_texels]) if scene.word_texels else atlas()
    colour = sample(texels, table.texture.reshape(-1).take(row), u * repeats, v * repeats, pixel * repeats * scale)
    contrast = table.contrast.reshape(-1).take(row)[:, None]
    colour *= contrast / 255
    colour += 1 - contrast
    colour *= table.tint.reshape(-1, 3).take(row, 0)
    colour *= _light(scene, point, normal, shadows, frame[seen])[:, None] * scene.lighting.colour
    if scene.is_room:
        return np.minimum(colour, 255)
    haze = np.minimum((depth / max_depth) ** 2, 1)[:, None]
    everything = _sky(scene, rays)
    everything[seen] = np.minimum(colour, 255) * (1 - haze) + scene.lighting.horizon * haze
    return everything


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
    scale = 0.5 / scene.half.mean(1)[which]
    return face, u * 0.5 + 0.5, v * 0.5 + 0.5, turned, scale


def _light(scene: Scene, point: np.ndarray, normal: np.ndarray, shadows: bool, frame: np.ndarray) -> np.ndarray:
    """Brightness from the ambient floor to 1."""
    lighting = scene.lighting
    if lighting.is_sun:
        towards = np.broadcast_to(lighting.position[:, None], point.shape)
        cosine = lighting.position @ normal
    else:
        towards = lighting.position[:, None] - point
        cosine = (normal * towards).sum(0) / np.sqrt((towards * towards).sum(0))
    cosine = np.maximum(cosine, 0)
    if shadows:
        cosine *= ~_in_shadow(scene, point + 1e-3 * normal, towards, frame)
    return lighting.ambient + (1 - lighting.ambient) * cosine


def _in_shadow(scene: Scene, point: np.ndarray, towards: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Whether an object stands between each point and the light."""
    dark = np.zeros(point.shape[1], dtype=bool)
    reach = np.inf if scene.lighting.is_sun else 1.0
    for k in range(len(scene.shape)):
        to_unit = np.swapaxes(scene.rotation[:, k], -1, -2) / scene.half[k][:, None]
        centre = scene.position[:, k].T[:, frame]
        matrix = to_unit[frame]
        start = np.einsum("nij,jn->in", matrix, point - centre)
        t = intersect(int(scene.shape[k]), start, np.einsum("nij,jn->in", matrix, towards), near=0.0)
        dark |= (t < reach) & scene.present[frame, k]
    return dark


def _sky(scene: Scene, rays: Rays) -> np.ndarray:
    """From the horizon's colour to the zenith's with the height of the ray."""
    length = np.sqrt((rays.direction * rays.direction).sum(0))
    height = np.clip(-rays.direction[1] / length * 1.6, 0, 1)[:, None]
    return scene.lighting.horizon * (1 - height) + scene.lighting.zenith * height


def to_images(colour: Float[np.ndarray, "N 3"], frames: int, size: tuple[int, int]) -> UInt8[np.ndarray, "T 3 H W"]:
    """Round colours into frames."""
    pixels = (colour + 0.5).astype(np.uint8).reshape(frames, size[0], size[1], 3)
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 1))
