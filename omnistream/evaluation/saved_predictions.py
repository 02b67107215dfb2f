"""Geometry that another program has written to files, evaluated like that of a streaming model."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from omnistream.cameras import make_pose, matrix_from_quaternion
from omnistream.evaluation.environment import file_sha256


class SavedFrame(NamedTuple):
    """One frame's predictions: a `FrameGeometry`. What was not predicted is NaN."""

    depth: Float[Tensor, "H W"]
    camera_to_world: Float[Tensor, "4 4"]
    intrinsics: Float[Tensor, "3 3"]


class SavedPredictions:
    """One video's predictions in a folder, one frame per step: `StreamingGeometry` without a model.

    The folder holds depth, camera poses or both, one per frame:

        depth/*.npy or *.npy    z-depth [H, W], in the order of the numbers in the names (CUT3R: frame_0000.npy)
        poses.txt               camera-to-world, one of these per line, by the number of its values:
                                  16 or 12  a row-major 4x4 or 3x4 matrix
                                  8         timestamp tx ty tz qx qy qz qw (TUM), in order of time
        intrinsics.txt          a row-major 3x3 K per line, or one line for all frames; only point clouds need it

    CUT3R's pred_traj.txt also has 8 values, but begins its quaternions with qw: reorder them.

    What is not there is NaN and named in `missing`, so that an evaluation that needs it refuses the folder.

    Args:
        folder: Of one video.

    Raises:
        FileNotFoundError: If there is neither depth nor a file of poses.
        ValueError: If the number of maps, poses and intrinsics differ, a line has another number of values, or
            timestamps do not increase.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).expanduser()
        self._maps = _in_order(self.folder / "depth") or _in_order(self.folder)
        poses, intrinsics = self.folder / "poses.txt", self.folder / "intrinsics.txt"
        places = {"depth": f"{self.folder / 'depth'}/*.npy or {self.folder}/*.npy", "poses": str(poses)}
        found = {"depth": bool(self._maps), "poses": poses.is_file()}
        if not any(found.values()):
            raise FileNotFoundError(f"no predictions: there is no {' and no '.join(places.values())}")
        places, found = places | {"intrinsics": str(intrinsics)}, found | {"intrinsics": intrinsics.is_file()}
        self.missing = {part: place for part, place in places.items() if not found[part]}
        """Files that are not there, by what they would hold: `depth`, `poses` or `intrinsics`."""
        self._poses = _poses(poses) if found["poses"] else torch.full((len(self._maps), 4, 4), torch.nan)
        num_frames = len(self._maps or self._poses)
        self._intrinsics = _intrinsics(intrinsics, num_frames)
        if not num_frames == len(self._poses) == len(self._intrinsics):
            raise ValueError(
                f"{self.folder} holds {len(self._maps)} depth maps, {len(self._poses)} poses and "
                f"{len(self._intrinsics)} intrinsics; there must be one of each per frame"
            )
        self._next = 0

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._poses)

    @property
    def num_read(self) -> int:
        """Frames whose predictions were given out."""
        return self._next

    def reset(self) -> None:
        """Start again from the first frame."""
        self._next = 0

    def step(self, images: UInt8[Tensor, "S 3 H W"]) -> list[SavedFrame]:
        """The next predictions, as many as there are images, of which only the size is used, for depth that is missing.

        Raises:
            ValueError: If there are fewer predictions than frames, or a file is not a depth map.
        """
        first, self._next = self._next, self._next + len(images)
        if self._next > len(self):
            raise ValueError(f"{self.folder} has predictions of {len(self)} frames; frame {self._next - 1} was asked")
        unknown = torch.full(images.shape[-2:], torch.nan)
        return [
            SavedFrame(self._depth(i) if self._maps else unknown, self._poses[i], self._intrinsics[i])
            for i in range(first, self._next)
        ]

    def _depth(self, index: int) -> Tensor:
        path = self._maps[index]
        values = np.load(path, allow_pickle=False)
        if values.ndim != 2:
            raise ValueError(f"{path}: expected a depth map [H, W], got shape {values.shape}")
        return torch.from_numpy(values.astype(np.float32))


class SavedVideos(nn.Module):
    """Predictions for all videos of a benchmark, in a folder per video: a `StreamingGeometry` for whole evaluations.

    Args:
        folder: Holds a folder for `SavedPredictions` per video, named like the video.
        name: Of the model in results and reports; by default that of the folder.

    Raises:
        FileNotFoundError: If there is no such folder.
    """

    def __init__(self, folder: Path | str, name: str | None = None) -> None:
        super().__init__()
        self.folder = str(folder)
        self._folder = Path(folder).expanduser()
        if not self._folder.is_dir():
            raise FileNotFoundError(f"no folder of predictions at {folder}")
        self.name = name or self._folder.resolve().name
        self._video: SavedPredictions | None = None

    def open(self, name: str) -> None:
        """Go to the predictions of a video.

        Raises:
            FileNotFoundError: If there are none.
            ValueError: See `SavedPredictions`.
        """
        self._video = SavedPredictions(self._folder / name)

    def settings(self) -> dict[str, str]:
        """Name and folder: a model without weights is known by them."""
        return {"name": self.name, "folder": str(self._folder.resolve())}

    def predictions_sha256(self, name: str) -> str:
        """SHA-256 of the names and contents of a video's files, by which an evaluation knows whether they changed."""
        folder, digest = self._folder / name, hashlib.sha256()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
        return digest.hexdigest()

    @property
    def missing(self) -> Mapping[str, str]:
        """See `SavedPredictions`: of the video that is open."""
        return {} if self._video is None else self._video.missing

    @property
    def num_left(self) -> int:
        """Predictions of the video that were not asked for yet."""
        return 0 if self._video is None else len(self._video) - self._video.num_read

    def reset(self) -> None:
        """Start again from the first frame of the video."""
        if self._video is not None:
            self._video.reset()

    def step(self, images: UInt8[Tensor, "S 3 H W"]) -> list[SavedFrame]:
        """The next predictions.

        Raises:
            ValueError: If no video is open, or it has too few predictions.
        """
        if self._video is None:
            raise ValueError("no video is open: call open with its name")
        return self._video.step(images)


