"""Plots of the tasks' predictions, at every validation."""

import logging
import re
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng

from omnistream.plots.collect import can_plot, collect_plots
from omnistream.plots.draw import EXPLANATIONS, draw
from omnistream.plots.png import encode_png
from omnistream.plots.titles import plot_title
from omnistream.tasks.plots import Plot

logger = logging.getLogger(__name__)


class ValidationPlots(Callback):
    """Draws the tasks' plots for the first batch of every validation loader.

    Plots go to TensorBoard as `val/<name>` and to `<log_dir>/plots/<name>--step<step>.png`, whose text fields
    hold title and caption. Every process runs the tasks' `plots`, because they may contain collectives; rank zero
    draws. The random state is restored afterwards, so plots never change a run. The count of validations is saved in
    the checkpoint.

    Args:
        every_n_validations: Draw at the first validation and at every n-th after it.
        num_samples: Samples of the batch that each task shows at most.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(self, every_n_validations: int = 1, num_samples: int = 2) -> None:
        if every_n_validations < 1 or num_samples < 1:
            raise ValueError(
                "ValidationPlots: every_n_validations and num_samples must be at least 1, got "
                f"{every_n_validations} and {num_samples}"
            )
        self.every_n_validations = every_n_validations
        self.num_samples = num_samples
        self._validations = 0

    def state_dict(self) -> dict[str, Any]:
        """The count of validations so far."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting."""
        self._validations = state_dict["validations"]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn once if there is nothing to draw."""
        if self._validations == 0 and not trainer.sanity_checking and not can_plot(pl_module):
            rank_zero_warn("ValidationPlots has no effect: no task has a `plots` method")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw, while the batch is on the device."""
        if trainer.sanity_checking or batch_idx != 0 or self._validations % self.every_n_validations != 0:
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir) / "plots"  # a collective: on every process
        with isolate_rng(), trainer.precision_plugin.val_step_context():
            plots = collect_plots(pl_module, batch, self.num_samples)
        if trainer.is_global_zero:
            for name, plot in plots.items():
                self._save(trainer, folder, name, plot)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count."""
        self._validations += not trainer.sanity_checking

    def _save(self, trainer: Trainer, folder: Path, name: str, plot: Plot) -> None:
        step = trainer.global_step
        try:
            image = draw(plot)
        except Exception:
            logger.error("drawing %s (%s) at step %d failed", name, type(plot).__name__, step)
            raise
        folder.mkdir(parents=True, exist_ok=True)
        caption = f"{EXPLANATIONS[type(plot)]} Step {step}."
        path = folder / f"{re.sub(r'[^A-Za-z0-9_.]+', '-', name)}--step{step:08d}.png"
        path.write_bytes(encode_png(image, title=plot_title(name), caption=caption))
        for target in trainer.loggers:
            if isinstance(target, TensorBoardLogger):
                target.experiment.add_image(f"val/{name}", image, step, dataformats="HWC")
