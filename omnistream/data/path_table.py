"""Millions of paths in a few arrays.

A `Path` takes about 394 bytes, and every look at one changes its reference count, so that forked data loader workers
copy them all. These tables take the bytes of the file's name and little more, and are never written to.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from omnistream.data.sequences import ComputedSequence

_BLOCK = 64
"""Strings per stored start; the starts in between are sums of lengths."""


class StringTable(ComputedSequence[str]):
    """Strings in two arrays: all bytes one after the other, and the length of each string.

    Args:
        data: The bytes, as `os.fsencode` gives them.
        lengths: Bytes of each string, of any unsigned type.
    """

    def __init__(self, data: UInt8[np.ndarray, " bytes"], lengths: np.ndarray) -> None:
        self.data, self.lengths = data, lengths
        blocks = np.arange(0, len(lengths), _BLOCK)
        sizes = np.add.reduceat(lengths, blocks, dtype=np.int64) if len(blocks) else np.empty(0, np.int64)
        self._starts = np.concatenate([[0], np.cumsum(sizes)])

    @classmethod
    def of(cls, strings: Iterable[str]) -> "StringTable":
        """A table of these strings."""
        return cls.join([encode_names(strings)])

    @classmethod
    def join(cls, parts: Sequence[tuple[bytes, np.ndarray]]) -> "StringTable":
        """A table of several results of `encode_names`."""
        data = np.frombuffer(b"".join(data for data, _ in parts), np.uint8)
        lengths = [lengths for _, lengths in parts]
        return cls(data, np.concatenate(lengths) if lengths else np.empty(0, np.uint8))

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.data.nbytes + self.lengths.nbytes + self._starts.nbytes

    def __len__(self) -> int:
        return len(self.lengths)

    def _item(self, index: int) -> str:
        block = index // _BLOCK
        start = self._starts[block] + self.lengths[block * _BLOCK : index].sum(dtype=np.int64)
        return self.data[start : start + self.lengths[index]].tobytes().decode("utf-8", "surrogateescape")


def encode_names(names: Iterable[str]) -> tuple[bytes, np.ndarray]:
    """The bytes of all names and the length of each, in the smallest type that holds them."""
    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    lengths = np.array([len(name) for name in encoded], np.int64)
    return b"".join(encoded), lengths.astype(np.min_scalar_type(int(lengths.max(initial=0))))


class PathTable(ComputedSequence[Path]):
    """Files below a root, folder by folder.

    Args:
        root: What all paths start with.
        folders: Folders relative to the root, `""` for the root itself.
        first: Number of files before each folder, and at the end of all.
        names: File names, folder by folder.
    """

    def __init__(self, root: Path, folders: StringTable, first: np.ndarray, names: StringTable) -> None:
        self.root, self.folders, self.names = root, folders, names
        self._first = first

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.folders.nbytes + self.names.nbytes + self._first.nbytes

    def __len__(self) -> int:
        return len(self.names)

    def _item(self, index: int) -> Path:
        return self.root / self.folder(index) / self.names[index]

    def folder(self, index: int) -> str:
        """Folder of a file, relative to the root."""
        index = range(len(self))[index]
        return self.folders[int(np.searchsorted(self._first, index, side="right")) - 1]

    def positions(self, folder: int) -> range:
        """Positions of the files that lie in a folder of `folders`, given by its number."""
        return range(int(self._first[folder]), int(self._first[folder + 1]))


class Selection(ComputedSequence[Path]):
    """Some files of a table, by their positions; shares its memory."""

    def __init__(self, table: PathTable, positions: Sequence[int]) -> None:
        self.table, self.positions = table, positions

    def __len__(self) -> int:
        return len(self.positions)

    def _item(self, index: int) -> Path:
        return self.table[self.positions[index]]

    def folder(self, index: int) -> str:
        """Folder of a file, relative to the root."""
        return self.table.folder(self.positions[index])
