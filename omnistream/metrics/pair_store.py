"""Millions of pairs of numbers, kept outside the memory of the process where they are too many."""

import tempfile
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

CHUNK = 1 << 16
"""Pairs that are worked on at once: what they need fits into the caches of a processor."""


class PairStore:
    """Pairs of numbers as float32, group after group: in memory up to a limit, beyond it in a temporary file.

    The file has no name and is gone when the store is closed, or the process ends.

    Args:
        memory_limit: Bytes that are kept in memory; a pair has 8.
        folder: Where the file is made; by default the system's folder for temporary files (`TMPDIR`).
    """

    def __init__(self, memory_limit: int, folder: Path | str | None = None) -> None:
        self.folder = folder
        self.counts: list[int] = []
        """Pairs of each group."""
        place = None if folder is None else str(folder)
        limit = max(1, memory_limit)  # 0 would mean none
        self._file = tempfile.SpooledTemporaryFile(limit, dir=place)  # noqa: SIM115  # open until `close`

    def append(self, first: Tensor, second: Tensor) -> None:
        """Add a group of pairs, two tensors of the same length.

        Raises:
            OSError: If the file cannot grow.
        """
        pair = torch.stack((first, second)).float().cpu()
        try:
            self._file.seek(0, 2)
            for chunk in pair.split(CHUNK, dim=1):
                self._file.write(chunk.contiguous().numpy().tobytes())
        except OSError as error:
            folder = self.folder or tempfile.gettempdir()
            raise OSError(error.errno, f"temporary file of pairs: {error.strerror}; set TMPDIR", str(folder)) from error
        self.counts.append(len(first))

    def chunks(self) -> Iterator[tuple[int, Float64[Tensor, " N"], Float64[Tensor, " N"]]]:
        """Group and pairs, at most `CHUNK` at once, in the order in which they came."""
        self._file.seek(0)
        for group, count in enumerate(self.counts):
            for start in range(0, count, CHUNK):
                data = self._file.read(8 * min(CHUNK, count - start))
                first, second = torch.from_numpy(np.frombuffer(data, np.float32).reshape(2, -1).astype(np.float64))
                yield group, first, second

    def groups(self) -> Iterator[tuple[int, tuple[Float64[Tensor, " N"], Float64[Tensor, " N"]]]]:
        """Number and pairs of each group that has any."""
        for group, chunks in groupby(self.chunks(), key=itemgetter(0)):
            _, first, second = zip(*chunks, strict=True)
            yield group, (torch.cat(first), torch.cat(second))

    def close(self) -> None:
        """Forget all pairs."""
        self._file.close()
        self.counts.clear()