def _in_order(folder: Path) -> list[Path]:
    """The maps in a folder, by the numbers in their names: `frame_9` is before `frame_10`."""
    maps = [path for path in folder.glob("*.npy") if path.is_file()]
    return sorted(maps, key=lambda path: [int(part) if part.isdecimal() else part for part in _parts(path.stem)])


def _parts(name: str) -> list[str]:
    """Text and digits in turn, beginning with text."""
    return re.split(r"([0-9]+)", name)


def _poses(path: Path) -> Tensor:
    values = _table(path, (8, 12, 16))
    if values.shape[1] == 8:
        if len(late := (values[1:, 0] <= values[:-1, 0]).nonzero()):
            raise ValueError(f"{path}: the timestamp of row {int(late[0]) + 2} is not later than the one before")
        return make_pose(matrix_from_quaternion(values[:, 4:]), values[:, 1:4])
    poses = values.view(len(values), -1, 4)
    if poses.shape[1] == 3:
        bottom = values.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(poses), 1, 4)
        poses = torch.cat([poses, bottom], dim=1)
    return poses


def _intrinsics(path: Path, num_frames: int) -> Tensor:
    """NaN without the file."""
    if not path.is_file():
        return torch.full((num_frames, 3, 3), torch.nan)
    found = _table(path, (9,)).view(-1, 3, 3)
    return found.expand(num_frames, 3, 3) if len(found) == 1 else found


def _table(path: Path, columns: tuple[int, ...]) -> Tensor:
    """Numbers of a text file, one row per line that is not empty or a comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    wrong = [number for number, row in enumerate(rows, start=1) if len(row) not in columns or len(row) != len(rows[0])]
    if wrong or not rows:
        wanted = " or ".join(map(str, columns))
        raise ValueError(
            f"{path}: expected {wanted} numbers per line" + (f"; row {wrong[0]} has others" if wrong else "")
        )
    try:
        return torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
