"""NYUv2's raw frames to images with registered depth, by the calibration and the rules of the authors' toolbox.

The toolbox (toolbox_nyu_depth_v2: camera_params.m, project_depth_map.m) undistorts the colour image and the raw
disparities, turns these into metres, and projects them into the colour camera. What is kept of it, because the depth of
all published evaluations is made by it: disparities are interpolated before they become metres, the value of a pixel is
the distance from the depth camera, and projection counts pixels from 1 although undistortion counts them from 0.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8, UInt16
from torch import Tensor

from omnistream.data.media.kinect import NO_DISPARITY

SIZE = (480, 640)
"""Height and width of the frames, for which the cameras are calibrated."""
FARTHEST = 10.0
"""Metres; the toolbox sets what is beyond to this, here it is no measurement."""
_NEAREST = 600
"""Smaller disparities (0.71 m) are no measurement: they come from the border, which undistortion fills with 255."""
_WHITE = 255.0


class Lens(NamedTuple):
    """A camera with distortion; pixel centres at i, as in OpenCV."""

    focal: tuple[float, float]
    centre: tuple[float, float]
    """x and y, as `focal`."""
    radial: tuple[float, float, float]
    tangential: tuple[float, float]


COLOR = Lens(
    focal=(518.85790117450188, 519.46961112127485),
    centre=(325.58244941119034, 253.73616633400465),
    radial=(0.20796615318809061, -0.58613825163911781, 0.49856986684705107),
    tangential=(7.2231363135888329e-04, 1.0479627195765181e-03),
)
DEPTH = Lens(
    focal=(582.62448167737955, 582.69103270988637),
    centre=(313.04475870804731, 238.44389626620386),
    radial=(-0.099897236553084481, 0.39065324602765344, -0.51031725053400578),
    tangential=(1.9290592870229277e-03, -1.9422022475975055e-03),
)
_COLOR_TO_DEPTH = np.array(
    [
        [9.9997798940829263e-01, 5.0518419386157446e-03, 4.3011152014118693e-03],
        [-5.0359919480810989e-03, 9.9998051861143999e-01, -3.6879781309514218e-03],
        [-4.3196624923060242e-03, 3.6662365748484798e-03, 9.9998394948385538e-01],
    ]
)
_OFFSET = np.array([2.5031875059141302e-02, -2.9342312935846411e-04, 6.6238747008330102e-04])
"""From the depth camera to the colour camera in the axes of the latter, metres."""


def register(
    image: UInt8[Tensor, "3 H W"], disparity: UInt16[np.ndarray, "H W"]
) -> tuple[UInt8[Tensor, "3 H W"], Float32[Tensor, "H W"]]:
    """The image without distortion, and depth for its pixels in metres; 0 where there is none.

    Args:
        image: Of `SIZE`, as recorded. What lies outside it becomes white.
        disparity: Of `SIZE`, as recorded.
    """
    channels = [undistort(channel, COLOR) for channel in image.numpy().astype(np.float64)]
    rectified = torch.from_numpy(np.floor(np.stack(channels) + 0.5).astype(np.uint8))
    unknown = undistort(np.where(disparity == NO_DISPARITY, _WHITE, 0.0), DEPTH) > 0
    straight = undistort(disparity.astype(np.float64), DEPTH)
    depth = np.where(unknown | (straight < _NEAREST), 0.0, metres(straight))
    return rectified, project(depth)


def metres(disparity: Float64[np.ndarray, "*N"]) -> Float64[np.ndarray, "*N"]:
    """Depth of raw disparities, which need not be whole; 0 beyond `FARTHEST`."""
    rest = 1092.5 - disparity
    is_known = rest >= 351.3 / FARTHEST
    return np.where(is_known, 351.3 / np.where(is_known, rest, 1.0), 0.0)


def undistort(values: Float64[np.ndarray, "H W"], lens: Lens) -> Float64[np.ndarray, "H W"]:
    """What a camera without distortion would see, by bilinear interpolation; 255 outside.

    Args:
        values: Of `SIZE`, as the lens sees it.
        lens: The camera.
    """
    inside, first, across, down = _sources(lens)
    flat, width = values.ravel(), SIZE[1]
    upper = flat[first] * (1 - across) + flat[first + 1] * across
    lower = flat[first + width] * (1 - across) + flat[first + width + 1] * across
    result = np.full(SIZE, _WHITE)
    result[inside] = upper * (1 - down) + lower * down
    return result


@lru_cache(maxsize=2)
def _sources(lens: Lens) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For the pixels that the lens sees (a mask): upper left of the four that they lie between, and weights."""
    height, width = SIZE
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    x, y = (columns - lens.centre[0]) / lens.focal[0], (rows - lens.centre[1]) / lens.focal[1]
    square = x**2 + y**2
    stretch = 1 + sum(k * square**power for power, k in enumerate(lens.radial, 1))
    p, q = lens.tangential
    bent_x = x * stretch + 2 * p * x * y + q * (square + 2 * x**2)
    bent_y = y * stretch + p * (square + 2 * y**2) + 2 * q * x * y
    source_x = bent_x * lens.focal[0] + lens.centre[0]
    source_y = bent_y * lens.focal[1] + lens.centre[1]
    left, top = np.floor(source_x).astype(np.int64), np.floor(source_y).astype(np.int64)
    inside = (left >= 0) & (left <= width - 2) & (top >= 0) & (top <= height - 2)
    first = (top * width + left)[inside]
    return inside, first, (source_x - left)[inside], (source_y - top)[inside]


def project(depth: Float64[np.ndarray, "H W"]) -> Float32[Tensor, "H W"]:
    """Depth of the depth camera, moved to the pixels of the colour camera; the nearest where several meet.

    Args:
        depth: Of `SIZE`, without distortion, in metres; 0 for none.
    """
    height, width = SIZE
    rows, columns = np.nonzero(depth)
    z = depth[rows, columns]
    # Pixels count from 1 here, see the head of this module.
    x = (columns + 1 - DEPTH.centre[0]) / DEPTH.focal[0] * z
    y = (rows + 1 - DEPTH.centre[1]) / DEPTH.focal[1] * z
    points = np.linalg.inv(_COLOR_TO_DEPTH) @ np.stack([x, y, z]) - _OFFSET[:, None]
    column = np.round(points[0] / points[2] * COLOR.focal[0] + COLOR.centre[0]).astype(np.int64)
    row = np.round(points[1] / points[2] * COLOR.focal[1] + COLOR.centre[1]).astype(np.int64)
    inside = (column > 0) & (column < width) & (row > 0) & (row < height)
    place = torch.from_numpy(((row - 1) * width + column - 1)[inside])
    nearest = torch.full((height * width,), torch.inf, dtype=torch.float64)
    nearest.scatter_reduce_(0, place, torch.from_numpy(z[inside]), "amin")
    return torch.where(nearest.isfinite(), nearest, 0).float().reshape(SIZE)
