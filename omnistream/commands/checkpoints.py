"""`--ckpt_path`: which checkpoint is meant, and whether its weights are those of the model."""

import pickle
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from torch.distributed.checkpoint import FileSystemReader

from omnistream.commands.run_folders import checkpoint_folders
from omnistream.errors import UsageError
from omnistream.run_config import find_checkpoint, find_run_config, is_distributed_checkpoint, newest_checkpoint

_LIGHTNINGS = ("best", "hpc")
"""Names of checkpoints that Lightning itself knows how to find."""
_STATE = "state_dict"

RANDOM = "--random"
"""Option that lets an evaluation run on random weights."""

Shapes = dict[str, tuple[int, ...]]


def find_ckpt_path(value: str, trainer: Namespace) -> str:
    """The checkpoint meant by `--ckpt_path`.

    Args:
        value: Path of a checkpoint or of a run folder, with `~` and `$VAR`; `last`; or what Lightning itself knows: an
            address or `best`.
        trainer: Settings of the trainer, which say where this configuration's runs are.

    Raises:
        UsageError: If there is none.
    """
    if value in _LIGHTNINGS or "://" in value:
        return value
    if value != "last":
        try:
            return str(find_checkpoint(value))
        except FileNotFoundError as error:
            raise UsageError(f"--ckpt_path: {error}") from error
    folders = checkpoint_folders(trainer)
    found = newest_checkpoint(folders)
    if found is None:
        places = ", ".join(map(str, folders[-3:])) or "any folder"
        raise UsageError(
            f"--ckpt_path last: no run of this configuration has saved a checkpoint in {places}; leave it out to start "
            "a new run"
        )
    rank_zero_info(f"--ckpt_path last is {found}")
    return str(found)


def check_weights(path: str, model: LightningModule, resumes: bool) -> None:
    """Refuse a checkpoint of another model, and allow tasks to be left out.

    Args:
        path: The checkpoint.
        model: The model that the configuration describes; if tasks of the checkpoint are left out, it is set to accept
            their weights and ignore them.
        resumes: Whether training goes on, which needs the state of the optimizer for the same weights.

    Raises:
        UsageError: If weights are missing or have another shape, or tasks are left out of a run that is resumed.
    """
    if not Path(path).exists():
        return  # an address, or a name that Lightning knows
    saved = read_shapes(Path(path))
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    left_out = sorted({task for name in saved.keys() - own.keys() if (task := _task(name)) and not _has(own, task)})
    parameters = own if left_out else {name: own[name] for name, _ in model.named_parameters()}
    if mismatch := next(_mismatches(saved, parameters), None):
        raise UsageError(f"{path} belongs to another model: {mismatch}{_advice(Path(path))}")
    if left_out and resumes:
        raise UsageError(
            f"{path} also has {', '.join(left_out)}, so its optimizer state does not fit this model: start a new run "
            f"from its weights with --model.init_from {path} instead of --ckpt_path"
        )
    if left_out:
        model.strict_loading = False  # nothing is missing, as was just seen
        rank_zero_info(f"not loaded from {path}: {', '.join(left_out)}, which this configuration leaves out")


def has_random_weights(model: LightningModule, config: Namespace) -> bool:
    """Whether a model that gets no checkpoint has weights that nobody has trained.

    That is so if it has weights to train, or names a backbone without `checkpoint` and without `pretrained`. A model
    that takes its weights from `init_from` has none.

    Args:
        model: As built.
        config: Its class and arguments.
    """
    if config.get("init_args") and config.init_args.get("init_from"):
        return False
    trained = any(parameter.requires_grad for parameter in model.parameters())
    return trained or _names_random_backbone(config.as_dict())


def allow_random_weights(allowed: bool, subcommand: str) -> None:
    """Say that the weights are random, or refuse.

    Raises:
        UsageError: If they are not allowed.
    """
    if not allowed:
        raise UsageError(
            f"{subcommand} needs weights: give --ckpt_path with a checkpoint, a run folder or last (or {RANDOM}, to "
            "try the configuration on random weights)"
        )
    _warn(f"omnistream: {RANDOM}: the weights of this model are random, so its results mean nothing")


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


def read_shapes(path: Path) -> Shapes:
    """Shape of every weight in a checkpoint of training, without reading the weights.

    Raises:
        UsageError: If the file is no such checkpoint.
    """
    if is_distributed_checkpoint(path):
        entries = FileSystemReader(path).read_metadata().state_dict_metadata
        prefix = f"{_STATE}."
        return {
            key.removeprefix(prefix): tuple(getattr(entry, "size", ()))
            for key, entry in entries.items()
            if key.startswith(prefix)
        }
    if path.is_dir():
        raise UsageError(f"{path} is a folder, but neither a distributed checkpoint nor the folder of a run")
    try:
        content: Any = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise UsageError(f"{path} is not a checkpoint of `omnistream fit`, or is damaged") from error
    if not isinstance(content, Mapping) or _STATE not in content:
        raise UsageError(
            f"{path} has no training state: it is not a checkpoint of `omnistream fit`. Weights of a backbone go to "
            "--model.backbone.checkpoint"
        )
    return {name: tuple(getattr(value, "shape", ())) for name, value in content[_STATE].items()}


def _mismatches(saved: Shapes, own: Shapes) -> Iterator[str]:
    """What differs, the first weight of the model first."""
    for name, shape in own.items():
        if name not in saved:
            yield f"it has no {name}"
        elif saved[name] != shape:
            yield f"{name} is {list(saved[name])} there and {list(shape)} here"


def _task(name: str) -> str | None:
    """`tasks.<name>` for the weight of a task."""
    first, *rest = name.split(".")
    return f"tasks.{rest[0]}" if first == "tasks" and rest else None


def _has(shapes: Shapes, prefix: str) -> bool:
    return any(name.startswith(prefix + ".") for name in shapes)


def _advice(checkpoint: Path) -> str:
    config = find_run_config(checkpoint)
    return f"; its own configuration is {config}" if config else ""
