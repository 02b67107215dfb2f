"""Lightning callbacks: pictures at validation, and the page at the end."""

import logging
import re
import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image

from omnistream.plots.curves import draw_curves, panels, read_scalars
from omnistream.plots.draw import EXPLANATIONS, draw
from omnistream.report.collect import can_draw, collect_figures, collect_plots, tasks_of
from omnistream.report.figures import FigureRow
from omnistream.report.page import ReportPage, encode_png
from omnistream.report.run_info import run_info
from omnistream.tasks.plots import Plot

logger = logging.getLogger(__name__)


class ValidationPlots(Callback):
    """Draws what the tasks have to show for the first batch of every validation loader.

    Pictures go to TensorBoard as `val/<name>` and to `<log_dir>/pictures/<name>--step<step>.png`, whose text fields
    hold title and caption. Every process runs the tasks' `pictures`, because they may contain collectives; rank zero
    draws. Random state is put back afterwards, so pictures never change a run. The count of validations is saved in
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
        """Warn once where there is nothing to draw."""
        if self._validations == 0 and not trainer.sanity_checking and not can_draw(pl_module):
            rank_zero_warn("ValidationPlots has no effect: no task has a `pictures` method")

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
        folder = Path(trainer.log_dir or trainer.default_root_dir) / "pictures"  # a collective: on every process
        with isolate_rng(), trainer.precision_plugin.val_step_context():
            pictures = collect_plots(pl_module, batch, self.num_samples)
        if trainer.is_global_zero:
            for name, picture in pictures.items():
                self._save(trainer, folder, name, picture)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count."""
        self._validations += not trainer.sanity_checking

    def _save(self, trainer: Trainer, folder: Path, name: str, picture: Plot) -> None:
        step = trainer.global_step
        try:
            image = draw(picture)
        except Exception:
            logger.error("drawing %s (%s) at step %d failed", name, type(picture).__name__, step)
            raise
        folder.mkdir(parents=True, exist_ok=True)
        caption = f"{EXPLANATIONS[type(picture)]} Step {step}."
        path = folder / f"{re.sub(r'[^A-Za-z0-9_.]+', '-', name)}--step{step:08d}.png"
        path.write_bytes(encode_png(image, title=name, caption=caption))
        for target in trainer.loggers:
            if isinstance(target, TensorBoardLogger):
                target.experiment.add_image(f"val/{name}", image, step, dataformats="HWC")


class FinalReport(Callback):
    """Writes `report.html` and `report.json` into the log folder when fitting ends, and says where they are.

    The page holds the run's facts, the figures of every module, task or callback with a `figures` method, the last
    validation numbers, the newest picture of each name in `<log_dir>/pictures`, the curves, and the configuration
    where LightningCLI saved one. Put it after the callbacks that measure.

    Args:
        title: Heading of the page.
        text: Plain text under the heading; empty lines separate paragraphs.
    """

    def __init__(self, title: str = "OmniStream training run", text: str = "") -> None:
        self.title = title
        self.text = text
        self._start = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page on rank zero."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # a collective: on every process
        if trainer.is_global_zero:
            flush_logs(trainer)
            page = self.build(trainer, pl_module, folder)
            path = page.write(folder / "report.html")
            rank_zero_info(f"The page of this run: {path.resolve()}")

    def build(self, trainer: Trainer, pl_module: LightningModule, folder: Path) -> ReportPage:
        """The page of a run whose logs are in `folder`."""
        page = ReportPage(self.title)
        if self.text:
            page.add_text(self.text)
        rows = collect_figures([pl_module, *tasks_of(pl_module).values(), *trainer.callbacks])  # type: ignore[attr-defined]
        if rows:
            page.add_figures(rows)
        page.add_info(run_info(trainer, pl_module, seconds=time.monotonic() - self._start))
        validation = [
            FigureRow(name=name.removeprefix("val/"), value=float(value))
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith("val/")
        ]
        add_pictures(page, folder / "pictures")
        add_curves(page, folder)
        if validation:
            page.add_figures(validation, title="Last validation")
        config = folder / "config.yaml"
        if config.is_file():
            page.add_collapsed("Configuration", config.read_text(encoding="utf-8"))
        return page


def flush_logs(trainer: Trainer) -> None:
    """Make sure that what was logged is in the files."""
    for target in trainer.loggers:
        if isinstance(target, TensorBoardLogger):
            target.experiment.flush()
        elif isinstance(target, CSVLogger):
            target.save()


def add_pictures(page: ReportPage, folder: Path) -> None:
    """The newest picture of each name in a folder that ValidationPlots wrote; nothing if there is none."""
    newest = {path.name.rsplit("--step", 1)[0]: path for path in sorted(folder.glob("*--step*.png"))}
    if newest:
        page.add_heading("Pictures")
    for path in newest.values():
        with Image.open(path) as image:
            title, caption = image.info["Title"], image.info["Description"]
        page.add_picture(title, path.read_bytes(), caption)


def add_curves(page: ReportPage, folder: Path) -> None:
    """The curves of the logs in a folder; a line saying so where there is no log or no curve."""
    try:
        scalars = read_scalars(folder)
    except FileNotFoundError:
        page.add_text("This run kept no TensorBoard or CSV log, so there are no curves.", title="Curves")
        return
    if panels(scalars):
        page.add_heading("Curves")
        caption = "Losses per task, learning rate and throughput over the optimiser steps."
        page.add_picture("Curves of the run", draw_curves(scalars), caption)
    else:
        page.add_text("Nothing was logged, so there are no curves.", title="Curves")
