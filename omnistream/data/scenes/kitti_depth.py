"""KITTI: drives of a car with the depth of its laser scanner."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from omnistream.cameras import from_opencv_intrinsics
from omnistream.data.batch import SceneFrame
from omnistream.data.folders import walk_folders
from omnistream.data.media import MediaReadError, read_depth_png, read_image
from omnistream.data.scenes.index_cache import SceneSequence
from omnistream.data.scenes.reader import SceneReader, check_same_size, unknown_camera

_VAL_DRIVES = (
    "2011_09_26_drive_0002", "2011_09_26_drive_0005", "2011_09_26_drive_0013", "2011_09_26_drive_0020",
    "2011_09_26_drive_0023", "2011_09_26_drive_0036", "2011_09_26_drive_0079", "2011_09_26_drive_0095",
    "2011_09_26_drive_0113", "2011_09_28_drive_0037", "2011_09_29_drive_0026", "2011_09_30_drive_0016",
    "2011_10_03_drive_0047",
)  # fmt: skip
_DRIVE = r"(?P<drive>(?P<date>\d{4}_\d\d_\d\d)_drive_\d{4})_sync"
_ANNOTATED = re.compile(rf"(?:^|/){_DRIVE}/proj_depth/groundtruth/image_(?P<camera>0[23])$")
_GATHERED = re.compile(rf"(?:^|/)groundtruth_depth_gathered/{_DRIVE}_(?P<camera>0[23])$")


class _Drive(NamedTuple):
    """What the path of a folder of depth maps says."""

    date: str
    drive: str
    camera: str
    is_gathered: bool

    @property
    def name(self) -> str:
        """Published name of the sequence."""
        return f"{self.drive}_sync_{self.camera}"


class KITTIDepth(SceneReader):
    """The drives of KITTI's depth benchmark (CC BY-NC-SA 3.0): 138 for training and 13 for validation.

    Depth (`data_depth_annotated.zip`) and images (a zip per drive and a calibration per day of KITTI's raw data),
    unpacked or linked into one folder:

        <root>/val/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000005.png     16-bit
        <root>/2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000005.png                8-bit RGB
        <root>/2011_09_26/calib_cam_to_cam.txt                                                   P_rect_02, P_rect_03

    `train` and `val` may lie at any depth; the days also in `<root>/raw`. Or as the evaluations of MonST3R and CUT3R
    copy the first 110 frames of the validation drives (the tree above is preferred where both have the images):

        <root>/**/groundtruth_depth_gathered/2011_09_26_drive_0002_sync_02/0000000005.png
        <root>/**/image_gathered/2011_09_26_drive_0002_sync_02/0000000005.png

    Metres are stored values / 256; 0 where nothing was measured, which is most of the image: lidar scans of 11 frames,
    checked against stereo. A sequence is a drive seen by the left (02) or right (03) colour camera. Its frames are
    those with depth, by name; the first and last ones of a drive have none. An image that is missing for one of them is
    an error, because it would shift the others.

    K is the left part of P_rect, whose pixel centres are taken to be at i as in OpenCV. It is NaN where the day's
    calib_cam_to_cam.txt is not there. Poses are NaN: the benchmark states none. So `SceneClips` refuses this reader.

    Published evaluations of video depth take the list `depth`, which is camera 02 of the validation drives, the first
    110 frames (`FrameChoice(count=110)`), and depth without a limit. Sizes differ from day to day, about 1242x375.

    Args:
        root: Folder of depth and images.
        split: `train` or `val` of the depth benchmark; null takes every drive.

    Raises:
        DatasetNotFoundError: If there is no such folder.

    Source: KITTI's depth devkit (readme.txt); Junyi42/monst3r: data/download_kitti.sh,
        datasets_preprocess/prepare_kitti.py.
    """

    expected = (
        "KITTI's {train,val}/<drive>_sync/proj_depth/groundtruth/image_02 and raw <date>/<drive>_sync/image_02/data, "
        "or groundtruth_depth_gathered/<drive>_sync_02 beside image_gathered"
    )
    descriptions = ("calib_cam_to_cam.txt",)
    splits = ("train", "val")
    sequence_lists = {"depth": tuple(f"{drive}_sync_02" for drive in _VAL_DRIVES)}
    has_all_cameras = False

    def find(self) -> Iterable[Path]:
        """Folders of depth maps, one per drive and camera."""
        found: dict[str, Path] = {}
        for path, drive in self._depth_folders():
            if self.split is not None and (drive.drive in _VAL_DRIVES) != (self.split == "val"):
                continue
            if drive.name not in found or (not drive.is_gathered and self._images(path, drive).is_dir()):
                found[drive.name] = path
        return found.values()

    def _depth_folders(self) -> Iterator[tuple[Path, _Drive]]:
        both = [(self.root / folder, _parse(self.root / folder)) for folder, _ in walk_folders(self.root)]
        drives = [(path, drive) for path, drive in both if drive is not None]
        yield from sorted(drives, key=lambda item: not item[1].is_gathered)

    def published_name(self, name: str) -> str:
        """Drive and camera, such as 2011_09_26_drive_0002_sync_02."""
        drive = _parse(self.root / name)
        return name if drive is None else drive.name

    def open_sequence(self, path: Path) -> SceneSequence:
        """The frames with depth, by the names of their files.

        Raises:
            MediaReadError: If an image is missing, or the calibration is broken.
        """
        drive = _drive_of(path)
        images = self._images(path, drive)
        names = sorted(file.name for file in path.glob("*.png"))
        if not images.is_dir():
            raise MediaReadError(path, f"no images of this drive: there is no folder {images}")
        if missing := sorted(set(names) - {file.name for file in images.glob("*.png")}):
            raise MediaReadError(path / missing[0], f"has no image in {images} ({len(missing)} of {len(names)} frames)")
        self._intrinsics(drive)
        return SceneSequence(self.name_of(path), names)

    def read(self, sequence: SceneSequence, positions: Sequence[int]) -> list[SceneFrame]:
        """Frames as stored."""
        path = self.root / sequence.name
        drive = _drive_of(path)
        images, intrinsics = self._images(path, drive), self._intrinsics(drive)
        return [
            _frame(path / name, images / name, intrinsics)
            for name in (sequence.frames[position] for position in positions)
        ]

    def _raw(self, *parts: str) -> Path:
        """A path in the raw data; the one directly below the root if there is none."""
        first, other = self.root.joinpath(*parts), self.root.joinpath("raw", *parts)
        return other if other.exists() and not first.exists() else first

    def _images(self, depth: Path, drive: _Drive) -> Path:
        if drive.is_gathered:
            return depth.parent.parent / "image_gathered" / depth.name
        return self._raw(drive.date, f"{drive.drive}_sync", f"image_{drive.camera}", "data")

    def _intrinsics(self, drive: _Drive) -> Float64[Tensor, "3 3"]:
        path = self._raw(drive.date, "calib_cam_to_cam.txt")
        if not path.exists():
            return unknown_camera(3)
        return from_opencv_intrinsics(torch.tensor(_read_projection(path, f"P_rect_{drive.camera}")[:, :3]))


def _frame(depth_path: Path, image_path: Path, intrinsics: Float64[Tensor, "3 3"]) -> SceneFrame:
    image = read_image(image_path, upright=False)
    depth = read_depth_png(depth_path, scale=1 / 256, invalid=(0,))
    check_same_size(depth_path, depth, image)
    return SceneFrame(image=image, depth=depth, intrinsics=intrinsics, camera_to_world=unknown_camera(4))


def _parse(path: Path) -> _Drive | None:
    text = path.as_posix()
    found = _ANNOTATED.search(text) or _GATHERED.search(text)
    return found and _Drive(found["date"], found["drive"], found["camera"], found.re is _GATHERED)


def _drive_of(path: Path) -> _Drive:
    drive = _parse(path)
    assert drive is not None, path  # `find` gives no other folders
    return drive


def _read_projection(path: Path, name: str) -> Float64[np.ndarray, "3 4"]:
    """One 3x4 matrix of a calibration file, which has lines `name: numbers`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        (line,) = (line for line in lines if line.startswith(f"{name}:"))
        return np.array(line.partition(":")[2].split(), np.float64).reshape(3, 4)
    except (OSError, ValueError) as error:
        raise MediaReadError(path, f"expected one line `{name}:` with 12 numbers ({error})") from error
