"""`omnistream fit|validate|test|predict`: LightningCLI with packaged configurations and one-line errors."""

import logging
import shlex
import warnings
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import yaml
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import BasePredictionWriter, ModelSummary, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_only

# Classes that are imported can be named without their module in YAML; this also registers the strategy `fsdp2`.
import omnistream.data
import omnistream.tasks  # noqa: F401
from omnistream.callbacks import FinalReport, ParameterSummary, PredictionWriter, RunFolder, TaskProgressBar
from omnistream.commands.checkpoints import (
    RANDOM,
    allow_random_weights,
    find_ckpt_path,
    has_random_weights,
    refused_weights,
    shown,
)
from omnistream.commands.diagnosis import explain_construction, explain_parsing
from omnistream.commands.interrupt import StopOnSignal
from omnistream.commands.overrides import prepare, split
from omnistream.commands.run_folders import evaluation_logger, no_leftovers
from omnistream.commands.short_help import short_help
from omnistream.errors import Stopped, UsageError
from omnistream.run_config import is_distributed_checkpoint

EVALUATIONS = ("validate", "test", "predict")
"""Subcommands that need weights."""
WEIGHTS_COMPLAINTS = ("the checkpoint ", "Error(s) in loading state_dict")
"""How our modules, and PyTorch, begin to say that the weights of a checkpoint are those of another model."""


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
    """LightningCLI whose parsers raise `UsageError` with one line instead of printing their usage.

    Args:
        *args: Those of `LightningCLI`.
        stop: Ends the command on a signal; added to the callbacks.
        random: Whether `validate`, `test` and `predict` may run on random weights.
        **kwargs: Those of `LightningCLI`.
    """

    def __init__(self, *args: Any, stop: StopOnSignal | None = None, random: bool = False, **kwargs: Any) -> None:
        self.stop = stop or StopOnSignal()
        self.random = random
        super().__init__(*args, **kwargs)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that raises instead of leaving the process, and takes no abbreviated options."""
        return super().init_parser(**kwargs, prog="omnistream", exit_on_error=False, allow_abbrev=False)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and word what is wrong."""
        try:
            self.config = parser.parse_args(args)  # type: ignore[arg-type]
        except ArgumentError as error:
            assert isinstance(args, list)
            configs, overrides, rest = split(args[1:])
            if rest:
                message = f"unexpected argument {rest[0]!r}; options are written --key value"
                raise UsageError(message) from error
            config = yaml.safe_load(configs[0]) if configs else {}
            raise UsageError(explain_parsing(error, config, overrides, self._known_keys(args[0]))) from error

    def _parse_ckpt_path(self) -> None:
        """Find the checkpoint.

        Lightning would read all of it here, for hyper-parameters that then replace those given on the command line.
        """
        subcommand = self.config.get("subcommand")
        if subcommand and (value := self.config[subcommand].ckpt_path):
            config = self.config[subcommand]
            config.ckpt_path = find_ckpt_path(str(value), config.trainer, subcommand)

    def before_instantiate_classes(self) -> None:
        """Let an evaluation write beside its checkpoint, not to the folder of a new run."""
        if self.subcommand in EVALUATIONS:
            config = self.config[self.subcommand]
            path = Path(config.ckpt_path) if config.ckpt_path else None
            config.trainer.logger = evaluation_logger(config.trainer, self.subcommand, path)

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; a complaint of a constructor comes out in its own words."""
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            config = self.config[self.subcommand] if self.subcommand else self.config
            raise UsageError(explain_construction(error, config.as_dict())) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer with our progress bar, model summary, writer of predictions and last line, unless others are named.

        Lightning itself refuses `enable_progress_bar: false` beside a bar, and its own counts steps of a run without
        epochs as "Epoch 0/-2".
        """
        given = self._get(self.config_init, "trainer")
        callbacks = given.callbacks if isinstance(given.callbacks, list) else [given.callbacks] * bool(given.callbacks)

        def has(kind: type) -> bool:
            return any(isinstance(callback, kind) for callback in callbacks)

        if given.enable_progress_bar is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
        elif not has(ProgressBar):
            callbacks = [*callbacks, TaskProgressBar()]
        if given.enable_model_summary is not False and not has(ModelSummary):
            callbacks = [*callbacks, ParameterSummary()]
            kwargs["enable_model_summary"] = False  # Lightning would say that it adds none of its own
        if self.subcommand == "fit" and not has(FinalReport):
            callbacks = [*callbacks, RunFolder()]
        if self.subcommand == "predict" and not has(BasePredictionWriter):
            callbacks = [*callbacks, PredictionWriter()]
        trainer = super().instantiate_trainer(callbacks=callbacks, **kwargs)
        trainer.callbacks.append(self.stop)  # type: ignore[attr-defined]  # after ModelCheckpoint, which Lightning puts last
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        """Run, if there are weights."""
        path = self.config[subcommand].ckpt_path
        if not path and subcommand in EVALUATIONS and has_random_weights(self.model, self.config[subcommand].model):
            allow_random_weights(self.random, subcommand, self.model)
        with no_leftovers(self.trainer, lambda: self.stop.trained):
            try:
                super()._run_subcommand(subcommand)
            except (ValueError, RuntimeError) as error:
                if path and str(error).startswith(WEIGHTS_COMPLAINTS):
                    raise refused_weights(path, str(error)) from error
                raise

    def _known_keys(self, subcommand: str) -> list[str]:
        return list(self._subcommand_parsers[subcommand].get_defaults().keys())


