"""Writing arrays of a stream to disk in chunks."""

import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from omnistream.streaming.writer import Step

CHUNK_BYTES = 32 * 2**20
"""Arrays are collected in memory up to this size before they are written."""


class _Target(Protocol):
    """Destination of the chunks."""

    def add(self, first: int, arrays: dict[str, Tensor]) -> None: ...

    def close(self) -> None: ...


class NpzTarget:
    """One `.npz` file with arrays `NAME_NNNNNNNN` of consecutive frames, where N is the number of the first.

    The zip directory takes a few hundred bytes of memory per array until the file is closed.
    """

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True)

    def add(self, first: int, arrays: dict[str, Tensor]) -> None:
        """Append one array per name."""
        for name, tensor in arrays.items():
            with self._zip.open(f"{name}_{first:08d}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, tensor.numpy(), allow_pickle=False)

    def close(self) -> None:
        """Write the zip directory."""
        self._zip.close()


class SafetensorsTarget:
    """A folder of files `NAME-NNNNNNNN.safetensors`: NAME is that of the folder, N the number of the first frame."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)

    def add(self, first: int, arrays: dict[str, Tensor]) -> None:
        """Write one shard; it appears only when it is complete.

        Raises:
            OSError: If the disk is full.
        """
        target = self.path / f"{self.path.name}-{first:08d}.safetensors"
        draft = target.with_suffix(".tmp")
        try:
            # Not `save_file`, which creates its file with mode 0600 regardless of the umask.
            draft.write_bytes(save({name: tensor.contiguous() for name, tensor in arrays.items()}))
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        draft.replace(target)

    def close(self) -> None:
        """All shards are complete already."""


class ArrayFiles(ABC):
    """Writes arrays of every frame, with the frames' `index` [S] and `time` [S], to one `.npz` or a folder of shards.

    Args:
        path: A file if it has the suffix `.npz`; without a suffix, a folder of safetensors files.
        chunk_bytes: Size of a chunk.
    """

    def __init__(self, path: Path, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.path, self.chunk_bytes = path, chunk_bytes
        self.num_frames = 0
        self._waiting: list[dict[str, Tensor]] = []
        self._bytes = 0
        self._target: _Target | None = None

    @abstractmethod
    def _arrays(self, step: Step) -> dict[str, Tensor]:
        """Arrays [S, ...] on the CPU by name.

        They must be copies: a step that runs as a CUDA graph, or on the CPU, may overwrite the memory.
        """

    @abstractmethod
    def _facts(self) -> dict[str, object]:
        """Entries about the arrays for the summary."""

    def write(self, step: Step) -> None:
        """Add the frames of a step."""
        arrays = {
            "index": torch.tensor([frame.index for frame in step.frames]),
            "time": torch.tensor([frame.time for frame in step.frames], dtype=torch.float64),
            **self._arrays(step),
        }
        self._waiting.append(arrays)
        self._bytes += sum(tensor.nbytes for tensor in arrays.values())
        if self._bytes >= self.chunk_bytes:
            self._flush()

    def _flush(self) -> None:
        if self._target is None:
            self._target = NpzTarget(self.path) if self.path.suffix else SafetensorsTarget(self.path)
        chunk = {name: torch.cat([arrays[name] for arrays in self._waiting]) for name in self._waiting[0]}
        self._waiting.clear()  # also if the disk is full: `close` does not try again
        self._bytes = 0
        self._target.add(self.num_frames, chunk)
        self.num_frames += len(chunk["index"])

    def close(self) -> None:
        """Write the remaining frames and close the file."""
        try:
            if self._waiting:
                self._flush()
        finally:
            if self._target is not None:
                self._target.close()

    def summary(self) -> dict[str, object]:
        """What was written, by file name."""
        return {} if self._target is None else {self.path.name: {"frames": self.num_frames, **self._facts()}}
