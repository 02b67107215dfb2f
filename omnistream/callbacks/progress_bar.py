"""The progress bar of training: steps, time left, and the loss of every task."""

import math
import re
import sys
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from omnistream.callbacks.progress import FRAMES_PER_SECOND

_LOSS = re.compile(r"train/(?:(?P<task>.+)/)?loss(?:_step)?")
_MIN_BAR = 10
"""Columns of the bar itself, below which numbers beside it are left out."""

Shown = dict[str, int | str | float | dict[str, float]]


class TaskProgressBar(TQDMProgressBar):
    """Optimizer steps of the whole run, the learning rate and, with `Throughput`, frames/s; below it the losses.

    The bar counts from the first step of the run to its last, also after the run was resumed. Losses are the last ones
    that were logged as `train/<task>/loss`, or `train/loss` of a task fitted alone; every other number logged with
    `prog_bar=True` follows them. In a terminal they are on a separate line, where names are shortened and the last
    numbers omitted if it is narrow. Otherwise they follow the bar.

    Args:
        refresh_rate: Steps between updates; 0 shows nothing.
        process_position: Pairs of lines above the bar that other programs use.
    """

    def __init__(self, refresh_rate: int = 1, process_position: int = 0) -> None:
        super().__init__(refresh_rate, process_position)
        self._losses: Tqdm | None = None

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> Shown:
        """All numbers that are shown, the losses first."""
        metrics = trainer.callback_metrics
        losses = {match["task"] or "loss": value for name, value in metrics.items() if (match := _LOSS.fullmatch(name))}
        shown: Shown = {name: f"{float(value):.3g}" for name, value in losses.items()}
        if trainer.optimizers:
            shown["lr"] = f"{trainer.optimizers[0].param_groups[0]['lr']:.1e}"
        if FRAMES_PER_SECOND in metrics:
            shown["frames/s"] = f"{float(metrics[FRAMES_PER_SECOND]):.3g}"
        ours = {FRAMES_PER_SECOND} | {name for name in metrics if _LOSS.fullmatch(name)}
        return shown | {name: value for name, value in trainer.progress_bar_metrics.items() if name not in ours}

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Open the bar at the current step of the run."""
        bar = self.train_progress_bar = self.init_train_tqdm()
        bar.set_description_str("", refresh=False)
        total = trainer.estimated_stepping_batches
        bar.total = None if math.isinf(total) else int(total)
        bar.n = bar.initial = trainer.global_step
        if sys.stdout.isatty() and not self.is_disabled:
            below = 2 * self.process_position + 1
            self._losses = Tqdm(position=below, leave=True, dynamic_ncols=True, file=sys.stdout, bar_format="{desc}")
        bar.refresh()

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Name the epoch, where the run is counted in epochs."""
        if trainer.max_epochs != -1:
            self.train_progress_bar.set_description(f"Epoch {trainer.current_epoch}")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Count steps."""
        if self._should_update(trainer.global_step, self.train_progress_bar.total):
            self._update(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the numbers of the whole epoch; after the last one, close the bar before Lightning does."""
        self._update(trainer, pl_module)
        if trainer.global_step == self.train_progress_bar.total:
            self._close()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the validation bar and show its results."""
        self.val_progress_bar.close()
        self.reset_dataloader_idx_tracker()
        if self._train_progress_bar is not None and trainer.training:
            self._update(trainer, pl_module)

    def on_train_end(self, *_: Any) -> None:
        """Keep the last state of the bar on the screen."""
        self._close()

    def on_exception(self, *_: Any) -> None:
        """As at the end, so that messages start on a line of their own."""
        self._close()

    def init_validation_tqdm(self) -> Tqdm:
        """The bar of a validation; during training it is below the losses."""
        above = 0 if self._train_progress_bar is None else 1 + (self._losses is not None)
        return Tqdm(
            desc=self.validation_description,
            position=2 * self.process_position + above,
            disable=self.is_disabled,
            leave=not above,
            dynamic_ncols=True,
            file=sys.stdout,
            bar_format=self.BAR_FORMAT,
        )

    def _close(self) -> None:
        for bar in (
            self._val_progress_bar,
            self._test_progress_bar,
            self._predict_progress_bar,
            self._train_progress_bar,
            self._losses,
        ):
            if bar is not None:
                bar.close()
        self._val_progress_bar = self._train_progress_bar = self._losses = None

    def _update(self, trainer: Trainer, pl_module: LightningModule) -> None:
        bar, shown = self.train_progress_bar, self.get_metrics(trainer, pl_module)
        if bar.disable:
            return
        bar.n = trainer.global_step
        if self._losses is None:
            bar.set_postfix(shown)
            return
        beside: Shown = {name: shown.pop(name) for name in ("lr", "frames/s") if name in shown}
        columns = bar.format_dict["ncols"] or 80
        bar.set_postfix_str("", refresh=False)
        without_bar = {"ncols": None, "bar_format": self.BAR_FORMAT.replace("{bar}", "")}
        fixed = bar.format_meter(**bar.format_dict | without_bar)
        bar.set_postfix_str(fit_numbers(beside, columns - len(fixed) - len(", ") - _MIN_BAR), refresh=False)
        self._losses.set_description_str(fit_numbers(shown, columns - 1), refresh=False)
        bar.refresh()
        self._losses.refresh()


def fit_numbers(numbers: Mapping[str, Any], columns: int) -> str:
    """`name=value, name=value` in at most that many columns.

    Names are cut down to their last part, `video` for `ssl/video`, where all do not fit and the parts differ. What does
    not fit then is left out from the end.
    """
    short = {name.rsplit("/", 1)[-1]: value for name, value in numbers.items()}
    texts = [f"{name}={_number(value)}" for name, value in numbers.items()]
    if len(", ".join(texts)) > columns and len(short) == len(numbers):
        texts = [f"{name}={_number(value)}" for name, value in short.items()]
    while texts and len(", ".join(texts)) > columns:
        texts.pop()
    return ", ".join(texts)


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
