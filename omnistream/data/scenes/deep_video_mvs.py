"""Sequences in the layout of ardaduz/deep-video-mvs, recorded with a head-worn camera."""

from collections.abc import Sequence
from pathlib import Path

import torch

from omnistream.cameras import from_opencv_intrinsics
from omnistream.data.batch import SceneFrame
from omnistream.data.media import MediaReadError, read_depth_png, read_image
from omnistream.data.scenes.index_cache import SceneSequence
from omnistream.data.scenes.reader import SceneReader, is_rigid, read_matrix, usable_frames


class DeepVideoMVS(SceneReader):
    """Folders such as `hololens-dataset/000` of deep-video-mvs (MIT licence).

    Layout of a sequence:

        K.txt               3x3 intrinsics of the images; the authors' code puts the centre of pixel i at i
        poses.txt           one row per image in sorted order: 4x4 camera-to-world, row by row, metres, OpenCV axes
        images/00003.png    8-bit RGB
        depth/00003.png     16-bit, millimetres, 0 where nothing was measured

    The authors state no split.

    Source: ardaduz/deep-video-mvs: sample-data/hololens-dataset, dvmvs/dataset_loader.py.
    """

    expected = "folders with K.txt, poses.txt, images/ and depth/ (deep-video-mvs)"
    markers = ("K.txt", "poses.txt")

    def open_sequence(self, path: Path) -> SceneSequence:
        """The frames with depth and pose, by the names of their images.

        Raises:
            MediaReadError: If K.txt or poses.txt is broken, or the number of poses is not that of images.
        """
        read_matrix(path / "K.txt", (3, 3))
        names = _image_names(path)
        poses = read_matrix(path / "poses.txt", (-1, 4, 4))
        if len(poses) != len(names):
            raise MediaReadError(path / "poses.txt", f"has {len(poses)} poses for {len(names)} images")
        good = (is_rigid(pose) and (path / "depth" / name).is_file() for name, pose in zip(names, poses, strict=True))
        return SceneSequence(self.name_of(path), usable_frames(path, names, good))

    def read(self, sequence: SceneSequence, positions: Sequence[int]) -> list[SceneFrame]:
        """Frames as stored."""
        folder = self.root / sequence.name
        row = {name: number for number, name in enumerate(_image_names(folder))}
        intrinsics = from_opencv_intrinsics(torch.tensor(read_matrix(folder / "K.txt", (3, 3))))
        poses = read_matrix(folder / "poses.txt", (-1, 4, 4))
        return [
            SceneFrame(
                image=read_image(folder / "images" / name, upright=False),
                depth=read_depth_png(folder / "depth" / name, scale=0.001, invalid=(0,)),
                intrinsics=intrinsics,
                camera_to_world=torch.tensor(poses[row[name]]),
            )
            for name in (sequence.frames[position] for position in positions)
        ]


def _image_names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "images").glob("*.png"))
