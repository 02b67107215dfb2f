"""The dynamic RGB-D data set of Bonn: videos of moving people and objects, in the layout of TUM."""

import os
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float64, Int64

from omnistream.data.media import MediaReadError
from omnistream.data.media.tum import TimedFiles, read_trajectory
from omnistream.data.scenes.index_cache import SceneSequence
from omnistream.data.scenes.reader import logger
from omnistream.data.scenes.time_association import nearest
from omnistream.data.scenes.tum import TUM, Calibration

_PREFIX = "rgbd_bonn_"
_CALIBRATION: Calibration = (542.822841, 542.576870, 315.593520, 237.756098)
_MARKER_AXES = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
_CAMERA_TO_MARKERS = np.array(
    [
        [1.0157, 0.1828, -0.2389, 0.0113],
        [0.0009, -0.8431, -0.6413, -0.0098],
        [-0.3009, 0.6147, -0.8085, 0.0111],
        [0, 0, 0, 1],
    ]
)


class BONN(TUM):
    """The dynamic RGB-D data set of Bonn: 26 videos of 640x480 with moving people, boxes and balloons.

    Layout of a sequence, as distributed; folders may also be called without `rgbd_bonn_`, as the sequences are:

        <root>/**/rgbd_bonn_balloon2/
            rgb/1548266530.61328.png    8-bit RGB; the name is the time in seconds
            depth/*.png                 16-bit, 1/5000 m, 0 where nothing was measured; registered to RGB
            groundtruth.txt             timestamp tx ty tz qx qy qz qw per line, of the markers, metres
            rgb.txt, depth.txt          not read, as depth.txt also names files that are not there

    Frames are the files of `rgb`, all of them and in order, so that positions are those of the published evaluations,
    which take 110 frames from the 31st on (`FrameChoice(start=30, stop=140)`). `sequence_lists["depth"]` is the five
    sequences that they use. CUT3R's copies of these frames (rgb_110, depth_110) are not read.

    Colour runs at 29.9 Hz and depth at 30.0, and both drop frames. Published figures pair the i-th image with the i-th
    depth map (`pairing="index"`), which may be of another moment; by `timestamp`, each image has the depth that is
    nearest in time, less than 0.02 s away. Either way an image without depth is a frame without depth.

    The pose is the nearest of the markers, less than 0.02 s away, brought to the camera by the authors' transform, from
    whose rotation a scale of 1.059 is removed; a frame without one has a pose of NaN. 0.5 is added to the principal
    point, as the calibration has the centre of pixel i at i. Images are distorted (coefficients 0.039903, -0.099343,
    -0.000730, -0.000144, 0) and given as stored. Images of another size are taken to be resized.

    Args:
        root: Folder that holds the folders of the sequences at any depth, or one of these.
        pairing: How depth is chosen for an image: by `timestamp`, or by `index` as in published evaluations.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        ValueError: If there is no such pairing.

    Source: ipb.uni-bonn.de/data/rgbd-dynamic-dataset (layout, calibration, transform); Junyi42/monst3r
    datasets_preprocess/prepare_bonn.py (frames, by index); AutoLab-SAI-SJTU/InfiniteVGGT issue 18 (rates).
    """

    expected = "folders such as rgbd_bonn_balloon2 with rgb/, depth/, rgb.txt and groundtruth.txt (BONN RGB-D dynamic)"
    descriptions = ()
    sequence_lists: ClassVar = {"depth": ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")}

    def __init__(self, root: str | os.PathLike[str], pairing: Literal["timestamp", "index"] = "timestamp") -> None:
        super().__init__(root)
        if pairing not in ("timestamp", "index"):
            raise ValueError(f"pairing must be timestamp or index, got {pairing!r}")
        self.pairing = pairing

    def index_options(self) -> tuple[str, ...]:
        """The pairing."""
        return (self.pairing,)

    def published_name(self, name: str) -> str:
        """The name without `rgbd_bonn_`."""
        return name.removeprefix(_PREFIX)

    def name_of(self, folder: Path) -> str:
        """The name of the folder itself, without `rgbd_bonn_`."""
        return self.published_name(super().name_of(folder))

    def open_sequence(self, path: Path) -> SceneSequence:
        """All images.

        Raises:
            MediaReadError: If a folder is missing or empty, a file is not named by its time, or the trajectory is
                broken.
        """
        self.calibration(path)
        images, depths = (_named_by_time(path / kind) for kind in ("rgb", "depth"))
        closest = self._paired(images, depths)
        poses = nearest(images.stamps, read_trajectory(path / "groundtruth.txt").stamps)
        for chosen, what in ((closest, "depth"), (poses, "pose")):
            if missing := int((chosen < 0).sum()):
                logger.warning("%s: %d of %d images have no %s", path, missing, len(images.files), what)
        frames = [
            self.frame(path, image, depths.files[depth] if depth >= 0 else None, pose if pose >= 0 else None)
            for image, depth, pose in zip(images.files, closest.tolist(), poses.tolist(), strict=True)
        ]
        return SceneSequence(self.name_of(path), frames)

    def _paired(self, images: TimedFiles, depths: TimedFiles) -> Int64[np.ndarray, " N"]:
        """Position of the depth map of every image, -1 for none."""
        if self.pairing == "timestamp":
            return nearest(images.stamps, depths.stamps)
        positions = np.arange(len(images.files))
        return np.where(positions < len(depths.files), positions, -1)

    def calibration(self, folder: Path) -> Calibration:
        """The calibration of the camera, which is the same for all sequences.

        Raises:
            MediaReadError: If the folder is of another data set in this layout.
        """
        if "freiburg" in folder.name:
            raise MediaReadError(folder, "is of TUM, with another camera; read it with omnistream.data.scenes.TUM")
        return _CALIBRATION

    def camera_to_world(self, folder: Path, row: int | None) -> Float64[np.ndarray, "4 4"]:
        """The pose of the camera from that of the markers in a row of the trajectory; NaN without a row."""
        markers = super().camera_to_world(folder, row)
        return _MARKER_AXES.T @ markers @ _MARKER_AXES @ _rigid(_CAMERA_TO_MARKERS)


def _rigid(transform: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
    """The transform with the rotation that is nearest to its linear part."""
    left, _, right = np.linalg.svd(transform[:3, :3])
    rigid = transform.copy()
    rigid[:3, :3] = left @ right
    return rigid


def _named_by_time(folder: Path) -> TimedFiles:
    """The images of a folder in the order of their names, which are their times."""
    names = sorted(path.name for path in folder.glob("*.png"))
    if not names:
        prepared = folder.with_name(f"{folder.name}_110")
        hint = f"; {prepared.name} holds a selection, which is not read" if prepared.is_dir() else ""
        raise MediaReadError(folder, f"has no .png files{hint}")
    stamps = np.array([_time_of(folder / name) for name in names])
    if len(out_of_order := np.flatnonzero(np.diff(stamps) <= 0)):
        raise MediaReadError(folder / names[out_of_order[0] + 1], "is not later than the file before it by name")
    return TimedFiles(stamps, [f"{folder.name}/{name}" for name in names])


def _time_of(path: Path) -> float:
    try:
        stamp = float(path.stem)
    except ValueError:
        stamp = np.nan
    if not np.isfinite(stamp):
        raise MediaReadError(path, "is not named by a time in seconds, such as 1548266530.61328.png")
    return stamp
