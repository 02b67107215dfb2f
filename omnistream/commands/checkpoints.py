"""`--ckpt_path`: which checkpoint is meant, and what happens without one."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from omnistream.backbone.weights.files import RUN_KEYS, read_file
from omnistream.commands.run_folders import checkpoint_folders
from omnistream.errors import UsageError, one_line
from omnistream.run_config import find_checkpoint, find_run_config, newest_checkpoint

_LIGHTNINGS = ("best", "hpc")
"""Names of checkpoints that Lightning itself knows how to find."""
_TRAINING_KEYS = ("optimizer_states", "loops")
"""What a checkpoint of weights alone lacks."""

RANDOM = "--random"
"""Option that lets an evaluation run on random weights."""


def find_ckpt_path(value: str, trainer: Namespace, subcommand: str) -> str:
    """The checkpoint meant by `--ckpt_path`.

    Args:
        value: Path of a checkpoint or of a run folder, with `~` and `$VAR`; `last`; or a name that Lightning
            itself knows, such as `best`.
        trainer: Settings of the trainer, which say where this configuration's runs are.
        subcommand: What the checkpoint is for: `fit` needs the state of the optimiser too.

    Raises:
        UsageError: If there is none, if the file is no checkpoint, or if an address is given: Lightning would run the
            code that a file from there may hold.
    """
    if value in _LIGHTNINGS:
        return value
    if "://" in value:
        raise UsageError(
            f"--ckpt_path {value}: checkpoints are read from files only; download it first and give the file"
        )
    if value != "last":
        try:
            found = find_checkpoint(value)
        except FileNotFoundError as error:
            raise UsageError(f"--ckpt_path: {error}") from error
        if found.is_file():
            _check_file(found, training=subcommand == "fit")
        return str(found)
    folders = checkpoint_folders(trainer)
    newest = newest_checkpoint(folders)
    if newest is None:
        places = ", ".join(map(str, folders[-3:])) or "any folder"
        raise UsageError(
            f"--ckpt_path last: no run of this configuration has saved a checkpoint in {places}; leave it out to start "
            "a new run"
        )
    rank_zero_info(f"--ckpt_path last is {newest}")
    return str(newest)


def has_random_weights(model: LightningModule, config: Namespace) -> bool:
    """Whether a model without checkpoint has untrained weights.

    That is so if it has weights to train, or names a backbone without `checkpoint` and without `pretrained`. A model
    that takes its weights from `init_from` has none. One that makes its weights later, as probes do, says whether it
    has any to train in the attribute `needs_training`.

    Args:
        model: As built.
        config: Its class and arguments.
    """
    if config.get("init_args") and config.init_args.get("init_from"):
        return False
    trained = any(parameter.requires_grad for parameter in model.parameters())
    return trained or getattr(model, "needs_training", False) or _names_random_backbone(config.as_dict())


def allow_random_weights(allowed: bool, subcommand: str, model: LightningModule) -> None:
    """Warn that the weights are random, or raise.

    Args:
        allowed: Whether `--random` was given.
        subcommand: What needs weights.
        model: As built; it may name the option for its weights in the attribute `weights_option`.

    Raises:
        UsageError: If they are not allowed.
    """
    if not allowed:
        option = getattr(model, "weights_option", None)
        given = (
            f"{option} with a checkpoint or run folder"
            if option
            else "--ckpt_path with a checkpoint, a run folder or last"
        )
        raise UsageError(
            f"{subcommand} needs weights: give {given} (or {RANDOM}, to try the configuration on random weights)"
        )
    _warn(f"omnistream: {RANDOM}: the weights of this model are random, so its results are meaningless")


@rank_zero_only
def _warn(message: str) -> None:
    print(message, file=sys.stderr)


def _names_random_backbone(value: Any) -> bool:
    if isinstance(value, Mapping):
        name, settings = value.get("class_path"), value.get("init_args") or {}
        if isinstance(name, str) and name.rsplit(".", 1)[-1] in ("OmniStream", "create_model"):
            return not (settings.get("checkpoint") or settings.get("pretrained"))
        return any(map(_names_random_backbone, value.values()))
    return isinstance(value, list) and any(map(_names_random_backbone, value))


def _check_file(path: Path, training: bool) -> None:
    """Check that a file is a training checkpoint; its tensors are mapped, not read.

    Raises:
        UsageError: If it is not, or if training cannot go on from it.
    """
    try:
        content = read_file(path)
    except ValueError as error:
        raise UsageError(f"--ckpt_path: {error}") from error
    if not isinstance(content, Mapping) or any(key not in content for key in RUN_KEYS):
        raise UsageError(
            f"--ckpt_path: {path} is not a checkpoint of `omnistream fit`. Weights of a backbone go to "
            "--model.backbone.checkpoint, those of a whole model to --model.init_from"
        )
    if training and (missing := [key for key in _TRAINING_KEYS if key not in content]):
        raise UsageError(
            f"--ckpt_path: {path} holds weights but no {' and no '.join(missing)}, so training cannot go on from it; "
            "start a new run with --model.init_from in place of --ckpt_path"
        )


def refused_weights(path: str, complaint: str) -> UsageError:
    """The error of a checkpoint whose weights do not fit the model: which one, and which configuration fits it."""
    config = find_run_config(Path(path)) if Path(path).exists() else None
    advice = f"; its own configuration is {shown(config)}" if config else ""
    return UsageError(f"--ckpt_path {path}: {one_line(complaint, 400)}{advice}")


def shown(path: Path) -> Path:
    """The path as a user of the working directory would write it."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
