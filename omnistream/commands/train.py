"""`omnistream fit|validate|test|predict`: LightningCLI with packaged configurations and one-line errors."""

import logging
import warnings
from argparse import ArgumentError
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import BasePredictionWriter, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

# Classes that are imported can be named without their module in YAML; this also registers the strategy `fsdp2`.
import omnistream.data
import omnistream.tasks  # noqa: F401
from omnistream.callbacks import PredictionWriter, TaskProgressBar
from omnistream.commands.overrides import prepare
from omnistream.commands.parse_errors import shorten
from omnistream.errors import UsageError


class SaveConfig(SaveConfigCallback):
    """Writes the full configuration of a run to `config.yaml` in its log folder.

    A run that is resumed or repeated in the same folder replaces the file; if the settings differ, the old file is kept
    as `config.1.yaml`, `config.2.yaml` and so on, so no record is lost and no run stops because of it.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called on every process; rank zero writes."""
        folder = trainer.log_dir  # a collective: every process must ask
        if self.already_saved or folder is None or getattr(trainer, "fast_dev_run", False):
            return
        self.already_saved = True
        if trainer.is_global_zero:
            self._write(Path(folder))

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / self.config_filename
        content = self.parser.dump(self.config, skip_none=False)
        if target.exists() and target.read_text(encoding="utf-8") != content:
            target.rename(next(path for n in range(1, 10**6) if not (path := folder / f"config.{n}.yaml").exists()))
        # A crash between open and close must not leave half a file behind.
        draft = target.with_suffix(".tmp")
        draft.write_text(content, encoding="utf-8")
        draft.replace(target)


class OmniStreamCLI(LightningCLI):
    """LightningCLI whose parsers raise `UsageError` with one line instead of printing their usage."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that raises instead of leaving the process."""
        return super().init_parser(**kwargs, prog="omnistream", exit_on_error=False)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and word what is wrong."""
        try:
            self.config = parser.parse_args(args)  # type: ignore[arg-type]
        except ArgumentError as error:
            assert isinstance(args, list)
            raise UsageError(shorten(str(error), self._known_keys(args[0]))) from error

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; a complaint of a constructor comes out in its own words."""
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            raise UsageError(shorten(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer with the bar that is named among its callbacks, with ours if none is, or with none if so told.

        Lightning itself refuses `enable_progress_bar: false` beside a bar, and its own counts steps of a run without
        epochs as "Epoch 0/-2". Predictions get a writer if none is named.
        """
        given = self._get(self.config_init, "trainer")
        callbacks = given.callbacks if isinstance(given.callbacks, list) else [given.callbacks] * bool(given.callbacks)
        if given.enable_progress_bar is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
        elif not any(isinstance(callback, ProgressBar) for callback in callbacks):
            callbacks = [*callbacks, TaskProgressBar()]
        if self.subcommand == "predict" and not any(isinstance(one, BasePredictionWriter) for one in callbacks):
            callbacks = [*callbacks, PredictionWriter()]
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)

    def _known_keys(self, subcommand: str) -> list[str]:
        return list(self._subcommand_parsers[subcommand].get_defaults().keys())


def quieten() -> None:
    """Hide messages of Lightning's that are about nothing a user of ours can or should change."""
    for message in (
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning calls torch's own renamed helper
        r"Found \d+ module\(s\) in eval mode",  # teachers are in eval mode on purpose
        r"Using ModelCheckpoint with manual optimization",  # the state after the step is what we resume from
        r".*does not have many workers which may be a bottleneck",  # samples may be rendered in the main process
        r"FSDP2-wrapped module \(.*\) returned a view tensor",  # of in-place changes; tests show none matter
    ):
        warnings.filterwarnings("ignore", message)
    # A logger keeps one copy of a filter it is given twice.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return not any(product in record.getMessage() for product in ("litlogger", "litmodels"))


def run(subcommand: str, arguments: list[str]) -> None:
    """Run one of LightningCLI's subcommands.

    Args:
        subcommand: `fit`, `validate`, `test` or `predict`.
        arguments: What follows it on the command line.

    Raises:
        UsageError: If a key, path or value is wrong.
    """
    quieten()
    try:
        OmniStreamCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=SaveConfig,
            trainer_defaults={"use_distributed_sampler": False},  # our data modules share the samples out themselves
            args=[subcommand, *prepare(arguments)],
        )
    except MisconfigurationException as error:
        raise UsageError(str(error)) from error
    except IsADirectoryError as error:
        if not (Path(error.filename) / ".metadata").is_file():
            raise
        raise UsageError(
            f"{error.filename} is a distributed checkpoint, which only sharded training reads; add --trainer.strategy "
            "fsdp2, with any number of devices"
        ) from error
