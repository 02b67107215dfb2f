"""The HTML report of a run, written when fitting ends."""

import time
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image

from omnistream.plots.collect import tasks_of
from omnistream.plots.curves import draw_curves
from omnistream.plots.logs import read_scalars
from omnistream.plots.panels import panels
from omnistream.plots.titles import metric_title
from omnistream.report.page import ReportPage
from omnistream.report.rows import HasMetricRows, MetricRow
from omnistream.report.run_info import run_info


class FinalReport(Callback):
    """Writes `report.html` and `report.json` into the log folder when fitting ends, and prints their paths.

    The page holds the run's facts, the results of every module, task or callback with a `metric_rows` method, the last
    validation metrics, the newest plot of each name in `<log_dir>/plots`, the curves, and the configuration
    where LightningCLI saved one. Put it after the callbacks that evaluate.

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
        """Write the report on rank zero."""
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
        parts = [pl_module, *tasks_of(pl_module).values(), *trainer.callbacks]  # type: ignore[attr-defined]
        if rows := [row for part in parts if isinstance(part, HasMetricRows) for row in part.metric_rows()]:
            page.add_rows(rows)
        page.add_info(run_info(trainer, pl_module, seconds=time.monotonic() - self._start))
        validation = [
            MetricRow(name=metric_title(name.removeprefix("val/")), value=float(value))
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith("val/")
        ]
        add_plots(page, folder / "plots")
        add_curves(page, folder)
        if validation:
            page.add_rows(validation, title="Last validation")
        config = folder / "config.yaml"
        if config.is_file():
            page.add_collapsed("Configuration", config.read_text(encoding="utf-8"))
        return page


def flush_logs(trainer: Trainer) -> None:
    """Flush the loggers."""
    for target in trainer.loggers:
        if isinstance(target, TensorBoardLogger):
            target.experiment.flush()
        elif isinstance(target, CSVLogger):
            target.save()


def add_plots(page: ReportPage, folder: Path) -> None:
    """The newest plot of each name in a folder that ValidationPlots wrote; nothing if there is none."""
    newest = {path.name.rsplit("--step", 1)[0]: path for path in sorted(folder.glob("*--step*.png"))}
    if newest:
        page.add_heading("Plots")
    for path in newest.values():
        with Image.open(path) as image:
            title, caption = image.info["Title"], image.info["Description"]
        page.add_plot(title, path.read_bytes(), caption)


def add_curves(page: ReportPage, folder: Path) -> None:
    """The curves of the logs in a folder; a sentence in their place if there is no log or no curve."""
    try:
        scalars = read_scalars(folder)
    except FileNotFoundError:
        page.add_text("This run kept no TensorBoard or CSV log, so there are no curves.", title="Curves")
        return
    if panels(scalars):
        page.add_heading("Curves")
        caption = "Losses per task, learning rate and throughput over the optimiser steps."
        page.add_plot("Curves of the run", draw_curves(scalars), caption)
    else:
        page.add_text("Nothing was logged, so there are no curves.", title="Curves")