def quieten() -> None:
    """Hide messages of Lightning's that are about nothing a user of ours can or should change."""
    for message in (
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning calls torch's own renamed helper
        r"Found \d+ module\(s\) in eval mode",  # teachers are in eval mode on purpose
        r"Using ModelCheckpoint with manual optimization",  # the state after the step is what we resume from
        r".*does not have many workers which may be a bottleneck",  # samples may be rendered in the main process
        r"You have overridden `transfer_batch_to_device` in `LightningModule`",  # ours moves the batches of any data
        r"The dirpath has changed from",  # a resumed run writes to a folder of its own
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
        UsageError: If a key, path or value is wrong, or there are no weights to evaluate.
        Stopped: After Ctrl-C or SIGTERM.
    """
    if (
        asked := next((index for index, argument in enumerate(arguments) if argument in ("-h", "--help")), None)
    ) is not None:
        if arguments[asked + 1 : asked + 2] != ["all"]:
            print(short_help(subcommand), end="")
            return
        arguments = ["--help"]
    quieten()
    random = RANDOM in arguments
    if random and subcommand == "fit":
        raise UsageError(f"{RANDOM} is for {', '.join(EVALUATIONS)}; training starts from what the configuration says")
    prepared = prepare([argument for argument in arguments if argument != RANDOM])
    stop = StopOnSignal()
    try:
        with stop.installed():
            _start(subcommand, prepared, stop=stop, random=random)
    except Stopped as stopped:
        if getattr(rank_zero_only, "rank", 0) != 0:
            raise SystemExit(0) from None  # with another code Lightning would kill the first process
        if stopped.checkpoint:
            stopped.resume = resume_command(subcommand, arguments, stopped.checkpoint)
        elif stopped.step is None:
            stop.end_children()
        raise


def _start(subcommand: str, arguments: list[str], **options: Any) -> None:
    """Parse, build and run; Lightning's exceptions become ours."""
    try:
        OmniStreamCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=SaveConfig,
            trainer_defaults={"use_distributed_sampler": False},  # our data modules share the samples out themselves
            args=[subcommand, *arguments],
            **options,
        )
    except MisconfigurationException as error:
        raise UsageError(str(error)) from error
    except IsADirectoryError as error:
        if not is_distributed_checkpoint(Path(error.filename)):
            raise
        raise UsageError(
            f"{error.filename} is a distributed checkpoint, which only sharded training reads; add --trainer.strategy "
            "fsdp2, with any number of devices"
        ) from error


def resume_command(subcommand: str, arguments: list[str], checkpoint: Path) -> str:
    """The command line that goes on from a checkpoint.

    Args:
        subcommand: That was stopped.
        arguments: What followed it.
        checkpoint: Where it was saved; written relative to the working directory where it lies below it.
    """
    kept = list(arguments)
    for index in reversed(range(len(kept))):
        if kept[index] == "--ckpt_path":
            del kept[index : index + 2]
        elif kept[index].startswith("--ckpt_path="):
            del kept[index]
    return shlex.join(["omnistream", subcommand, *kept, "--ckpt_path", str(shown(checkpoint))])
