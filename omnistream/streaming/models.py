"""A backbone and, where the checkpoint has them, geometry heads: from a training checkpoint or published weights.

A training checkpoint holds tensors only; what they belong to is said by the `config.yaml` that the run wrote. Classes
named in it are compared with the two that are built here, never imported.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from omnistream.backbone import OmniStream, create_model
from omnistream.errors import UsageError, one_line
from omnistream.run_config import Described, find_run_config, read_run_config, run_folders
from omnistream.tasks.geometry import GeometryModule

_LOADED_OTHERWISE = frozenset({"checkpoint", "pretrained", "activation_checkpointing"})
_FOR_TRAINING = frozenset({"backbone", "optimizer", "photometric", "activation_checkpointing"})


@dataclass(frozen=True)
class StreamModel:
    """What streams."""

    backbone: OmniStream
    """In eval mode."""
    geometry: GeometryModule | None
    """Heads built for the backbone, in eval mode; None if there are none."""
    origin: str
    """Where it comes from, for the summary."""


def random_model(variant: str) -> StreamModel:
    """Random weights, for trying out a source or measuring speed."""
    return StreamModel(create_model(variant).eval(), None, f"{variant} with random weights")


def load_model(checkpoint: Path | str, *, variant: str | None = None, config: Path | str | None = None) -> StreamModel:
    """The model in a checkpoint.

    Args:
        checkpoint: A checkpoint written by `omnistream fit` (`.ckpt` with the run's `config.yaml` in its folder or one
            of the two above), a folder written by `OmniStream.save_pretrained`, or a file of weights.
        variant: Size of the backbone, for weights that do not come with a description; none for a training checkpoint.
        config: Another place of `config.yaml`.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        UsageError: If nothing says what the weights belong to, or `variant` or `config` would have no effect.
        ValueError: If they do not fit, or the file could run code when loaded.
    """
    path = Path(checkpoint)
    if path.suffix == ".ckpt" and path.is_file():
        state = _training_state(path)
        if state is not None and variant is not None:
            raise UsageError(f"{path} is a checkpoint of a training run, whose config.yaml says the variant; give none")
        if state is not None:
            return _from_training(path, state, _find_config(path) if config is None else Path(config))
    if config is not None:
        raise UsageError(f"a config belongs to a training checkpoint (.ckpt); {path} is none")
    return _from_weights(path, variant)


def _training_state(path: Path) -> dict[str, Tensor] | None:
    """Weights of a Lightning checkpoint; None if it is of another kind.

    Raises:
        ValueError: If it cannot be loaded or holds no weights.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is damaged, or could run code when loaded; not loaded") from error
    if not isinstance(content, dict) or "pytorch-lightning_version" not in content:
        return None
    state = content.get("state_dict")
    if not isinstance(state, dict):
        raise ValueError(f"{path} is a Lightning checkpoint without weights: it has no state_dict")
    return state


def _find_config(path: Path) -> Path:
    if (found := find_run_config(path)) is not None:
        return found
    raise UsageError(
        f"no config.yaml in {', '.join(map(str, run_folders(path)))}: name the one that the run wrote with --config, "
        "or turn the checkpoint into plain weights"
    )


def _from_training(path: Path, state: dict[str, Tensor], config: Path) -> StreamModel:
    model = read_run_config(config)
    if model is None:
        raise UsageError(f"{config} is not the configuration of a run: it has no model with class_path and init_args")
    described = Described.read(model.settings.get("backbone"))
    if described is None:
        raise UsageError(f"{config}: model.init_args.backbone does not describe a backbone")
    backbone = _build(OmniStream, described, _LOADED_OTHERWISE, config)
    _load(backbone, state, "backbone.", path)
    geometry, prefix = _find_geometry(model)
    heads = None
    if geometry is not None:
        heads = _build(GeometryModule, geometry, _FOR_TRAINING, config)
        heads.build(backbone)
        _load(heads, state, prefix, path)
        heads.eval()
    return StreamModel(backbone.eval(), heads, f"{path} ({backbone.variant}{', geometry heads' if heads else ''})")


def _find_geometry(model: Described) -> tuple[Described | None, str]:
    """Description of the geometry task and the prefix of its weights, wherever it stands in the model."""
    if model.class_path in _names(GeometryModule):
        return model, ""
    for name, value in (model.settings.get("tasks") or {}).items():
        task = Described.read(value)
        if task is not None and task.class_path in _names(GeometryModule):
            return task, f"tasks.{name}."
    return None, ""


def _names(kind: type) -> tuple[str, str, str]:
    """What a class may be called in YAML: its path in the package, in its module, and its bare name."""
    package, name = kind.__module__.rpartition(".")[0], kind.__name__
    return f"{package}.{name}", f"{kind.__module__}.{name}", name


def _build(kind: type, described: Described, without: frozenset[str], config: Path) -> Any:
    """An object of a class that is known here, with settings checked by the types of its constructor."""
    if described.class_path not in _names(kind):
        raise UsageError(f"{config} names the class {described.class_path!r}; only {_names(kind)[0]} is built here")
    settings = {key: value for key, value in described.settings.items() if key not in without}
    if _names_a_class(settings):
        raise UsageError(f"{config}: the settings of {kind.__name__} name further classes; only plain values are read")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "it", skip=set(without), fail_untyped=False)
    try:
        return parser.instantiate_classes(parser.parse_object({"it": settings})).it
    except Exception as error:  # whatever jsonargparse or the constructor says about a value in the file
        raise UsageError(f"{config}: {kind.__name__}: {one_line(error, 300)}") from error


def _names_a_class(value: Any) -> bool:
    if isinstance(value, dict):
        return "class_path" in value or any(map(_names_a_class, value.values()))
    return isinstance(value, list) and any(map(_names_a_class, value))


def _load(module: nn.Module, state: dict[str, Tensor], prefix: str, path: Path) -> None:
    own = {name: value.shape for name, value in module.state_dict().items()}
    found = {name: state[prefix + name] for name in own if prefix + name in state}
    wrong = sorted(own.keys() - found.keys()) or [name for name, value in found.items() if value.shape != own[name]]
    if wrong:
        raise ValueError(
            f"{path} does not fit its configuration: {len(wrong)} weights of {type(module).__name__} are missing or of "
            f"another shape, such as {prefix}{wrong[0]}"
        )
    module.load_state_dict(found)


def _from_weights(path: Path, variant: str | None) -> StreamModel:
    backbone = (
        OmniStream.from_pretrained(path) if variant is None else OmniStream.from_pretrained(path, variant=variant)
    )
    return StreamModel(backbone.eval(), None, f"{path} ({backbone.variant})")
