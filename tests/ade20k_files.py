"""A small ADE20K in the authors' layout."""

import numpy as np
from PIL import Image

FOLDERS = {"train": "training", "val": "validation"}


def write_ade20k(root, counts=None, size=(40, 56), num_classes=4):
    """Images of horizontal bands, whose colour is their class; the first two rows have none. Sizes differ."""
    for split, count in (counts or {"train": 8, "val": 3}).items():
        for kind in ("images", "annotations"):
            (root / kind / FOLDERS[split]).mkdir(parents=True, exist_ok=True)
        for index in range(1, count + 1):
            height, width = size[0], size[1] + 3 * index
            rng = np.random.default_rng(index)
            labels = (np.arange(height)[:, None] * num_classes // height + index) % num_classes + 1
            labels = np.broadcast_to(labels, (height, width)).astype(np.uint8).copy()
            palette = np.array([[30, 30, 30], [220, 40, 40], [40, 200, 60], [50, 60, 220], [230, 220, 60]])
            image = (palette[labels] + rng.integers(-15, 16, (height, width, 3))).clip(0, 255).astype(np.uint8)
            labels[:2] = 0
            name = f"ADE_{split}_{index:08d}"
            Image.fromarray(image).save(root / "images" / FOLDERS[split] / f"{name}.jpg", quality=95)
            Image.fromarray(labels).save(root / "annotations" / FOLDERS[split] / f"{name}.png")
    return root
