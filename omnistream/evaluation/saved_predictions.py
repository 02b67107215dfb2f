"""Geometry that another program has written to files, evaluated like that of a streaming model."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from omnistream.evaluation.environment import file_sha256


class SavedFrame(NamedTuple):
    """One frame's predictions: a `FrameGeometry`."""

    depth: Float[Tensor, "H W"]
    camera_to_world: Float[Tensor, "4 4"]
    intrinsics: Float[Tensor, "3 3"]


class SavedPredictions:
    """One video's predictions in a folder, one frame per step: `StreamingGeometry` without a model.

    The folder holds `depth/*.npy` (or `*.npy`), one z-depth map [H, W] per frame, read in the order of their names;
    `poses.txt`, a row-major 4x4 or 3x4 camera-to-world matrix per line; and `intrinsics.txt`, a row-major 3x3 K per
    line, or one line for all frames.

    Args:
        folder: Of one video.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the number of maps, poses and intrinsics differ, or a line has another number of values.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).expanduser()
        self._maps = sorted((self.folder / "depth").glob("*.npy")) or sorted(self.folder.glob("*.npy"))
        if not self._maps:
            raise FileNotFoundError(f"no depth maps at {self.folder / 'depth'}/*.npy or {self.folder}/*.npy")
        self._poses = _poses(self.folder / "poses.txt")
        self._intrinsics = _table(self.folder / "intrinsics.txt", (9,)).view(-1, 3, 3)
        if len(self._intrinsics) == 1:
            self._intrinsics = self._intrinsics.expand(len(self._maps), 3, 3)
        if not len(self._maps) == len(self._poses) == len(self._intrinsics):
            raise ValueError(
                f"{self.folder} holds {len(self._maps)} depth maps, {len(self._poses)} poses and "
                f"{len(self._intrinsics)} intrinsics; there must be one of each per frame"
            )
        self._next = 0

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._maps)

    @property
    def num_read(self) -> int:
        """Frames whose predictions were given out."""
        return self._next

    def reset(self) -> None:
        """Start again from the first frame."""
        self._next = 0

    def step(self, images: UInt8[Tensor, "S 3 H W"]) -> list[SavedFrame]:
        """The next predictions, as many as there are images; the images are not used.

        Raises:
            ValueError: If there are fewer predictions than frames, or a file is not a depth map.
        """
        first, self._next = self._next, self._next + len(images)
        if self._next > len(self._maps):
            raise ValueError(
                f"{self.folder} has predictions of {len(self._maps)} frames; frame {self._next - 1} was asked"
            )
        return [SavedFrame(self._depth(i), self._poses[i], self._intrinsics[i]) for i in range(first, self._next)]

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
            FileNotFoundError: If there are none, or a file is missing.
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


def _poses(path: Path) -> Tensor:
    values = _table(path, (12, 16))
    poses = values.view(len(values), -1, 4)
    if poses.shape[1] == 3:
        bottom = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(len(poses), 1, 4)
        poses = torch.cat([poses, bottom], dim=1)
    return poses


def _table(path: Path, columns: tuple[int, ...]) -> Tensor:
    """Numbers of a text file, one row per line that is not empty or a comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    wrong = [number for number, row in enumerate(rows, start=1) if len(row) not in columns or len(row) != len(rows[0])]
    if wrong or not rows:
        wanted = " or ".join(str(number) for number in columns)
        raise ValueError(
            f"{path}: expected {wanted} numbers per line" + (f"; row {wrong[0]} has others" if wrong else "")
        )
    return torch.tensor([[float(value) for value in row] for row in rows])
