"""Fingerprints of models, data sets and functions: equal ones give equal features, in this and in any other process."""

import functools
import hashlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from multiprocessing.sharedctypes import SynchronizedBase
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from omnistream.data.broken_files import BrokenFiles
from omnistream.evaluation.environment import weights_sha256

_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, torch.dtype, torch.device)


def fingerprint(value: Any) -> str:
    """SHA-256 of a value: its type, its state, and the code of functions and classes.

    Objects are read as pickle reads them, so state that `__getstate__` leaves out does not count; neither do broken
    files that a data set has met, nor counters that worker processes share. Mappings in another order are different.

    Raises:
        ValueError: If a part has state that cannot be read, such as a lock.
    """
    digest = hashlib.sha256()
    _feed(digest, value, {})
    return digest.hexdigest()


def model_fingerprint(module: nn.Module) -> str:
    """SHA-256 of what decides a frozen model's outputs: weights, buffers, code, and plain attributes of its parts.

    Raises:
        ValueError: If the weights are sharded over processes.
    """
    weights = weights_sha256(module)
    if weights is None:
        raise ValueError("cached features are known by the model's weights, which must be whole on every process")
    saved = module.state_dict().keys()
    parts = [
        (name, type(part), {key: value for key, value in vars(part).items() if _is_setting(key, value)})
        for name, part in module.named_modules()
    ]
    buffers = [(name, value) for name, value in module.named_buffers() if name not in saved]
    return fingerprint((weights, parts, buffers))


def _is_setting(name: str, value: Any) -> bool:
    """Whether an attribute of a module is a plain setting; not whether it trains, as probes decide that themselves."""
    return not name.startswith("_") and name != "training" and _is_plain(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    if is_dataclass(value) and not isinstance(value, type):
        return all(map(_is_plain, vars(value).values()))
    return isinstance(value, (*_PLAIN, Enum, PurePath))


def _feed(digest: Any, value: Any, seen: dict[int, int]) -> None:
    """Add a value to a digest; `seen` numbers the objects around it, which may contain themselves."""
    if isinstance(value, _PLAIN) and not isinstance(value, Enum):
        digest.update(f"{type(value).__name__} {value!r};".encode())
    elif isinstance(value, PurePath):
        digest.update(f"path {value};".encode())
    elif isinstance(value, Tensor | np.ndarray | np.generic):
        _feed_array(digest, value, seen)
    elif id(value) in seen:
        digest.update(f"again {seen[id(value)]};".encode())
    else:
        seen[id(value)] = len(seen)
        digest.update(f"{type(value).__qualname__}(".encode())
        for part in _parts(value):
            _feed(digest, part, seen)
        digest.update(b")")
        del seen[id(value)]


def _feed_array(digest: Any, value: Any, seen: dict[int, int]) -> None:
    array = value.detach().cpu() if isinstance(value, Tensor) else np.asarray(value)
    digest.update(f"array {array.dtype} {tuple(array.shape)};".encode())
    if isinstance(array, Tensor):
        digest.update(array.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif array.dtype.hasobject:
        _feed(digest, array.tolist(), seen)
    else:
        digest.update(np.ascontiguousarray(array).tobytes())


def _parts(value: Any) -> list[Any]:
    """What a value consists of, as a list of simpler ones."""
    if isinstance(value, Enum):
        return [value.name]
    if isinstance(value, dict):
        return [part for item in value.items() for part in item]
    if isinstance(value, set | frozenset):
        return sorted(map(fingerprint, value))
    if type(value) in (list, tuple):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, FunctionType):
        function = inspect.unwrap(value)
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        return [function.__qualname__, function.__code__, function.__defaults__, function.__kwdefaults__, cells]
    if isinstance(value, CodeType):
        return [value.co_code, value.co_names, *value.co_consts]
    if isinstance(value, type):
        return [_class_sha256(value)]
    if isinstance(value, BuiltinFunctionType):
        return [value.__module__, value.__qualname__]
    if isinstance(value, re.Pattern):
        return [value.pattern, value.flags]
    if isinstance(value, torch.Generator):
        return [value.get_state()]
    if isinstance(value, BrokenFiles):
        return [value.limit]
    if isinstance(value, SynchronizedBase):  # a counter that worker processes share
        return []
    return _state(value)


def _state(value: Any) -> list[Any]:
    """Class and state of any other object."""
    try:
        reduced = value.__reduce_ex__(2)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"features of this data set cannot be kept in a folder: a {type(value).__qualname__} has state that cannot "
            f"be compared ({error}); leave it out in __getstate__ of the object that holds it, or set cache to true"
        ) from error
    if isinstance(reduced, str):
        return [type(value), reduced]
    _, arguments, *rest = reduced
    state, items, pairs = (*rest[:3], None, None, None)[:3]
    return [type(value), *arguments, state, list(items or ()), list(pairs or ())]


@functools.lru_cache(maxsize=4096)
def _class_sha256(kind: type) -> str:
    """Of the name of a class and the code of its own and inherited functions."""
    digest = hashlib.sha256()
    for base in kind.__mro__:
        digest.update(f"{base.__module__}.{base.__qualname__};".encode())
        for name, member in sorted(vars(base).items()):
            function = inspect.unwrap(getattr(member, "__func__", getattr(member, "fget", member)) or member)
            if isinstance(function, FunctionType):
                digest.update(name.encode())
                _feed(digest, function.__code__, {})
    return digest.hexdigest()
