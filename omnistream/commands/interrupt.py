"""Ctrl-C and SIGTERM: training is saved at the end of a step, everything else stops at once."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from omnistream.errors import Stopped
from omnistream.run_config import LAST_CHECKPOINT, list_checkpoints

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME_PRESS = 0.3
"""Seconds within which a second SIGINT is the same Ctrl-C, passed on by a parent process."""
_WAIT = "\nstopping after this {}; press Ctrl-C again to stop at once, without a checkpoint\n"
_VALIDATION = "epoch_loop.val_loop.batch_progress"


class StopOnSignal(Callback):
    """Saves a checkpoint when the process is asked to stop, and raises `Stopped`.

    While training, SIGINT (Ctrl-C) and SIGTERM are answered at the end of the step with all batches that it
    accumulates, or of the validation batch: the state goes to `last.ckpt` in the folder of the run's ModelCheckpoint,
    in place of an older file of that name, and training continues from there exactly. A validation that is broken off
    is repeated as a whole. A second Ctrl-C ends the process at once; a second SIGTERM changes nothing, because
    schedulers send several. Outside training there is nothing to save, and a signal raises `Stopped` at once.

    With several processes one that is signalled is enough. At each step the processes exchange what they received at
    the one before, so no step waits for it; a validation is then finished first.

    The callback must come after ModelCheckpoint in `trainer.callbacks`, to save what it has noted.
    """

    trained = False
    """Whether a step of training has been made."""

    def __init__(self) -> None:
        self._received = 0  # number of the signal
        self._since = 0.0
        self._training = False
        self._finished: Path | None = None  # newest checkpoint, once training is done
        self._validating = False
        self._group: Any = None  # processes that exchange signals; None if there is one
        self._exchange: tuple[torch.Tensor, dist.Work] | None = None
        self._trainer: Trainer | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Answer signals inside the block. Without effect outside the main thread, where Python delivers none."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self._install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # What a shell starts in the background ignores Ctrl-C, and is to go on doing so.
                if signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._training:
            raise Stopped(number, finished=self._finished)
        if not self._received:
            self._received, self._since = number, time.monotonic()
            # print() could meet the progress bar in the middle of its own write.
            os.write(2, _WAIT.format("validation batch" if self._validating else "step").encode())
        elif number == signal.SIGINT and time.monotonic() - self._since > _SAME_PRESS:
            os.write(2, b"\nomnistream: stopped at once\n")
            self.end_children()
            os._exit(128 + number)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remember whose processes are to be ended."""
        self._trainer = trainer

    def end_children(self) -> None:
        """Kill the processes that Lightning started for the run, which might wait for this one forever."""
        if self._trainer is not None and self._trainer.strategy.launcher is not None:
            self._trainer.strategy.launcher.kill(signal.SIGKILL)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there is something to save."""
        self._install()  # Lightning has put its own handler of SIGTERM in front, which broadcasts inside the handler
        self._training, self._received, self._exchange = True, 0, None
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `on_train_start`."""
        self._install()

    on_test_start = on_predict_start = on_sanity_check_start

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `on_train_start`."""
        self._install()
        self._validating = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Back to steps."""
        self._validating = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Stop if asked to, on all processes at the same step, once the batches of an accumulated step are complete."""
        self.trained = True
        if not _is_step_complete(pl_module):
            return
        number = self._received if self._group is None else self._received_anywhere()
        if number:
            self._stop(trainer, number)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Stop if asked to; several processes may have different numbers of batches, and go on to the next step."""
        if self._received and self._group is None and _is_step_complete(pl_module):
            self._stop(trainer, self._received)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last chance to save; what follows training stops at once."""
        number = torch.tensor(self._received)
        if self._group is not None:
            dist.all_reduce(number, dist.ReduceOp.MAX, group=self._group)
        if number:
            self._stop(trainer, int(number))
        folder = _checkpoint_folder(trainer)
        kept = list_checkpoints(folder) if folder else []
        self._finished = kept[-1] if kept else None
        self._training = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note a validation that is broken off as broken off in its first batch, so that it is repeated as a whole."""
        if self._received and self._validating:
            progress = checkpoint["loops"]["fit_loop"][_VALIDATION]
            progress["total"]["processed"] = progress["total"]["completed"] = progress["total"]["started"] - 1
            progress["current"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}

    def _received_anywhere(self) -> int:
        """The signal that any process had received by the end of the last step; the same answer on all."""
        mine = torch.tensor(self._received)
        work = dist.all_reduce(mine, dist.ReduceOp.MAX, group=self._group, async_op=True)
        earlier, self._exchange = self._exchange, (mine, work)
        if earlier is None:
            return 0
        earlier[1].wait()  # finished long ago: the gradients of this step needed every process to start it
        return int(earlier[0])

    def _stop(self, trainer: Trainer, number: int) -> None:
        self._received = number
        path = save_last(trainer)
        self._training = False
        raise Stopped(number, step=trainer.global_step, checkpoint=path)


def _is_step_complete(module: LightningModule) -> bool:
    """Whether a checkpoint loses no gradients; modules that do not accumulate any need not say so."""
    return bool(getattr(module, "is_step_complete", True))


def save_last(trainer: Trainer) -> Path | None:
    """Save the state of training as `last.ckpt`; to be called on every process.

    Args:
        trainer: In the middle of fitting.

    Returns:
        The checkpoint, or None if the trainer keeps none.
    """
    folder = _checkpoint_folder(trainer)
    if folder is None:
        return None
    path = folder / LAST_CHECKPOINT
    draft = path.with_suffix(".partial")
    trainer.save_checkpoint(draft, weights_only=False)
    if trainer.is_global_zero:
        _replace(draft, path)
    trainer.strategy.barrier("interrupted")
    return path


def _checkpoint_folder(trainer: Trainer) -> Path | None:
    """Where the run's ModelCheckpoint writes; None if the trainer keeps no checkpoints."""
    callback = next((one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)), None)
    if callback is None or not callback.dirpath or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    return Path(callback.dirpath)


def _replace(draft: Path, path: Path) -> None:
    """Put a finished checkpoint in place of an older one; either may be a folder, the older one a link."""
    old = path.with_suffix(".old")
    if path.is_dir() or draft.is_dir():  # a folder replaces nothing, and nothing but a folder replaces a folder
        if path.exists():
            path.rename(old)
        draft.rename(path)
        shutil.rmtree(old, ignore_errors=True)
        old.unlink(missing_ok=True)
    else:
        draft.replace(path)  # a link is replaced, not what it leads to
