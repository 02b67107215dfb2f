"""NYUv2's raw videos: rooms recorded with a Kinect."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64

from omnistream.cameras import crop_intrinsics, from_opencv_intrinsics, make_intrinsics
from omnistream.data.batch import SceneFrame
from omnistream.data.media import MediaReadError, read_image
from omnistream.data.media.kinect import read_disparity_pgm
from omnistream.data.scenes.index_cache import SceneSequence
from omnistream.data.scenes.nyuv2_registration import COLOR, SIZE, register
from omnistream.data.scenes.reader import SceneReader, unknown_camera

_CROP = (slice(45, 471), slice(41, 601))
"""Rows and columns that evaluations use."""
_STAMP = re.compile(r"[dr]-(\d+\.\d+)-\d+\.(?:pgm|ppm)")


class NYUv2Video(SceneReader):
    """The raw videos of NYU Depth V2 (research): 464 rooms recorded with a Kinect, 640x480 at 20 to 30 Hz.

    A folder per room, as in the authors' archives (not the 1449 labelled images, which are `omnistream.data.images`):

        <root>/**/kitchen_0003/d-1294886362.665769-3143255701.pgm      raw disparity, 16 bits little-endian
                               r-1294886362.677866-3143902211.ppm      8-bit RGB
                               a-*.dump, INDEX.txt                     not used

    Colour and depth have streams of their own and are not registered. Frames are made as by the authors' toolbox: each
    depth map is one, with the colour image nearest in time, however far, so neighbouring frames may share an image.
    The image is undistorted; depth is 351.3 / (1092.5 - disparity) metres, projected into the colour camera and not
    filled in; it ends at 10 m. `nyuv2_registration` says what is peculiar about it.

    K is the toolbox's, with 0.5 added to the principal point as its calibration has the centre of pixel i at i. Poses
    are NaN: none were recorded. So `SceneClips` refuses this reader.

    Evaluations of video depth on NYUv2 follow Video Depth Anything: the first 500 frames (`FrameChoice(count=500)`) of
    the eight rooms of the list `depth`, cropped to rows 45-470 and columns 41-600, depth up to 10 m. How its authors
    exported the frames ("MATLAB") is not published. What CUT3R and MonST3R call NYUv2 is another benchmark: the 654
    labelled test images, one by one.

    Args:
        root: Folder that holds the rooms at any depth.
        crop: Crop images and depth as evaluations do. The rest of the image is partly white.

    Raises:
        DatasetNotFoundError: If there is no such folder.

    Source: the authors' toolbox_nyu_depth_v2 (get_synched_frames.m, project_depth_map.m); DepthAnything/Video-Depth-
        Anything: benchmark/dataset_extract/dataset_extract_nyuv2.py, benchmark/eval/eval.py.
    """

    expected = "folders of NYUv2's raw data with d-*.pgm and r-*.ppm, such as kitchen_0003"
    markers = ("d-*.pgm", "r-*.ppm")
    sequence_lists = {
        "depth": (
            "basement_0001a", "bookstore_0001a", "cafe_0001a", "classroom_0001a", "kitchen_0003", "office_0004",
            "playroom_0002", "study_0002",
        )
    }  # fmt: skip
    has_all_cameras = False

    def __init__(self, root: str | os.PathLike[str], *, crop: bool = True) -> None:
        super().__init__(root)
        self.crop = crop

    def published_name(self, name: str) -> str:
        """Of the room, such as kitchen_0003."""
        return Path(super().published_name(name)).name

    def open_sequence(self, path: Path) -> SceneSequence:
        """The depth maps in order of time, each with an image.

        Raises:
            MediaReadError: If the name of a file does not tell its time.
        """
        depths, images = (sorted((_stamp(file), file.name) for file in path.glob(kind)) for kind in self.markers)
        chosen = nearest_or_later([stamp for stamp, _ in depths], [stamp for stamp, _ in images])
        frames = [f"{name} {images[image][1]}" for (_, name), image in zip(depths, chosen.tolist(), strict=True)]
        return SceneSequence(self.name_of(path), frames)

    def read(self, sequence: SceneSequence, positions: Sequence[int]) -> list[SceneFrame]:
        """Frames without distortion, with depth for the pixels of the image."""
        folder = self.root / sequence.name
        return [self._frame(folder, *sequence.frames[position].split(" ")) for position in positions]

    def _frame(self, folder: Path, depth_name: str, image_name: str) -> SceneFrame:
        stored, disparity = read_image(folder / image_name, upright=False), read_disparity_pgm(folder / depth_name)
        for name, size in ((image_name, tuple(stored.shape[-2:])), (depth_name, disparity.shape)):
            if size != SIZE:
                raise MediaReadError(folder / name, f"expected {SIZE[1]}x{SIZE[0]} pixels, got {size[1]}x{size[0]}")
        image, depth = register(stored, disparity)
        intrinsics = from_opencv_intrinsics(
            make_intrinsics(*torch.tensor([*COLOR.focal, *COLOR.centre], dtype=torch.float64).unbind())
        )
        if self.crop:
            image, depth = image[(slice(None), *_CROP)].contiguous(), depth[_CROP].contiguous()
            intrinsics = crop_intrinsics(intrinsics, top=_CROP[0].start, left=_CROP[1].start)
        return SceneFrame(image=image, depth=depth, intrinsics=intrinsics, camera_to_world=unknown_camera(4))


def nearest_or_later(stamps: Sequence[float], others: Sequence[float]) -> Int64[np.ndarray, " N"]:
    """For each time, the position of the nearest of `others`; of two equally near ones, the later.

    Args:
        stamps: Times.
        others: Times in order, at least one.
    """
    wanted, given = np.asarray(stamps, np.float64), np.asarray(others, np.float64)
    after = np.searchsorted(given, wanted).clip(max=len(given) - 1)
    before = (after - 1).clip(min=0)
    return np.where(wanted - given[before] < given[after] - wanted, before, after)


def _stamp(path: Path) -> float:
    found = _STAMP.fullmatch(path.name)
    if found is None:
        raise MediaReadError(path, "expected a name with a time, such as d-1294886362.665769-3143255701.pgm")
    return float(found[1])
