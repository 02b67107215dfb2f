"""Constructor arguments as plain data, saved in checkpoints so that `load_from_checkpoint` needs nothing else.

Objects become `{"class_path": ..., "init_args": {...}}`, as in a configuration file: settings (dataclasses), objectives
and backbones. Only such data is written, so a checkpoint stays loadable with `weights_only=True`; and only classes of
this library, or of modules that are already imported, are built from it, so reading one runs no foreign code.
"""

import inspect
import sys
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from omnistream.backbone import OmniStream

_PLAIN = (str, int, float, bool, type(None))


def to_plain(value: Any) -> Any:
    """Plain data for a constructor argument.

    Raises:
        TypeError: If it holds an object that cannot be built from plain data.
    """
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_plain(item) for item in value)
    return {"class_path": f"{type(value).__module__}.{type(value).__qualname__}", "init_args": _init_args(value)}


def _init_args(value: Any) -> dict[str, Any]:
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value) if field.init}
    if isinstance(value, OmniStream):
        names = inspect.signature(type(value).__init__).parameters
        return {name: to_plain(getattr(value, name)) for name in names if hasattr(value, name)}
    if isinstance(value, nn.Module) and getattr(value, "hparams", None):
        return dict(value.hparams)  # type: ignore[arg-type]
    raise TypeError(f"{type(value).__qualname__} cannot be built from plain data")


def from_plain(value: Any) -> Any:
    """The constructor argument that `to_plain` described.

    Raises:
        ValueError: If a class is not of this library and not imported, or is no dataclass and no module.
    """
    if isinstance(value, dict):
        if value.keys() == {"class_path", "init_args"}:
            return _class(value["class_path"])(**from_plain(value["init_args"]))
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(from_plain(item) for item in value)
    return value


def _class(path: str) -> type:
    module_name, _, name = path.rpartition(".")
    if module_name.partition(".")[0] == "omnistream":
        import_module(module_name)
    found = getattr(sys.modules.get(module_name), name, None)
    if not isinstance(found, type) or not (is_dataclass(found) or issubclass(found, nn.Module)):
        raise ValueError(f"the checkpoint was made with {path}, which is not imported; import its module first")
    return found


def constructor_arguments(module: nn.Module, given: dict[str, Any]) -> dict[str, Any]:
    """Plain data for those arguments of a module's constructor that can be described.

    Args:
        module: Under construction.
        given: `locals()` of the constructor; arguments of a base class, and variables, are left out.
    """
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(type(module).__init__).parameters.items():
        if name in given and name != "self":
            arguments |= given[name] if parameter.kind is parameter.VAR_KEYWORD else {name: given[name]}
    described = {}
    for name, value in arguments.items():
        with suppress(TypeError):  # a foreign object: load_from_checkpoint has to be given it
            described[name] = to_plain(value)
    return described
