"""Where runs are: the folders of earlier ones, the folder of an evaluation, and folders of runs that never began.

Training writes to a new `<save_dir>/<name>/version_N`. An evaluation of a checkpoint writes below the run that the
checkpoint belongs to, `version_N/validate`, `version_N/test` or `version_N/predict`; without such a run to
`<save_dir>/<name>/validate` and so on. It replaces what an earlier one left there. A logger whose version is given, or
that is not of TensorBoard or CSV, is left as it is.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import Trainer

from omnistream.run_config import find_run_config

_TENSORBOARD = "lightning.pytorch.loggers.TensorBoardLogger"
_FOLDER_LOGGERS = ("TensorBoardLogger", "CSVLogger")
_LEFTOVERS = ("config*.yaml", "hparams.yaml", "events.out.tfevents.*")
"""What is in the folder of a run that has done nothing yet."""


def evaluation_logger(trainer: Namespace, subcommand: str, checkpoint: Path | None) -> Any:
    """Settings of the logger of an evaluation.

    Args:
        trainer: Settings of the trainer.
        subcommand: `validate`, `test` or `predict`; the name of the folder.
        checkpoint: The checkpoint that is evaluated.

    Returns:
        Settings for `trainer.logger`: those given, or those of a logger of the same kind that writes to the folder
        described above.
    """
    given = _logger(trainer)
    if given is None or given["class_path"].rsplit(".", 1)[-1] not in _FOLDER_LOGGERS:
        return trainer.logger
    settings = given["init_args"]
    if settings.get("version") is not None:
        return trainer.logger
    config = find_run_config(checkpoint) if checkpoint else None
    folder = config.parent if config and os.access(config.parent, os.W_OK) else _root(settings)
    named = Namespace({**settings.__dict__, "save_dir": str(folder), "name": "", "version": subcommand})
    return Namespace(class_path=given["class_path"], init_args=named)


def checkpoint_folders(trainer: Namespace) -> list[Path]:
    """Folders in which the runs of a configuration leave checkpoints.

    Args:
        trainer: Settings of the trainer.
    """
    callbacks = (
        trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks] * bool(trainer.callbacks)
    )
    chosen = [one.init_args.get("dirpath") for one in callbacks if one.class_path.endswith(".ModelCheckpoint")]
    if any(chosen):
        return [Path(folder) for folder in chosen if folder]
    given = _logger(trainer)
    if given is None:
        return [_default_root(trainer)]
    settings = given["init_args"]
    root, version = _root(settings), settings.get("version")
    if version is not None:
        return [root / (version if isinstance(version, str) else f"version_{version}")]
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else [root]


def _logger(trainer: Namespace) -> Namespace | None:
    """Class and arguments of the first logger; those of Lightning's own where none is named; None without one."""
    given = trainer.logger[0] if isinstance(trainer.logger, list) and trainer.logger else trainer.logger
    if given is False:
        return None
    if isinstance(given, Namespace):
        return given
    settings = Namespace(save_dir=str(_default_root(trainer)), name="lightning_logs", version=None)
    return Namespace(class_path=_TENSORBOARD, init_args=settings)


def _root(settings: Namespace) -> Path:
    return Path(settings.get("save_dir") or ".") / (settings.get("name") or "")


def _default_root(trainer: Namespace) -> Path:
    return Path(trainer.default_root_dir or ".")


@contextmanager
def no_leftovers(trainer: Trainer, began: Callable[[], bool]) -> Iterator[None]:
    """Remove the folder that a run has made if it fails before it has done anything.

    Args:
        trainer: About to run.
        began: Whether a step of training has been made; asked after a failure.
    """
    logged = [one.log_dir for one in trainer.loggers if trainer.is_global_zero]
    folders = [Path(folder) for folder in logged if folder]
    missing = [path for folder in folders for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        if not began():
            _remove_unused(missing)
        raise


def _remove_unused(folders: list[Path]) -> None:
    """Remove those folders, inner ones first, that hold nothing but what is written at the start of a run."""
    for folder in folders:
        if not folder.is_dir():
            continue
        left = [path for path in folder.iterdir() if path.is_dir() or not any(map(path.match, _LEFTOVERS))]
        if not left:
            shutil.rmtree(folder)
