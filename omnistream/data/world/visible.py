"""What can be seen in a frame: boxes of objects from their masks, and legible words."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from omnistream.boxes import Box
from omnistream.data.world.clip import WorldClip
from omnistream.data.world.text import SIGN_MARGIN, word_share
from omnistream.data.world.trace import BACKGROUND


@dataclass(frozen=True)
class Seen:
    """One object as one frame shows it."""

    index: int
    """Which object of the scene."""
    kind: str
    colour: str
    box: Box
    """The exact extent of its visible pixels, relative to the frame."""
    area: int
    """Its visible pixels."""
    depth: float
    """Mean z-depth of its visible pixels in metres."""
    half_width: float
    """Half its width in metres."""

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box, x and y relative to the frame."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


def seen_objects(clip: WorldClip, frame: int) -> list[Seen]:
    """All objects with at least one visible pixel, in the order of the scene; an overlay hides what is behind it."""
    instances, depth = _uncovered(clip, frame), clip.depth[frame]
    height, width = instances.shape
    found = []
    for thing in np.unique(instances[instances > 0]).tolist():
        mask = instances == thing
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        left, right = float(columns[0]) / width, float(columns[-1] + 1) / width
        top, bottom = float(rows[0]) / height, float(rows[-1] + 1) / height
        found.append(
            Seen(
                index=thing - 1,
                kind=clip.scene.kinds[thing - 1],
                colour=clip.scene.colour[thing - 1],
                box=Box(left, top, right, bottom),
                area=int(mask.sum()),
                depth=float(np.mean(depth[mask])),
                half_width=float(clip.scene.half[thing - 1, 0]),
            )
        )
    return found


def legible_words(clip: WorldClip, frame: int, min_height: float = 9.0) -> list[tuple[str, Box]]:
    """Words with their boxes: on signs that are seen whole and large enough, and the overlay.

    Args:
        clip: A rendered clip.
        frame: Which frame.
        min_height: Least height of the letters in pixels.
    """
    instances = _uncovered(clip, frame)
    size = instances.shape
    words = []
    for index, word in clip.scene.words.items():
        quad = _word_corners(clip, index, frame, word)
        if quad is not None and _is_legible(quad, instances == index + 1, min_height):
            low, high = quad.min(0) / (size[1], size[0]), quad.max(0) / (size[1], size[0])
            words.append((word, Box(float(low[0]), float(low[1]), float(high[0]), float(high[1]))))
    if clip.overlay is not None:
        words.append((clip.overlay.word, clip.overlay.box))
    return sorted(words, key=lambda item: (item[1][1], item[1][0]))


def _uncovered(clip: WorldClip, frame: int) -> Int[np.ndarray, "H W"]:
    """Instances of a frame, background where an overlay covers it."""
    instances = clip.instances[frame]
    if clip.overlay is not None:
        instances = instances.copy()
        instances[clip.overlay.plate] = BACKGROUND
    return instances


def _word_corners(clip: WorldClip, index: int, frame: int, word: str) -> Float[np.ndarray, "4 2"] | None:
    """Pixel positions of the corners of the word on a sign, clockwise from the upper left; None if it faces away."""
    scene, pose = clip.scene, clip.camera_to_world[frame]
    across, down = word_share(word) * (1 - 2 * SIGN_MARGIN), 1 - 2 * SIGN_MARGIN
    corners = np.array([[-across, -down, -1], [across, -down, -1], [across, down, -1], [-across, down, -1]])
    world = (corners * scene.half[index]) @ scene.rotation[frame, index].T + scene.position[frame, index]
    outward = -scene.rotation[frame, index, :, 2]
    local = (world - pose[:3, 3]) @ pose[:3, :3]
    if (local[:, 2] < 0.1).any() or ((pose[:3, 3] - world) @ outward <= 0).any():
        return None
    return (local @ clip.intrinsics[frame].T)[:, :2] / local[:, 2:]


def _is_legible(quad: np.ndarray, mask: np.ndarray, min_height: float) -> bool:
    """Whole in the frame, high enough, not seen too aslant, and not hidden: its pixels belong to the sign."""
    height, width = mask.shape
    if (
        (quad < 0).any()
        or (quad > (width, height)).any()
        or min(quad[3, 1] - quad[0, 1], quad[2, 1] - quad[1, 1]) < (min_height)
    ):
        return False
    edges = np.roll(quad, -1, axis=0) - quad
    y, x = np.mgrid[:height, :width] + 0.5
    inside = np.ones_like(mask)
    for (x0, y0), (ex, ey) in zip(quad, edges, strict=True):
        inside &= ex * (y - y0) - ey * (x - x0) >= 0
    return bool(inside.any() and mask[inside].mean() > 0.97)
