"""Throughput of training."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer

from omnistream.data.batch import ViewBatch

FRAMES_PER_SECOND = "train/frames_per_second"


def count_frames(batch: Any) -> int:
    """Source frames in a batch: an image is one frame, and crops of one frame count once.

    Args:
        batch: A ViewBatch, anything with `images [B, T, 3, H, W]`, or a mapping or sequence of such; None counts as 0.

    Raises:
        TypeError: If a part is none of these.
    """
    if batch is None:
        return 0
    if isinstance(batch, ViewBatch):
        return batch.global_crops.shape[0] * batch.global_crops.shape[2]
    if hasattr(batch, "images"):
        return batch.images.shape[:-3].numel()
    if isinstance(batch, Mapping):
        return sum(count_frames(part) for part in batch.values())
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return sum(count_frames(part) for part in batch)
    raise TypeError(f"frames/s: expected a batch with images, got {type(batch).__name__}")


class Throughput(Callback):
    """Logs `train/frames_per_second`: source frames of all processes per second, over the last steps.

    Waiting for data counts, validation does not. All processes are assumed to have batches of equal size. The first
    step of a run only starts the clock.

    Args:
        window: Steps averaged over.
    """

    def __init__(self, window: int = 20) -> None:
        if window < 1:
            raise ValueError(f"Throughput: window must be at least 1, got {window}")
        self._marks: deque[tuple[float, int]] = deque(
            maxlen=window + 1
        )  # time at the end of a step, frames of the step
        self._pause = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run."""
        self._marks.clear()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the rate over the window."""
        self._marks.append((time.perf_counter(), count_frames(batch)))
        if len(self._marks) < 2:
            return
        (start, first), (end, _) = self._marks[0], self._marks[-1]
        frames = sum(count for _, count in self._marks) - first
        rate = frames * trainer.world_size / max(end - start, 1e-9)
        pl_module.log(FRAMES_PER_SECOND, rate, batch_size=1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._pause = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue as if no time had passed."""
        paused = time.perf_counter() - self._pause
        self._marks = deque(((mark + paused, frames) for mark, frames in self._marks), self._marks.maxlen)
