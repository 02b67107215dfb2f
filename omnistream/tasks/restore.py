"""Trained heads from a checkpoint and the description of its training module.

The description is plain data, from the checkpoint's hyper-parameters or the run's config.yaml. Class names in it are
compared with the classes that are built here; nothing is imported by name.
"""

from collections.abc import Collection
from typing import Any

from jsonargparse import ArgumentParser
from torch import nn

from omnistream.backbone import OmniStream
from omnistream.backbone.weights.formats import StateDict
from omnistream.backbone.weights.source import TrainingRun
from omnistream.errors import one_line
from omnistream.run_config import Described
from omnistream.tasks.objective import Objective

HEADS = ("geometry", "captioning")
"""Objectives whose heads are used after training."""

_OWN_WEIGHTS = {"geometry": ("dense.", "camera."), "captioning": ("decoder.", "projector.")}
_FOR_TRAINING = {"backbone", "optimizer", "nonfinite", "compile", "seed", "photometric", "activation_checkpointing"}


def restore_heads(run: TrainingRun, backbone: OmniStream, wanted: Collection[str] = HEADS) -> dict[str, Objective]:
    """The heads in a checkpoint, built for its backbone, in eval mode.

    Args:
        run: The checkpoint.
        backbone: With the weights of the checkpoint.
        wanted: Names from `HEADS`; those that the checkpoint does not have are left out.

    Raises:
        ValueError: If nothing describes the heads, or the weights do not fit the description.
    """
    found = {}
    for name in wanted:
        kind = _kind(name)
        for described, prefix in _places(run, name, kind):
            head = _build(kind, described, run)
            head.build(backbone)
            _load(head, run, prefix)
            found[name] = head.eval()
    return found


def _kind(name: str) -> type[Objective]:
    if name == "geometry":
        from omnistream.tasks.geometry import GeometryModule

        return GeometryModule
    if name == "captioning":
        from omnistream.tasks.captioning import CaptioningModule  # imports transformers

        return CaptioningModule
    raise ValueError(f"heads are {', '.join(HEADS)}, got {name!r}")


def _places(run: TrainingRun, name: str, kind: type[Objective]) -> list[tuple[Described, str]]:
    """Description and prefix of the weights of a head: a task of the module, the module itself, or nowhere."""
    module = run.module
    if module is None:
        return []
    tasks = module.settings.get("tasks")
    if isinstance(tasks, dict):
        described = [(Described.read(value), f"tasks.{task}.") for task, value in tasks.items()]
        return [(task, prefix) for task, prefix in described if task and task.class_path in _names(kind)][:1]
    alone = module.class_path in _names(kind) if module.class_path else _has_weights(run.tensors, _OWN_WEIGHTS[name])
    return [(module, "")] if alone else []


def _has_weights(tensors: StateDict, prefixes: tuple[str, ...]) -> bool:
    return all(any(key.startswith(prefix) for key in tensors) for prefix in prefixes)


def _names(kind: type) -> tuple[str, str, str]:
    """Names of a class in a description: its path in the package or module, or its bare name."""
    package, name = kind.__module__.rpartition(".")[0], kind.__name__
    return f"{package}.{name}", f"{kind.__module__}.{name}", name


def _build(kind: type[Objective], described: Described, run: TrainingRun) -> Any:
    """An objective with the settings of a description, checked by the types of its constructor."""
    settings = {key: _plain(value, run) for key, value in described.settings.items() if key not in _FOR_TRAINING}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "it", skip=set(_FOR_TRAINING), fail_untyped=False)
    try:
        return parser.instantiate_classes(parser.parse_object({"it": settings})).it
    except Exception as error:  # errors of jsonargparse or the constructor about a value
        raise ValueError(f"{run.path}: settings of {kind.__name__}: {one_line(error, 300)}") from error


def _plain(value: Any, run: TrainingRun) -> Any:
    """Arguments without the names of this library's dataclasses, which follow from the types of the constructor.

    Raises:
        ValueError: If another class is named.
    """
    if (inner := Described.read(value)) is not None:
        if not inner.class_path.startswith("omnistream."):
            raise ValueError(f"{run.path}: its settings name the class {inner.class_path!r}, which is not built here")
        return _plain(inner.settings, run)
    if isinstance(value, dict):
        return {key: _plain(item, run) for key, item in value.items()}
    return [_plain(item, run) for item in value] if isinstance(value, list | tuple) else value


def _load(module: nn.Module, run: TrainingRun, prefix: str) -> None:
    own = {name: value.shape for name, value in module.state_dict().items()}
    found = {name: run.tensors[prefix + name] for name in own if prefix + name in run.tensors}
    wrong = sorted(own.keys() - found.keys()) or [name for name, value in found.items() if value.shape != own[name]]
    if wrong:
        raise ValueError(
            f"{run.path} does not fit its description: {len(wrong)} weights of {type(module).__name__} are missing or "
            f"of another shape, such as {prefix}{wrong[0]}"
        )
    module.load_state_dict(found)
