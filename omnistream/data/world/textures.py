"""Surfaces: photographs from the scikit-image package and procedural patterns, as mip chains that are sampled together.

Distant surfaces use coarse levels, so they do not flicker from frame to frame.
"""

from functools import lru_cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

SIZE = 128
"""Side of the finest level in pixels."""
LEVELS = SIZE.bit_length()
TEXELS = sum((SIZE >> level) ** 2 for level in range(LEVELS))
"""Pixels of one mip chain."""

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")
GROUNDS = ("grass.png", "gravel.png", "brick.png")
"""Photographs of a surface, without colour."""
GREYS = (*GROUNDS, "coins.png", "camera.png", "page.png", *PHOTOS[:4])
PATTERNS = ("checker", "stripes", "dots", "noise")

NAMES = (*PHOTOS, *(f"grey:{name}" for name in GREYS), *PATTERNS)
"""All textures, in the order of their number."""

_LEVEL_SIZE = np.array([SIZE >> level for level in range(LEVELS)], dtype=np.int32)
_LEVEL_OFFSET = np.concatenate([[0], np.cumsum(_LEVEL_SIZE[:-1] ** 2)]).astype(np.int32)


@lru_cache(maxsize=64)
def texture_ids(*prefixes: str) -> Int[np.ndarray, " N"]:
    """Numbers of the textures whose name starts with one of `prefixes`."""
    return np.array([i for i, name in enumerate(NAMES) if name.startswith(prefixes)])


@lru_cache(maxsize=1)
def atlas() -> UInt8[np.ndarray, "N 3"]:
    """The mip chains of all textures one after the other, loaded once per process."""
    return np.concatenate([mip_chain(_photograph(name)) for name in NAMES])


def mip_chain(image: UInt8[np.ndarray, "128 128 3"]) -> UInt8[np.ndarray, "N 3"]:
    """All levels of an image, finest first, each the 2x2 average of the one before."""
    chain: list[np.ndarray] = []
    level: np.ndarray = image.astype(np.float32)
    while True:
        chain.append(level.reshape(-1, 3))
        if level.shape[0] == 1:
            return np.concatenate(chain).round().astype(np.uint8)
        level = (level[::2, ::2] + level[1::2, ::2] + level[::2, 1::2] + level[1::2, 1::2]) / 4


def sample(
    texels: UInt8[np.ndarray, "M 3"],
    texture: Int[np.ndarray, " N"],
    u: Float[np.ndarray, " N"],
    v: Float[np.ndarray, " N"],
    footprint: Float[np.ndarray, " N"],
) -> Float[np.ndarray, "N 3"]:
    """Colours from 0 to 255 at repeating texture coordinates, bilinear on the level that matches the pixel.

    Args:
        texels: Mip chains as from `atlas`.
        texture: Which chain.
        u: Horizontal coordinate; the texture repeats with period 1.
        v: Vertical coordinate.
        footprint: Size of the pixel on the surface, in the unit of `u` and `v`.
    """
    level = np.clip(np.log2(footprint * SIZE) + 0.5, 0, LEVELS - 1).astype(np.int32)
    size = _LEVEL_SIZE[level]
    x, y = u * size - 0.5, v * size - 0.5
    x0, y0 = np.floor(x), np.floor(y)
    wx, wy = (x - x0)[:, None], (y - y0)[:, None]
    last = size - 1  # sizes are powers of two: `&` wraps around
    left, top = x0.astype(np.int32) & last, y0.astype(np.int32) & last
    right, bottom = (left + 1) & last, (top + 1) & last
    base = texture.astype(np.int32) * TEXELS + _LEVEL_OFFSET[level]
    top, bottom = base + top * size, base + bottom * size
    upper = _mix(texels.take(top + left, 0), texels.take(top + right, 0), wx)
    return _mix(upper, _mix(texels.take(bottom + left, 0), texels.take(bottom + right, 0), wx), wy)


def _mix(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    mixed = b.astype(np.float32) - a
    mixed *= weight
    mixed += a
    return mixed


def _photograph(name: str) -> np.ndarray:
    """One texture at the finest level, uint8 [SIZE, SIZE, 3]."""
    if name in PATTERNS:
        return _pattern(name)
    file = name.removeprefix("grey:")
    with (files("skimage") / "data" / file).open("rb") as stream:
        photo = Image.open(stream).convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    pixels = np.asarray(photo.resize((SIZE, SIZE), Image.Resampling.BOX, (left, top, left + side, top + side)))
    return _grey(pixels) if name.startswith("grey:") else pixels


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Luminance stretched so that every grey texture has the same mean and contrast, to be tinted."""
    luminance = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    even = 195 + 42 * (luminance - luminance.mean()) / luminance.std()
    return np.repeat(np.clip(even, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _pattern(name: str) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    if name == "checker":
        bright = (x // (SIZE // 4) + y // (SIZE // 4)) % 2
    elif name == "stripes":
        bright = (x // (SIZE // 8)) % 2
    elif name == "dots":
        period = SIZE // 4
        bright = (x % period - period / 2) ** 2 + (y % period - period / 2) ** 2 < (0.3 * period) ** 2
    else:
        bright = _noise()
    return np.repeat((135 + 115 * np.asarray(bright, dtype=np.float32)).astype(np.uint8)[..., None], 3, axis=2)


def _noise() -> np.ndarray:
    """Clouds in [0, 1] that tile: random numbers smoothed by a 1/f spectrum."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE)[None]) + 1 / SIZE
    clouds = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIZE, SIZE))) / frequency**1.3).real
    return np.clip(0.5 + 0.25 * clouds / clouds.std(), 0, 1)
