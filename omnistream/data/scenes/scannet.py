"""ScanNet v2: RGB-D videos of rooms."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from omnistream.data.batch import SceneFrame
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import walk_folders
from omnistream.data.media import MediaReadError, read_depth_png, read_image
from omnistream.data.media.sens import read_sens_frame, read_sens_header, read_sens_poses
from omnistream.data.scenes.index_cache import SceneSequence
from omnistream.data.scenes.reader import (
    SceneReader,
    is_rigid,
    logger,
    read_matrix,
    unknown_camera,
    usable_frames,
)
from omnistream.data.splits import Split

_LOST_TRACKING = frozenset({711, 737, 750, 761, 791, 796})
"""Test scenes with a pose of -inf among the 90 frames of the published evaluation."""


class ScanNet(SceneReader):
    """ScanNet v2 (ScanNet Terms of Use, non-commercial): 1513 RGB-D videos of rooms, and 100 for testing.

    Scenes as distributed, or as exported by the authors' reader (preferred where both exist):

        <root>/**/scene0000_00.sens                       all frames in one file
        <root>/**/scene0000_00/color/0.jpg                8-bit RGB, 1296x968
                               depth/0.png                16-bit, millimetres, 640x480, 0 where nothing was measured
                               pose/0.txt                 4x4 camera-to-world, metres, OpenCV axes; -inf: tracking lost
                               intrinsic/intrinsic_color.txt, intrinsic_depth.txt       4x4
        <root>/scannetv2_train.txt, scannetv2_val.txt, scannetv2_test.txt

    The lists of scenes are the authors' (`Tasks/Benchmark` of ScanNet/ScanNet: 1201, 312 and 100 scenes); they may also
    be in `<root>/Tasks/Benchmark`. Without a split they are not needed.

    Colour and depth have a K each, and share centre and axes: according to the authors, no extrinsics are needed.
    Both K are used as stored; whether they count from the corner or the centre of the first pixel is not documented.
    Frames without tracking are left out.

    Published evaluations of poses take frames `[:270:3]` of the test scenes, counted over all frames of a scene in the
    order of their numbers: set `all_frames`, and `FrameChoice(stop=270, stride=3)`. Their list `pose` has 94 of the 100
    scenes: 0711, 0737, 0750, 0761, 0791 and 0796 lose tracking within these frames, which leaves no trajectory to
    compare with. MonST3R leaves them out by name, CUT3R because evo fails on them.

    Args:
        root: Folder that holds the scenes at any depth.
        split: `train`, `val` or `test` of the authors; null takes every scene.
        all_frames: Also frames without tracking, with a pose of NaN, so that positions count every frame. A missing
            depth map or pose file is then an error when the frame is read. For evaluations only.

    Raises:
        DatasetNotFoundError: If there is no such folder.

    Source: ScanNet/ScanNet: README.md, SensReader/python/SensorData.py, issue 92 (extrinsics). Evaluation:
        Junyi42/monst3r: datasets_preprocess/prepare_scannet.py, issue 29.
    """

    expected = (
        "ScanNet scenes: scene*.sens files, or folders with color/, depth/, pose/ and intrinsic/, beside "
        "scannetv2_{train,val,test}.txt if a split is wanted"
    )
    descriptions = ("*.sens", "intrinsic_color.txt", "intrinsic_depth.txt", "scannetv2_*.txt")
    splits = ("train", "val", "test")
    sequence_lists = {"pose": tuple(f"scene{n:04d}_00" for n in range(707, 807) if n not in _LOST_TRACKING)}

    def __init__(self, root: str | os.PathLike[str], split: Split | None = None, *, all_frames: bool = False) -> None:
        super().__init__(root, split)
        self.all_frames = all_frames
        self.has_all_cameras = not all_frames

    def index_options(self) -> tuple[str, ...]:
        """Whether frames without tracking count."""
        return ("all frames",) if self.all_frames else ()

    def published_name(self, name: str) -> str:
        """Of the scene, such as scene0707_00."""
        return Path(super().published_name(name)).name.removesuffix(".sens")

    def find(self) -> Iterable[Path]:
        """Exported folders and `.sens` files, one per scene."""
        files: dict[str, Path] = {}
        exported: dict[str, Path] = {}
        for folder, names in walk_folders(self.root):
            files |= {name.removesuffix(".sens"): self.root / folder / name for name in names if name.endswith(".sens")}
            if folder and "intrinsic_color.txt" in names:
                scene = (self.root / folder).parent
                exported[(scene.resolve() if scene == self.root else scene).name] = scene
        scenes = files | exported
        if self.split is None:
            return scenes.values()
        wanted = self._split_list(self.split)
        if missing := [name for name in wanted if name not in scenes]:
            logger.warning(
                "%d of the %d scenes of the %s split are not below %s, such as %s",
                len(missing), len(wanted), self.split, self.root, missing[0],
            )  # fmt: skip
        return [scenes[name] for name in wanted if name in scenes]

    def _split_list(self, split: Split) -> list[str]:
        name = f"scannetv2_{split}.txt"
        for path in (self.root / name, self.root / "Tasks" / "Benchmark" / name):
            if path.is_file():
                return path.read_text(encoding="utf-8").split()
        raise DatasetNotFoundError(
            f"{self.root} holds no {name}", f"the list of scenes from ScanNet/ScanNet: Tasks/Benchmark/{name}"
        )

    def open_sequence(self, path: Path) -> SceneSequence:
        """The frames with depth and tracking: their numbers, in a `.sens` file with the place of each.

        Raises:
            MediaReadError: If the intrinsics, a pose or the `.sens` file is broken.
        """
        if path.suffix == ".sens":
            header = read_sens_header(path)
            _check_intrinsics(path, header.color_intrinsics, header.depth_intrinsics)
            poses = read_sens_poses(header)
            names = [f"{number}@{place}" for number, (place, _) in enumerate(poses)]
            good = (self.all_frames or is_rigid(pose) for _, pose in poses)
        else:
            _check_intrinsics(path, *(_intrinsics(path, kind) for kind in ("color", "depth")))
            names = [file.stem for file in (path / "color").glob("*.jpg") if file.stem.isdecimal()]
            names.sort(key=int)
            good = (self.all_frames or _is_complete(path, name) for name in names)
        return SceneSequence(self.name_of(path), usable_frames(path, names, good))

    def read(self, sequence: SceneSequence, positions: Sequence[int]) -> list[SceneFrame]:
        """Frames as stored."""
        path = self.root / sequence.name
        read = _read_sens if path.suffix == ".sens" else _read_exported
        return read(path, [sequence.frames[position] for position in positions])


def _read_exported(folder: Path, names: list[str]) -> list[SceneFrame]:
    color, depth = (torch.tensor(_intrinsics(folder, kind)) for kind in ("color", "depth"))
    return [
        SceneFrame(
            image=read_image(folder / "color" / f"{name}.jpg", upright=False),
            depth=read_depth_png(folder / "depth" / f"{name}.png", scale=0.001, invalid=(0,)),
            intrinsics=color,
            camera_to_world=_pose(read_matrix(folder / "pose" / f"{name}.txt", (4, 4))),
            depth_intrinsics=depth,
        )
        for name in names
    ]


def _read_sens(path: Path, names: list[str]) -> list[SceneFrame]:
    header = read_sens_header(path)
    color, depth = torch.tensor(header.color_intrinsics), torch.tensor(header.depth_intrinsics)
    frames = [read_sens_frame(header, int(name.partition("@")[2])) for name in names]
    return [
        SceneFrame(
            image=image,
            depth=z_depth,
            intrinsics=color,
            camera_to_world=_pose(pose),
            depth_intrinsics=depth,
        )
        for image, z_depth, pose in frames
    ]


def _pose(stored: np.ndarray) -> Tensor:
    return torch.tensor(stored) if is_rigid(stored) else unknown_camera(4)


def _intrinsics(folder: Path, kind: str) -> np.ndarray:
    return read_matrix(folder / "intrinsic" / f"intrinsic_{kind}.txt", (4, 4))[:3, :3]


def _check_intrinsics(path: Path, *matrices: np.ndarray) -> None:
    for matrix in matrices:
        if not (np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
            raise MediaReadError(path, "intrinsics are not finite with positive focal lengths")


def _is_complete(folder: Path, name: str) -> bool:
    pose = folder / "pose" / f"{name}.txt"
    return pose.is_file() and (folder / "depth" / f"{name}.png").is_file() and is_rigid(read_matrix(pose, (4, 4)))
