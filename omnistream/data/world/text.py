"""Written words: on signs in the scene, and drawn over the frames."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from omnistream.boxes import Box
from omnistream.data.world.textures import SIZE

SIGN_ASPECT = 1.7
"""Width of a sign over its height."""
_REFERENCE = 160
"""Size in pixels of the letters that signs are made from."""
SIGN_MARGIN = 0.06
"""Free border of a sign's face, as a share of its width and height."""

WORDS = (  # noqa: SIM905 (a list of 76 strings reads worse)
    "ART BAR BED BUS CAB CAFE CAKE CAR CAT CITY CLUB COLD COOK DOG DOOR EAST EXIT FARM FISH FOOD FREE GAME GATE GOLD "
    "HALL HOME HOT ICE INN JAM KEY KIDS LAKE LIFT LOVE MAP MENU MILK MOON NEWS NORTH OPEN OUT PARK PAY PIE PLAY POOL "
    "PUSH RAIN ROAD ROOM SALE SHOE SHOP SKY SLOW SNOW STAR STOP SUN TAXI TEA TOY TRAM TREE WAIT WALK WARM WEST WIND ZOO"
).split()


class Overlay(NamedTuple):
    """A word drawn over the frames."""

    word: str
    box: Box
    """Relative to the frame."""
    plate: tuple[slice, slice]
    """Rows and columns that its plate hides."""


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


@lru_cache(maxsize=1024)
def _extent(word: str) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the word in letters of the reference size."""
    return _font(_REFERENCE).getbbox(word)


def random_word(rng: np.random.Generator, difficulty: float) -> str:
    """A word of `WORDS`; the harder, the more often random letters instead, which cannot be guessed."""
    if rng.random() < 0.5 * difficulty:
        return "".join(rng.choice(list("ABCDEFGHIKLMNOPRSTUVWXYZ"), rng.integers(3, 6)))
    return str(rng.choice(WORDS))


def word_share(word: str) -> float:
    """Share of the free width of a sign that the word fills; it always fills the free height."""
    left, top, right, bottom = _extent(word)
    return min(1.0, (right - left) / (bottom - top) / SIGN_ASPECT)


def word_texture(rng: np.random.Generator, word: str, difficulty: float) -> UInt8[np.ndarray, "128 128 3"]:
    """The face of a sign: the word as large as fits, dark on light or light on dark."""
    dark, light = rng.uniform(0, 20 + 60 * difficulty, 3), rng.uniform(235 - 80 * difficulty, 255, 3)
    ink, paper = (dark, light) if rng.random() < 0.5 else (light, dark)
    left, top, right, bottom = _extent(word)
    mask = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(mask).text((-left, -top), word, fill=255, font=_font(_REFERENCE))
    inner, offset = round(SIZE * (1 - 2 * SIGN_MARGIN)), round(SIZE * SIGN_MARGIN)
    # The word's image is stretched to the sign: fill the height, and at most the width.
    width = round(inner * word_share(word))
    cover = Image.new("L", (SIZE, SIZE))
    cover.paste(mask.resize((width, inner), Image.Resampling.BOX), ((SIZE - width) // 2, offset))
    weight = np.asarray(cover, dtype=np.float32)[..., None] / 255
    return (paper * (1 - weight) + ink * weight).astype(np.uint8)


def draw_overlay(
    rng: np.random.Generator, images: UInt8[np.ndarray, "T 3 H W"], word: str, difficulty: float
) -> Overlay:
    """Write a word over all frames, in place, at one random place.

    Its height is 14 to 26 % of the frame (less when harder) but at least 8 pixels, and no wider than the frame. The
    letters are black or white on a plate of the opposite shade, which is the fainter the harder.
    """
    height, width = images.shape[2:]
    size = max(8.0, height * rng.uniform(0.2 - 0.06 * difficulty, 0.34 - 0.1 * difficulty))
    left, top, right, bottom = _extent(word)
    size = int(min(size, _REFERENCE * (width - 4) / (right - left)))
    font = _font(size)
    left, top, right, bottom = font.getbbox(word)
    wide, tall = int(np.ceil(right - left)), int(np.ceil(bottom - top))
    x, y = int(rng.integers(1, max(width - wide, 2))), int(rng.integers(1, max(height - tall, 2)))
    cover = Image.new("L", (width, height))
    ImageDraw.Draw(cover).text((x - left, y - top), word, fill=255, font=font)
    letters = np.asarray(cover, dtype=np.float32) / 255
    plate = np.zeros_like(letters)
    rows, columns = slice(max(y - 2, 0), y + tall + 2), slice(max(x - 2, 0), x + wide + 2)
    plate[rows, columns] = 0.8 * (1 - difficulty)
    ink = 255.0 * rng.integers(2)
    mixed = (images * (1 - plate) + (255 - ink) * plate) * (1 - letters) + ink * letters
    images[:] = (mixed + 0.5).astype(np.uint8)
    down, across = np.flatnonzero(letters.any(1)), np.flatnonzero(letters.any(0))
    left, right = float(across[0]) / width, float(across[-1] + 1) / width
    upper, lower = float(down[0]) / height, float(down[-1] + 1) / height
    return Overlay(word, Box(left, upper, right, lower), (rows, columns))
