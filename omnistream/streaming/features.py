"""Features of a stream on disk, chunk by chunk."""

import zipfile
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from omnistream.errors import UsageError
from omnistream.streaming.writer import Step

FeaturesFormat = Literal["npz", "safetensors"]

CHUNK_BYTES = 32 * 2**20
"""Features wait in memory until there are this many bytes."""


def parse_features(text: str, num_layers: int) -> list[str]:
    """Names from `last,cls,2,11`: the patch tokens and the summary after the final norm, or outputs of blocks.

    Raises:
        UsageError: If a name is unknown or a block does not exist.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in ("last", "cls") and not (name.isdecimal() and int(name) < num_layers):
            raise UsageError(
                f"features are last, cls or a block from 0 to {num_layers - 1}, separated by commas; got {name!r}"
            )
    return list(dict.fromkeys(names))


def layers_of(names: list[str]) -> tuple[int, ...]:
    """The blocks among the names."""
    return tuple(int(name) for name in names if name.isdigit())


class _Target(Protocol):
    """Where chunks go."""

    def add(self, first: int, arrays: dict[str, Tensor]) -> None: ...

    def close(self) -> None: ...


class NpzTarget:
    """One streamed `.npz`: arrays `NAME_NNNNNNNN` of consecutive frames, where N is the number of the first.

    The zip directory takes a few hundred bytes per array until the file is closed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True)

    def add(self, first: int, arrays: dict[str, Tensor]) -> None:
        """Append one array per name."""
        for name, tensor in arrays.items():
            with self._zip.open(f"{name}_{first:08d}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, tensor.numpy(), allow_pickle=False)

    def close(self) -> None:
        """Write the directory of the zip."""
        self._zip.close()


class SafetensorsTarget:
    """A folder of `features-NNNNNNNN.safetensors`, where N is the number of the first frame in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)

    def add(self, first: int, arrays: dict[str, Tensor]) -> None:
        """Write one shard; it appears only when it is complete.

        Raises:
            OSError: If the disk is full.
        """
        target = self.path / f"features-{first:08d}.safetensors"
        draft = target.with_suffix(".tmp")
        try:
            save_file({name: tensor.contiguous() for name, tensor in arrays.items()}, draft)
        except SafetensorError as error:
            draft.unlink(missing_ok=True)
            raise OSError(f"{target} cannot be written ({error})") from error
        draft.replace(target)

    def close(self) -> None:
        """All shards are complete already."""


class FeatureFiles:
    """`features.npz`, or shards in `features/`: the features asked for with index and time of every frame.

    Names are `last` [S, h, w, D], `cls` [S, D], `layer_N` [S, h, w, D] (not normalised), `index` [S] and `time` [S].

    Args:
        folder: Where they go.
        names: See `parse_features`.
        file_format: `npz` (one file) or `safetensors` (a folder of shards).
        dtype: Stored type; None for float32.
        chunk_bytes: Size of a chunk.
    """

    def __init__(
        self,
        folder: Path,
        names: list[str],
        file_format: FeaturesFormat = "npz",
        dtype: torch.dtype | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.names, self.dtype, self.chunk_bytes = names, dtype or torch.float32, chunk_bytes
        self.path = folder / ("features.npz" if file_format == "npz" else "features")
        self.num_frames = 0
        self._waiting: list[dict[str, Tensor]] = []
        self._bytes = 0
        self._target: _Target | None = None

    def write(self, step: Step) -> None:
        """Add the frames of a step."""
        output = step.output
        arrays = {
            "index": torch.tensor([frame.index for frame in step.frames]),
            "time": torch.tensor([frame.time for frame in step.frames], dtype=torch.float64),
        }
        for name in self.names:
            layer = name.isdigit()
            found = output.patches[int(name)] if layer else output.cls if name == "cls" else output.last
            # A copy: a step that runs as a CUDA graph, or on the CPU, may write into the same memory again.
            arrays[f"layer_{name}" if layer else name] = found[0].to("cpu", self.dtype, copy=True)
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
        """Write what still waits."""
        try:
            if self._waiting:
                self._flush()
        finally:
            if self._target is not None:
                self._target.close()

    def summary(self) -> dict[str, object]:
        """What was stored."""
        if self._target is None:
            return {}
        stored = {"features": self.names, "dtype": str(self.dtype).removeprefix("torch.")}
        return {self.path.name: {"frames": self.num_frames, **stored}}
