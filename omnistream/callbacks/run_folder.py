"""The folder of a run, printed when fitting ends."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info


class RunFolder(Callback):
    """Prints the folder of the run when fitting ends, for runs without a `FinalReport`, which prints its own path."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the folder on rank zero."""
        folder = trainer.log_dir  # a collective: on every process
        if folder is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_info(f"The run is saved in {Path(folder).resolve()}")
