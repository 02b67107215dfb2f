"""KITTI's depth benchmark, tiny, in its own files and as the evaluations of MonST3R and CUT3R copy them."""

import numpy as np
from PIL import Image

SIZE = (36, 124)
PROJECTION = {"02": [70.25, 0, 61.0, 4.5, 0, 70.5, 17.25, 0.25, 0, 0, 1, 0.0025],
              "03": [70.25, 0, 61.0, -3.4, 0, 70.5, 17.25, 0.5, 0, 0, 1, 0.0025]}  # fmt: skip


def stored_depth(number):
    """16-bit values of 256 per metre; three of four pixels were not measured."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    depth = 256 * (2 + number) + 300 * rows + columns
    return np.where((rows + columns) % 4 == 0, depth, 0).astype(np.uint16)


def image(number):
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = number, np.arange(SIZE[1])
    return pixels


def write_calibration(folder):
    numbers = {f"P_rect_{camera}": values for camera, values in PROJECTION.items()}
    lines = ["calib_time: 09-Jan-2012 13:57:47", "S_rect_02: 1.242000e+03 3.750000e+02"]
    lines += [f"{name}: {' '.join(f'{value:.6e}' for value in values)}" for name, values in numbers.items()]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calib_cam_to_cam.txt").write_text("\n".join(lines) + "\n")


def write_drive(root, drive="2011_09_26_drive_0002", frames=range(5, 9), *, split="val", camera="02", raw="."):
    """A drive; its images begin two frames before its depth and end two after. Returns the folders of both."""
    depth = root / split / f"{drive}_sync" / "proj_depth" / "groundtruth" / f"image_{camera}"
    images = root / raw / drive[:10] / f"{drive}_sync" / f"image_{camera}" / "data"
    _write(depth, images, frames, around=2)
    return depth, images


def write_gathered(root, drive="2011_09_26_drive_0002", frames=range(5, 9)):
    """The copies, which have no calibration. Returns the folders of depth and images."""
    folder = root / "depth_selection" / "val_selection_cropped"
    depth, images = (folder / kind / f"{drive}_sync_02" for kind in ("groundtruth_depth_gathered", "image_gathered"))
    _write(depth, images, frames, around=0)
    return depth, images


def _write(depth, images, frames, around):
    for folder in (depth, images):
        folder.mkdir(parents=True)
    for number in frames:
        Image.fromarray(stored_depth(number)).save(depth / f"{number:010d}.png")
    for number in range(frames[0] - around, frames[-1] + around + 1):
        Image.fromarray(image(number)).save(images / f"{number:010d}.png")
