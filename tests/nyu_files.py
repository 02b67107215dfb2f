"""NYUv2 in the authors' two layouts, tiny: dark is near, bright is far."""

import numpy as np
from PIL import Image

SIZE = (48, 64)


def scene(number, size=SIZE):
    """Image [H, W, 3] and depth in metres of a slanted wall; every seventh pixel has no depth."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    depth = 1 + (number % 5) + rows / size[0] * 3
    shade = np.clip(depth * 28, 0, 255).astype(np.uint8)
    return np.repeat(shade[..., None], 3, 2), np.where((rows + columns) % 7 == 0, 0, depth)


def write_split_folder(root, train=6, test=3, scale=0.001, size=SIZE):
    """Folder with lists, images and 16-bit depth; the lines are not in order and have a leading slash."""
    for split, count, first in (("train", train, 0), ("test", test, 100)):
        lines = []
        for number in range(first, first + count):
            folder = root / f"{split}_room"
            folder.mkdir(parents=True, exist_ok=True)
            image, depth = scene(number, size)
            Image.fromarray(image).save(folder / f"rgb_{number:05d}.jpg", quality=95)
            Image.fromarray((depth / scale).round().astype(np.uint16)).save(folder / f"sync_depth_{number:05d}.png")
            lines.append(f"/{folder.name}/rgb_{number:05d}.jpg /{folder.name}/sync_depth_{number:05d}.png 518.8579")
        (root / f"nyu_{split}.txt").write_text("\n".join(reversed(lines)) + "\n")
    return root


def write_labeled(root, count=5, train=(1, 4, 5), test=(2, 3), size=(480, 640)):
    """The MATLAB files: axes reversed, images counted from 1; `rawDepths` has holes, `depths` has none."""
    import h5py
    import scipy.io

    root.mkdir(parents=True, exist_ok=True)
    scenes = [scene(number, size) for number in range(count)]
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.stack([image.transpose(2, 1, 0) for image, _ in scenes])
        raw = np.stack([depth.T for _, depth in scenes]).astype(np.float32)
        file["rawDepths"], file["depths"] = raw, np.where(raw == 0, 2.5, raw).astype(np.float32)
    columns = {"trainNdxs": np.array(train)[:, None], "testNdxs": np.array(test)[:, None]}
    scipy.io.savemat(root / "splits.mat", columns)
    return root
