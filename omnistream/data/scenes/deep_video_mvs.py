"""Sequences in the layout of ardaduz/deep-video-mvs, recorded with a head-worn camera."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from omnistream.cameras import from_opencv_intrinsics
from omnistream.data.media.depth import read_depth_png
from omnistream.data.media.errors import MediaReadError
from omnistream.data.scenes.base import SceneDataset
from omnistream.data.scenes.sequence import SceneSequence, read_matrix, usable_frames


class DeepVideoMVS(SceneDataset):
    """Clips from folders such as `hololens-dataset/000` of deep-video-mvs (MIT licence).

    Layout of a sequence:

        K.txt               3x3 intrinsics of the pictures; the authors' code puts the centre of pixel i at i
        poses.txt           one row per picture in sorted order: 4x4 camera-to-world, row by row, metres, OpenCV axes
        images/00003.png    8-bit RGB
        depth/00003.png     16-bit, millimetres, 0 where nothing was measured

    The training part is the first 80 % of every sequence, the held-out part the rest (the authors state no split).
    Arguments and errors are those of `SceneDataset`.

    Source: ardaduz/deep-video-mvs: sample-data/hololens-dataset, dvmvs/dataset_loader.py.
    """

    looked_for = "folders with K.txt, poses.txt, images/ and depth/ (deep-video-mvs)"

    @staticmethod
    def find_sequences(root: Path) -> list[SceneSequence]:
        """Sequences at any depth below the folder.

        Raises:
            MediaReadError: If K.txt or poses.txt is broken, or the number of poses is not that of pictures.
        """
        folders = sorted(path.parent for path in root.rglob("K.txt"))
        return [_read_sequence(folder, root) for folder in folders if _is_sequence(folder)]


def _is_sequence(folder: Path) -> bool:
    return (folder / "poses.txt").is_file() and (folder / "images").is_dir() and (folder / "depth").is_dir()


def _read_sequence(folder: Path, root: Path) -> SceneSequence:
    images = tuple(sorted((folder / "images").glob("*.png")))
    poses = read_matrix(folder / "poses.txt", (-1, 4, 4))
    if len(poses) != len(images):
        raise MediaReadError(folder / "poses.txt", f"has {len(poses)} poses for {len(images)} pictures")
    opencv = torch.from_numpy(read_matrix(folder / "K.txt", (3, 3)))
    return usable_frames(
        SceneSequence(
            name=str(folder.relative_to(root.parent)),
            images=images,
            depths=tuple(folder / "depth" / image.name for image in images),
            intrinsics=np.tile(from_opencv_intrinsics(opencv).numpy(), (len(images), 1, 1)),
            camera_to_world=poses,
            read_depth=partial(read_depth_png, scale=0.001, invalid=(0,)),
        )
    )
