"""Millions of pairs of numbers, kept outside the memory of the process where they are too many."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

BLOCK = 1 << 18
"""Pairs that are read at once."""
CHUNK = 1 << 15
"""Pairs that are worked on at once: what they need fits into the caches of a processor, and torch divides no work of
this size among threads. Here each thread has a block of its own, so that none waits for another."""
GroupSums = Callable[[int, Tensor, Tensor], list[Tensor]]
"""Of a group's number and a chunk of its pairs, float64 [N] each: sums that are added up over chunks.

Products are summed by `sum`, as BLAS would divide a dot product among threads of its own.
"""


class PairStore:
    """Pairs of numbers as float32, group after group: in memory up to a limit, those after it in a temporary file.

    The file has no name and is gone when the store is closed, or the process ends.

    Args:
        memory_limit: Bytes that are kept in memory; a pair has 8.
        folder: Where the file is made; by default the system's folder for temporary files (`TMPDIR`).
    """

    def __init__(self, memory_limit: int, folder: Path | str | None = None) -> None:
        self.folder, self.memory_limit = folder, memory_limit
        self.counts: list[int] = []
        """Pairs of each group."""
        self._in_memory: list[Float32[np.ndarray, "2 N"]] = []
        self._file: IO[bytes] | None = None
        self._num_threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._num_threads)

    def append(self, first: Tensor, second: Tensor) -> None:
        """Add a group of pairs, two tensors of the same length.

        Raises:
            OSError: If the file cannot be made, or cannot grow.
        """
        pair = torch.stack((first.float(), second.float())).numpy()
        if self._file is None and 8 * (sum(self.counts) + len(first)) <= self.memory_limit:
            self._in_memory.append(pair)
        else:
            self._write(pair)
        self.counts.append(len(first))

    def groups(self) -> Iterator[tuple[int, Float64[Tensor, " N"], Float64[Tensor, " N"]]]:
        """Number and pairs of each group that has any."""
        for group, blocks in groupby(self._blocks(), key=itemgetter(0)):
            first, second = torch.cat([chunk for _, block in blocks for chunk in _chunks(block)], 1)
            yield group, first, second

    def sums(self, function: GroupSums) -> Iterator[tuple[int, list[Tensor]]]:
        """Group and sums of each block, in the order in which they came, by as many threads as torch uses."""
        waiting: deque[tuple[int, Future[list[Tensor]]]] = deque()
        for group, block in self._blocks():
            waiting.append((group, self._pool.submit(_block_sums, function, group, block)))
            if len(waiting) > 2 * self._num_threads:  # no more is read ahead
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()

    def close(self) -> None:
        """Forget all pairs."""
        self._pool.shutdown()
        if self._file is not None:
            self._file.close()
        self._in_memory.clear()
        self.counts.clear()

    def _write(self, pair: Float32[np.ndarray, "2 N"]) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115  # open until `close`
            self._file.seek(0, 2)
            for start in range(0, pair.shape[1], BLOCK):
                self._file.write(pair[:, start : start + BLOCK].tobytes())
        except OSError as error:
            folder = self.folder or tempfile.gettempdir()
            raise OSError(error.errno, f"temporary file of pairs: {error.strerror}; set TMPDIR", str(folder)) from error

    def _blocks(self) -> Iterator[tuple[int, Float32[np.ndarray, "2 N"]]]:
        for group, pair in enumerate(self._in_memory):
            for start in range(0, pair.shape[1], BLOCK):
                yield group, pair[:, start : start + BLOCK]
        if self._file is not None:
            self._file.seek(0)
            for group, count in enumerate(self.counts[len(self._in_memory) :], len(self._in_memory)):
                for start in range(0, count, BLOCK):
                    data = self._file.read(8 * min(BLOCK, count - start))
                    yield group, np.frombuffer(data, np.float32).reshape(2, -1)


def add_up(parts: Iterator[list[Tensor]]) -> list[Tensor]:
    """Sums over all parts, of which there is at least one."""
    totals = next(parts)
    for part in parts:
        totals = [total + one for total, one in zip(totals, part, strict=True)]
    return totals


def _chunks(block: Float32[np.ndarray, "2 N"]) -> Iterator[Float64[Tensor, "2 N"]]:
    """One after the other: fresh memory for a whole block would cost more than the work on it."""
    for start in range(0, block.shape[1], CHUNK):
        yield torch.from_numpy(block[:, start : start + CHUNK].astype(np.float64))


def _block_sums(function: GroupSums, group: int, block: Float32[np.ndarray, "2 N"]) -> list[Tensor]:
    return add_up(function(group, *chunk) for chunk in _chunks(block))
