"""Sequences of every known layout below one folder."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from omnistream.data.batch import SceneFrame
from omnistream.data.scenes.deep_video_mvs import DeepVideoMVS
from omnistream.data.scenes.index_cache import SceneSequence
from omnistream.data.scenes.reader import SceneReader
from omnistream.data.scenes.scannet import ScanNet
from omnistream.data.scenes.seven_scenes import SevenScenes
from omnistream.data.scenes.tsdf_fusion import TSDFFusion

LAYOUTS: dict[str, type[SceneReader]] = {
    "deep_video_mvs": DeepVideoMVS,
    "seven_scenes": SevenScenes,
    "tsdf_fusion": TSDFFusion,  # after 7-Scenes, of which it states the intrinsics
    "scannet": ScanNet,
}
"""Readers by name."""


class SceneFolder(SceneReader):
    """All sequences below a folder, whichever known layout each has; a sequence is called `<layout>:<name>`.

    Args:
        root: Folder that holds sequences at any depth; links are followed.

    Raises:
        DatasetNotFoundError: If there is no such folder.
    """

    expected = "; or ".join(reader.expected for reader in LAYOUTS.values())
    descriptions = tuple(name for reader in LAYOUTS.values() for name in (*reader.markers, *reader.descriptions))
    index_version = 2

    def __init__(self, root: str | os.PathLike[str]) -> None:
        super().__init__(root)
        self._readers = {layout: reader(self.root) for layout, reader in LAYOUTS.items()}
        self._layout: dict[Path, str] = {}

    def published_name(self, name: str) -> str:
        """As in the index; a sequence that is the root itself is called `<layout>:<the root's folder>`."""
        layout, colon, inner = name.partition(":")
        return f"{layout}:{super().published_name(inner)}" if colon else name

    def find(self) -> Iterable[Path]:
        """What the readers of all layouts find."""
        self._layout = {path: layout for layout, reader in self._readers.items() for path in reader.find()}
        return self._layout

    def open_sequence(self, path: Path) -> SceneSequence:
        """The sequence as the reader of its layout opens it.

        Raises:
            MediaReadError: If a file that describes it is broken.
        """
        layout = self._layout[path]
        sequence = self._readers[layout].open_sequence(path)
        return sequence._replace(name=f"{layout}:{sequence.name}")

    def read(self, sequence: SceneSequence, positions: Sequence[int]) -> list[SceneFrame]:
        """Frames as stored."""
        layout, _, name = sequence.name.partition(":")
        return self._readers[layout].read(sequence._replace(name=name), positions)
