"""MPI Sintel: rendered scenes of a film, with exact depth and cameras."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch

from omnistream.data.batch import SceneFrame
from omnistream.data.media import read_image
from omnistream.data.media.sintel import read_cam, read_dpt
from omnistream.data.scenes.index_cache import SceneSequence
from omnistream.data.scenes.reader import SceneReader, check_same_size, unknown_camera, usable_frames

_POSE_SCENES = (
    "alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2", "market_5", "market_6", "shaman_3",
    "sleeping_1", "sleeping_2", "temple_2", "temple_3",
)  # fmt: skip
_OTHER_SCENES = (
    "alley_1", "ambush_2", "ambush_7", "bamboo_1", "bamboo_2", "bandage_1", "bandage_2", "mountain_1", "shaman_2",
)  # fmt: skip


class Sintel(SceneReader):
    """The 23 training scenes of MPI Sintel (film CC BY 3.0; flow data for research): 1064 frames of 1024x436.

    Images, and the archive with depth and cameras, unpacked into one folder:

        <root>/training/final/alley_1/frame_0001.png           8-bit RGB
        <root>/training/depth/alley_1/frame_0001.dpt           float32, metres
        <root>/training/camdata_left/alley_1/frame_0001.cam    intrinsics and world-to-camera

    Published evaluations of depth take all 23 scenes (list `depth`); those of poses the 14 (`pose`, 643 frames) whose
    camera neither stands still nor moves along a straight line. Both take every frame of the final pass.

    Depth beyond 70 m, such as the sky, is not used by the published evaluations. Whether the principal point counts
    from the corner or the centre of the first pixel is not documented; it is used as stored.

    Args:
        root: Folder that holds `training`, or `training` itself.
        render: `final`, with blur and atmosphere, as in the published evaluations, or `clean`.
        all_frames: Also frames without depth or camera: depth None, intrinsics and pose of NaN. For evaluations, whose
            models see every image; otherwise such frames are left out.

    Raises:
        DatasetNotFoundError: If there is no such folder.

    Source: sintel.is.tue.mpg.de/depth (sdk/python/sintel_io.py); CUT3R/CUT3R: eval/video_depth/launch.py,
        eval/relpose/metadata.py.
    """

    expected = "Sintel's folders training/final, training/depth and training/camdata_left, each with a folder per scene"
    markers = ("frame_*.png",)
    sequence_lists = {"depth": tuple(sorted(_POSE_SCENES + _OTHER_SCENES)), "pose": _POSE_SCENES}

    def __init__(
        self,
        root: str | os.PathLike[str],
        render: Literal["final", "clean"] = "final",
        *,
        all_frames: bool = False,
    ) -> None:
        super().__init__(root)
        self.render, self.all_frames = render, all_frames
        self.has_all_cameras = not all_frames
        self.training = self.root / "training" if (self.root / "training").is_dir() else self.root

    def index_options(self) -> tuple[str, ...]:
        """The kind of images, and whether all count."""
        return (self.render, *(("all frames",) if self.all_frames else ()))

    def find(self) -> Iterable[Path]:
        """Folders of images."""
        images = self.training / self.render
        return [path for path in images.iterdir() if path.is_dir()] if images.is_dir() else []

    def open_sequence(self, path: Path) -> SceneSequence:
        """The frames with depth and camera, or all.

        Raises:
            MediaReadError: If a camera is broken.
        """
        names = sorted(image.stem for image in path.glob("frame_*.png"))
        good = (self._has_geometry(path.name, name) for name in names)
        return SceneSequence(path.name, usable_frames(path, names, good, keep_all=self.all_frames))

    def read(self, sequence: SceneSequence, positions: Sequence[int]) -> list[SceneFrame]:
        """Frames as stored."""
        return [self._frame(sequence.name, sequence.frames[position]) for position in positions]

    def read_without_depth(self, sequence: SceneSequence, positions: Sequence[int]) -> list[SceneFrame]:
        """Images and cameras."""
        names = [sequence.frames[position] for position in positions]
        return [self._frame(sequence.name, name, with_depth=False) for name in names]

    def _frame(self, scene: str, name: str, with_depth: bool = True) -> SceneFrame:
        image = read_image(self._file(self.render, scene, name, "png"), upright=False)
        path, camera_path = self._file("depth", scene, name, "dpt"), self._file("camdata_left", scene, name, "cam")
        depth, intrinsics, pose = None, unknown_camera(3), unknown_camera(4)
        if camera_path.is_file() or not self.all_frames:
            camera = read_cam(camera_path)
            intrinsics, pose = torch.tensor(camera.intrinsics), torch.tensor(camera.camera_to_world)
        if with_depth and (path.is_file() or not self.all_frames):
            depth = read_dpt(path)
            check_same_size(path, depth, image)
        return SceneFrame(image=image, depth=depth, intrinsics=intrinsics, camera_to_world=pose)

    def _has_geometry(self, scene: str, name: str) -> bool:
        depth, camera = self._file("depth", scene, name, "dpt"), self._file("camdata_left", scene, name, "cam")
        if not (depth.is_file() and camera.is_file()):
            return False
        read_cam(camera)
        return True

    def _file(self, kind: str, scene: str, name: str, suffix: str) -> Path:
        return self.training / kind / scene / f"{name}.{suffix}"
