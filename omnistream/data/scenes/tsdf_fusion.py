"""Sequences in the layout of andyzeng/tsdf-fusion-python, which is also that of 7-Scenes."""

from functools import partial
from pathlib import Path

import numpy as np

from omnistream.data.media.depth import read_depth_png
from omnistream.data.scenes.base import SceneDataset
from omnistream.data.scenes.sequence import SceneSequence, read_matrix, usable_frames


class TSDFFusion(SceneDataset):
    """Clips from folders such as `data` of tsdf-fusion-python (frames of 7-Scenes, non-commercial research).

    Layout of a sequence:

        camera-intrinsics.txt       3x3, for colour and depth, which are taken as registered
        frame-000000.color.jpg      8-bit RGB (or .png)
        frame-000000.depth.png      16-bit, millimetres, 0 and 65535 where nothing was measured
        frame-000000.pose.txt       4x4 camera-to-world, metres, OpenCV axes

    The stated principal point (320, 240) is half of 640x480, so it is measured from the corner of the image and used as
    it is. The training part is the first 80 % of every sequence, the held-out part the rest (there is no official split
    of a single sequence). Arguments and errors are those of `SceneDataset`.

    Source: andyzeng/tsdf-fusion-python: demo.py.
    """

    looked_for = "folders with camera-intrinsics.txt and frame-*.color.jpg, .depth.png and .pose.txt (tsdf-fusion)"

    @staticmethod
    def find_sequences(root: Path) -> list[SceneSequence]:
        """Sequences at any depth below the folder.

        Raises:
            MediaReadError: If camera-intrinsics.txt or a pose is broken.
        """
        folders = sorted(path.parent for path in root.rglob("camera-intrinsics.txt"))
        return [_read_sequence(folder, root) for folder in folders if any(folder.glob("frame-*.color.*"))]


def _read_sequence(folder: Path, root: Path) -> SceneSequence:
    images = tuple(sorted(folder.glob("frame-*.color.*")))
    stems = [image.name.split(".", 1)[0] for image in images]
    intrinsics = read_matrix(folder / "camera-intrinsics.txt", (3, 3))
    return usable_frames(
        SceneSequence(
            name=str(folder.relative_to(root.parent)),
            images=images,
            depths=tuple(folder / f"{stem}.depth.png" for stem in stems),
            intrinsics=np.tile(intrinsics, (len(images), 1, 1)),
            camera_to_world=np.stack([_read_pose(folder / f"{stem}.pose.txt") for stem in stems]),
            read_depth=partial(read_depth_png, scale=0.001, invalid=(0, 65535)),
        )
    )


def _read_pose(path: Path) -> np.ndarray:
    """The pose, or NaN where the frame has none."""
    return read_matrix(path, (4, 4)) if path.is_file() else np.full((4, 4), np.nan)
