"""The RGB-D benchmark of TUM: videos of a hand-held Kinect with motion capture."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from omnistream.cameras import from_opencv_intrinsics, make_intrinsics, resize_intrinsics
from omnistream.data.batch import SceneFrame
from omnistream.data.media import MediaReadError, read_depth_png, read_image
from omnistream.data.media.tum import TimedFiles, read_file_list, read_trajectory
from omnistream.data.scenes.index_cache import SceneSequence
from omnistream.data.scenes.reader import SceneReader, logger
from omnistream.data.scenes.time_association import MAX_DIFFERENCE, associate, nearest

Calibration = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels of `CALIBRATED_SIZE`, with the centre of pixel i at i."""

CALIBRATED_SIZE = (480, 640)
"""Height and width of the images of all cameras."""
_METRES = 1 / 5000
_CALIBRATIONS: dict[str, Calibration] = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
_DYNAMIC = tuple(
    f"rgbd_dataset_freiburg3_{action}_{motion}"
    for action in ("sitting", "walking")
    for motion in ("static", "xyz", "halfsphere", "rpy")
)


class RecordedFrame(NamedTuple):
    """Where the files of one frame are; a string in an index."""

    folder: str
    """Of the sequence, relative to the root."""
    image: str
    """Relative to `folder`, as all files."""
    depth: str | None
    pose: int | None
    """Row of the trajectory."""

    def encode(self) -> str:
        """The frame as a string; only the folder may hold blanks."""
        return " ".join("-" if field is None else str(field) for field in self)

    @classmethod
    def decode(cls, text: str) -> "RecordedFrame":
        """Inverse of `encode`."""
        folder, image, depth, pose = text.rsplit(" ", 3)
        return cls(folder, image, None if depth == "-" else depth, None if pose == "-" else int(pose))


