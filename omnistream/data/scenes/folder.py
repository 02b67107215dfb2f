"""Sequences of every known layout below one folder."""

from pathlib import Path

from omnistream.data.scenes.base import SceneDataset
from omnistream.data.scenes.deep_video_mvs import DeepVideoMVS
from omnistream.data.scenes.sequence import SceneSequence
from omnistream.data.scenes.tsdf_fusion import TSDFFusion

LAYOUTS: dict[str, type[SceneDataset]] = {"deep_video_mvs": DeepVideoMVS, "tsdf_fusion": TSDFFusion}
"""Readers by name."""


def find_sequences(root: str | Path) -> dict[str, list[SceneSequence]]:
    """Sequences at any depth below a folder by layout; layouts without any are left out.

    Raises:
        MediaReadError: If a camera file is broken.
    """
    found = {name: reader.find_sequences(Path(root)) for name, reader in LAYOUTS.items()}
    return {name: sequences for name, sequences in found.items() if sequences}


class SceneFolder(SceneDataset):
    """Clips from all sequences below a folder, whichever known layout each has.

    Arguments and errors are those of `SceneDataset`.
    """

    looked_for = "; ".join(reader.looked_for for reader in LAYOUTS.values())

    @staticmethod
    def find_sequences(root: Path) -> list[SceneSequence]:
        """Sequences of all layouts, in the order of `LAYOUTS`."""
        return [sequence for sequences in find_sequences(root).values() for sequence in sequences]
