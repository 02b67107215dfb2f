"""Sequences in the layout of andyzeng/tsdf-fusion-python."""

from collections.abc import Sequence
from pathlib import Path

import torch

from omnistream.data.batch import SceneFrame
from omnistream.data.scenes.frame_files import complete_frames, read_frames_of_files
from omnistream.data.scenes.index_cache import SceneSequence
from omnistream.data.scenes.reader import SceneReader, read_matrix


class TSDFFusion(SceneReader):
    """Folders such as `data` of tsdf-fusion-python (frames of 7-Scenes, non-commercial research).

    Layout of a sequence:

        camera-intrinsics.txt       3x3, for colour and depth, which are assumed to be registered
        frame-000000.color.jpg      8-bit RGB (or .png)
        frame-000000.depth.png      16-bit, millimetres, 0 and 65535 where nothing was measured
        frame-000000.pose.txt       4x4 camera-to-world, metres, OpenCV axes

    The stated principal point (320, 240) is half of 640x480, so it counts from the corner of the image and is used
    unchanged. There is no official split of this layout.

    Source: andyzeng/tsdf-fusion-python: demo.py.
    """

    expected = "folders with camera-intrinsics.txt and frame-*.color.jpg, .depth.png and .pose.txt (tsdf-fusion)"
    markers = ("camera-intrinsics.txt", "frame-*.color.*")

    def open_sequence(self, path: Path) -> SceneSequence:
        """The frames with depth and pose, by the names of their images.

        Raises:
            MediaReadError: If camera-intrinsics.txt or a pose is broken.
        """
        read_matrix(path / "camera-intrinsics.txt", (3, 3))
        return SceneSequence(self.name_of(path), complete_frames(path))

    def read(self, sequence: SceneSequence, positions: Sequence[int]) -> list[SceneFrame]:
        """Frames as stored."""
        folder = self.root / sequence.name
        intrinsics = torch.tensor(read_matrix(folder / "camera-intrinsics.txt", (3, 3)))
        return read_frames_of_files(folder, (sequence.frames[position] for position in positions), intrinsics)
