"""A small DAVIS in the layout of its authors: two squares that move, one of them lost in the last frames."""

from pathlib import Path

import numpy as np
from PIL import Image

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [0] * 252 * 3
COLOURS = np.array([[40, 60, 90], [220, 60, 40], [60, 220, 60]], np.uint8)


def ids_of(frame: int, size: tuple[int, int], start: int = 0) -> np.ndarray:
    """Object ids of a frame; void around object 1."""
    H, W = size
    ids = np.zeros(size, np.uint8)
    x = start + 2 * frame
    ids[H // 4 - 2 : H // 2 + 2, x : x + W // 4 + 4] = 255
    ids[H // 4 : H // 2, x + 2 : x + 2 + W // 4] = 1
    if frame < 5:
        ids[H // 2 + 6 : H - 4, W // 2 : W // 2 + W // 4] = 2
    return ids


def write_davis(root: Path, sequences: dict[str, tuple[int, int]], split: str = "val", num_frames: int = 6) -> Path:
    """Write frames and palette masks of sequences of these sizes, and the file of the split."""
    for number, (name, size) in enumerate(sequences.items()):
        images, masks = root / "JPEGImages/480p" / name, root / "Annotations/480p" / name
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for t in range(num_frames):
            ids = ids_of(t, size, start=number)
            noise = np.random.default_rng(t).integers(0, 12, (*size, 3)).astype(np.uint8)
            shown = COLOURS[np.where(ids == 255, 0, ids)] + noise
            Image.fromarray(shown).save(images / f"{t:05d}.jpg", quality=95, subsampling=0)
            mask = Image.fromarray(ids)
            mask.putpalette(PALETTE)
            mask.save(masks / f"{t:05d}.png")
    lists = root / "ImageSets/2017"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in sequences))
    return root
