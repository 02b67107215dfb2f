"""Writing features of a stream."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from omnistream.errors import UsageError
from omnistream.streaming.arrays import CHUNK_BYTES, ArrayFiles
from omnistream.streaming.writer import Step

FeaturesFormat = Literal["npz", "safetensors"]


def check_features(names: Sequence[str], num_layers: int) -> None:
    """Check that names are `last`, `cls` or the number of a block.

    Raises:
        UsageError: If a name is unknown or a block does not exist.
    """
    for name in names:
        if name not in ("last", "cls") and not (name.isdecimal() and int(name) < num_layers):
            raise UsageError(f"features are last, cls or the number of a block, 0 to {num_layers - 1}; got {name!r}")


def blocks_of(names: Sequence[str]) -> tuple[int, ...]:
    """The numbers of blocks among the names."""
    return tuple(int(name) for name in names if name.isdecimal())


class FeatureFiles(ArrayFiles):
    """Writes `features.npz`, or shards in `features/`.

    Arrays are `last` [S, h, w, D], `cls` [S, D] and `layer_N` [S, h, w, D] (output of block N, not normalised).

    Args:
        folder: Output folder.
        names: `last`, `cls` or numbers of blocks.
        file_format: `npz` (one file) or `safetensors` (a folder of shards).
        dtype: Stored type; None for float32.
        chunk_bytes: Size of a chunk.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        file_format: FeaturesFormat = "npz",
        dtype: torch.dtype | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        super().__init__(folder / ("features.npz" if file_format == "npz" else "features"), chunk_bytes)
        self.names, self.dtype = list(dict.fromkeys(names)), dtype or torch.float32

    def _arrays(self, step: Step) -> dict[str, Tensor]:
        output = step.output
        arrays = {}
        for name in self.names:
            block = name.isdecimal()
            found = output.patches[int(name)] if block else output.cls if name == "cls" else output.last
            arrays[f"layer_{name}" if block else name] = found[0].to("cpu", self.dtype, copy=True)
        return arrays

    def _facts(self) -> dict[str, object]:
        return {"features": self.names, "dtype": str(self.dtype).removeprefix("torch.")}