class TUM(SceneReader):
    """The RGB-D benchmark of TUM (CC BY 4.0): videos of 640x480 at 30 Hz, with the path of the camera at 100 to 300 Hz.

    Layout of a sequence, as distributed:

        <root>/**/rgbd_dataset_freiburg3_walking_xyz/
            rgb.txt             timestamp and file per line
            rgb/*.png           8-bit RGB
            depth.txt           as rgb.txt
            depth/*.png         16-bit, 1/5000 m, 0 where nothing was measured; registered to RGB
            groundtruth.txt     timestamp tx ty tz qx qy qz qw per line: camera-to-world, metres, OpenCV axes

    The three streams have clocks of their own. Frames are the images that have a pose, in order of time: closest pairs
    first, less than 0.02 s apart, every pose for one image at most (`associate`). Each has the depth that is nearest in
    time, also less than 0.02 s away, or none; without depth.txt, no frame has depth. Listed depth maps that are missing
    are not used, with a warning; a listed image that is missing makes the sequence unreadable.

    The camera follows from the name of the folder, which holds freiburg1, 2 or 3; 0.5 is added to the principal point,
    as the calibration has the centre of pixel i at i. Images of freiburg1 and 2 are distorted (coefficients 0.2624,
    -0.9531, -0.0054, 0.0026, 1.1633 and 0.2312, -0.7849, -0.0033, -0.0001, 0.9172) and are given as stored, those of
    freiburg3 are rectified. Images of another size are taken to be resized.

    Sequences are called as their folders, at whatever depth these are. `sequence_lists["pose"]` is TUM-dynamics: eight
    sequences, of which evaluations take every third frame, 90 in all (`FrameChoice(stride=3, count=90)`).

    Args:
        root: Folder that holds the folders of the sequences at any depth, or one of these.

    Raises:
        DatasetNotFoundError: If there is no such folder.

    Source: cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats (layout, calibration); Junyi42/monst3r
    datasets_preprocess/prepare_tum.py (frames).
    """

    expected = "folders such as rgbd_dataset_freiburg3_walking_xyz with rgb.txt, depth.txt, groundtruth.txt (TUM RGB-D)"
    markers = ("rgb.txt", "groundtruth.txt")
    descriptions: ClassVar[tuple[str, ...]] = ("depth.txt",)
    sequence_lists: ClassVar = {"pose": _DYNAMIC}

    def find(self) -> Iterable[Path]:
        """Folders of sequences.

        Raises:
            ValueError: If two of them have the same name.
        """
        found: dict[str, Path] = {}
        for path in super().find():
            other = found.setdefault(self.name_of(path), path)
            if other is not path:
                raise ValueError(
                    f"{other} and {path} are both the sequence {self.name_of(path)}; set `root` so that it holds one"
                )
        return found.values()

    def name_of(self, folder: Path) -> str:
        """The name of the folder itself."""
        return (folder.resolve() if folder == self.root else folder).name

    def open_sequence(self, path: Path) -> SceneSequence:
        """The images that have a pose.

        Raises:
            MediaReadError: If the camera is not known, a text file is broken, a listed image is missing, or no image
                has a pose.
        """
        self.calibration(path)
        images = self._images(path)
        trajectory = read_trajectory(path / "groundtruth.txt")
        pairs = associate(images.stamps, trajectory.stamps)
        if not len(pairs):
            raise MediaReadError(path / "rgb.txt", f"no image has a pose within {MAX_DIFFERENCE} s in groundtruth.txt")
        depths = self._depths(path)
        closest = nearest(images.stamps[pairs[:, 0]], depths.stamps)
        frames = [
            self.frame(path, images.files[image], depths.files[depth] if depth >= 0 else None, pose)
            for (image, pose), depth in zip(pairs.tolist(), closest.tolist(), strict=True)
        ]
        _warn(path, len(images.files) - len(frames), len(images.files), f"no pose within {MAX_DIFFERENCE} s; skipped")
        _warn(path, int((closest < 0).sum()), len(frames), f"no depth within {MAX_DIFFERENCE} s")
        return SceneSequence(self.name_of(path), frames)

    def frame(self, path: Path, image: str, depth: str | None, pose: int | None) -> str:
        """A frame of the sequence in a folder as it stands in the index."""
        return RecordedFrame(path.relative_to(self.root).as_posix(), image, depth, pose).encode()

    def read(self, sequence: SceneSequence, positions: Sequence[int]) -> list[SceneFrame]:
        """Frames as stored.

        Raises:
            MediaReadError: If a file is broken, or image and depth differ in size.
        """
        return [self._read(RecordedFrame.decode(sequence.frames[position])) for position in positions]

    def read_without_depth(self, sequence: SceneSequence, positions: Sequence[int]) -> list[SceneFrame]:
        """Images and cameras.

        Raises:
            MediaReadError: If a file is broken.
        """
        frames = [RecordedFrame.decode(sequence.frames[position]) for position in positions]
        return [self._read(frame._replace(depth=None)) for frame in frames]

    def _read(self, frame: RecordedFrame) -> SceneFrame:
        folder = self.root / frame.folder
        image = read_image(folder / frame.image, upright=False)
        size = image.shape[-2], image.shape[-1]
        depth = None
        if frame.depth is not None:
            depth = read_depth_png(folder / frame.depth, scale=_METRES, invalid=(0,))
            if depth.shape != size:
                raise MediaReadError(folder / frame.depth, f"depth of {tuple(depth.shape)} for an image of {size}")
        return SceneFrame(
            image=image,
            depth=depth,
            intrinsics=_intrinsics(folder / frame.image, self.calibration(folder), size),
            camera_to_world=torch.tensor(self.camera_to_world(folder, frame.pose)),
        )

    def calibration(self, folder: Path) -> Calibration:
        """The calibration of a sequence's camera.

        Raises:
            MediaReadError: If the name of the folder does not say which camera it is.
        """
        camera = re.search(r"freiburg[123]", self.name_of(folder))
        if camera is None:
            raise MediaReadError(
                folder, "the camera is not known; the name of a folder of TUM holds freiburg1, freiburg2 or freiburg3"
            )
        return _CALIBRATIONS[camera.group()]

    def camera_to_world(self, folder: Path, row: int | None) -> Float64[np.ndarray, "4 4"]:
        """The pose of a row of the trajectory; NaN without a row."""
        return np.full((4, 4), np.nan) if row is None else read_trajectory(folder / "groundtruth.txt").pose(row)

    def _images(self, path: Path) -> TimedFiles:
        images = read_file_list(path / "rgb.txt")
        if missing := _missing(path, images.files):
            raise MediaReadError(
                path / "rgb.txt", f"{len(missing)} of {len(images.files)} images are missing, such as {missing[0]}"
            )
        return images

    def _depths(self, path: Path) -> TimedFiles:
        """The depth maps that are there."""
        if not (path / "depth.txt").is_file():
            return TimedFiles(np.empty(0), [])
        depths = read_file_list(path / "depth.txt")
        missing = set(_missing(path, depths.files))
        _warn(path / "depth.txt", len(missing), len(depths.files), "no file", "depth maps")
        kept = [position for position, file in enumerate(depths.files) if file not in missing]
        return TimedFiles(depths.stamps[kept], [depths.files[position] for position in kept])


def _missing(folder: Path, files: Sequence[str]) -> list[str]:
    """Those of the files that are not there; every folder is listed once."""
    places = {file: folder / file for file in files}
    there = {parent: _names(parent) for parent in {place.parent for place in places.values()}}
    return [file for file, place in places.items() if place.name not in there[place.parent]]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _warn(path: Path, count: int, total: int, problem: str, what: str = "images") -> None:
    if count:
        logger.warning("%s: %d of %d %s have %s", path, count, total, what, problem)


def _intrinsics(image: Path, calibration: Calibration, size: tuple[int, int]) -> Float64[Tensor, "3 3"]:
    height, width = CALIBRATED_SIZE
    if size[0] * width != size[1] * height:
        raise MediaReadError(
            image, f"{size[1]}x{size[0]} pixels; the calibration is for {width}x{height} and images resized from it"
        )
    intrinsics = make_intrinsics(*torch.tensor(calibration, dtype=torch.float64).unbind())
    return resize_intrinsics(from_opencv_intrinsics(intrinsics), CALIBRATED_SIZE, size)
