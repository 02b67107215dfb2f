"""7-Scenes: rooms recorded several times with a hand-held Kinect."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from omnistream.data.batch import SceneFrame
from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import walk_folders
from omnistream.data.media import MediaReadError
from omnistream.data.scenes.frame_files import complete_frames, read_frames_of_files
from omnistream.data.scenes.index_cache import SceneSequence
from omnistream.data.scenes.reader import SceneReader, logger
from omnistream.data.splits import Split

_COLOR = torch.tensor([[525.0, 0, 320], [0, 525, 240], [0, 0, 1]], dtype=torch.float64)
_DEPTH = torch.tensor([[585.0, 0, 320], [0, 585, 240], [0, 0, 1]], dtype=torch.float64)
_FOLDER = re.compile(r"seq-(\d+)")


class SevenScenes(SceneReader):
    """7-Scenes (Microsoft Research, non-commercial): 46 sequences of 500 or 1000 frames of 640x480 in 7 rooms.

    Sequences unpacked where their archives lie:

        <root>/chess/TrainSplit.txt, TestSplit.txt        lines `sequence3`
        <root>/chess/seq-03/frame-000000.color.png        8-bit RGB
                            frame-000000.depth.png        16-bit, millimetres, 0 and 65535 where nothing was measured
                            frame-000000.pose.txt         4x4 camera-to-world, metres, OpenCV axes

    Colour and depth are not registered, and no calibration comes with them. Their cameras are taken to share centre and
    axes, which is wrong by the few centimetres between the two lenses of a Kinect. K is the one in use: a focal length
    of 585 for depth, as the authors state, and of 525 for colour. The principal point (320, 240) is half of 640x480, so
    it counts from the corner of the image and is used unchanged.

    CUT3R's evaluation of point maps takes every 200th frame of the test sequences (`FrameChoice(stride=200)`).

    Args:
        root: Folder that holds the scenes at any depth, or one scene, or one sequence.
        split: `train` or `test` of the authors; null takes every sequence.
        registered: Depth projected into the colour camera, in `frame-000000.depth.proj.png`, which the authors do not
            distribute: SimpleRecon's scripts write it, and CUT3R's evaluation of point maps reads it.

    Raises:
        DatasetNotFoundError: If there is no such folder.

    Source: the data set's readme; CUT3R/CUT3R: eval/mv_recon/{data,launch}.py.
    """

    expected = (
        "7-Scenes' <scene>/seq-01/frame-*.color.png, .depth.png and .pose.txt, with <scene>/TrainSplit.txt and "
        "TestSplit.txt if a split is wanted"
    )
    markers = ("frame-*.color.png",)
    descriptions = ("TrainSplit.txt", "TestSplit.txt")
    splits = ("train", "test")

    def __init__(self, root: str | os.PathLike[str], split: Split | None = None, *, registered: bool = False) -> None:
        super().__init__(root, split)
        self.registered = registered
        self._depth = "depth.proj.png" if registered else "depth.png"

    def index_options(self) -> tuple[str, ...]:
        """The kind of depth."""
        return (self._depth,)

    def published_name(self, name: str) -> str:
        """Scene and sequence, such as chess/seq-03."""
        return "/".join((self.root.resolve() / name).parts[-2:])

    def find(self) -> Iterable[Path]:
        """Folders of sequences.

        Raises:
            DatasetNotFoundError: If a scene has no list of the split.
            MediaReadError: If a list is broken.
        """
        scenes: dict[Path, dict[int, Path]] = {}
        for folder, files in walk_folders(self.root):
            path = self.root.resolve() / folder
            number = _FOLDER.fullmatch(path.name)
            if number and any(name.startswith("frame-") and name.endswith(".color.png") for name in files):
                scenes.setdefault(path.parent, {})[int(number[1])] = self.root / folder
        for scene, sequences in scenes.items():
            yield from sequences.values() if self.split is None else self._of_split(scene, sequences, self.split)

    def _of_split(self, scene: Path, sequences: dict[int, Path], split: Split) -> list[Path]:
        path = scene / f"{split.capitalize()}Split.txt"
        if not path.is_file():
            raise DatasetNotFoundError(f"{scene} holds no {path.name}", self.expected)
        wanted = _read_split(path)
        if missing := [number for number in wanted if number not in sequences]:
            logger.warning(
                "%d of the %d sequences of %s are not below %s, such as seq-%02d",
                len(missing), len(wanted), path, self.root, missing[0],
            )  # fmt: skip
        return [sequences[number] for number in wanted if number in sequences]

    def open_sequence(self, path: Path) -> SceneSequence:
        """The frames with depth and pose, by the names of their images.

        Raises:
            MediaReadError: If a pose is broken.
        """
        return SceneSequence(self.name_of(path), complete_frames(path, self._depth))

    def read(self, sequence: SceneSequence, positions: Sequence[int]) -> list[SceneFrame]:
        """Frames as stored."""
        names = [sequence.frames[position] for position in positions]
        depth_camera = None if self.registered else _DEPTH
        return read_frames_of_files(self.root / sequence.name, names, _COLOR, depth_camera, self._depth)


def _read_split(path: Path) -> list[int]:
    """Numbers of the sequences in a list with lines such as `sequence3`."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    numbers = [(line, re.fullmatch(r"sequence(\d+)", line)) for line in lines if line]
    wrong = [line for line, number in numbers if number is None]
    if wrong or not numbers:
        got = repr(wrong[0][:80]) if wrong else "an empty file"
        raise MediaReadError(path, f"expected lines such as sequence3, got {got}")
    return [int(number[1]) for _, number in numbers if number]
