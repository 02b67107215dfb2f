"""The code that some methods run: their own, and that of the helpers which they call."""

import functools
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from lightning import LightningModule

_PLAIN = (bool, int, float, str, bytes, tuple, frozenset)


def called_code(kind: type, *names: str) -> list[Any]:
    """Functions, classes and constants that methods of a class use, those methods included.

    Functions are followed within this library and the packages that define the class and its bases; of any other
    function the name counts. Helpers are found by their names, as globals, parts of modules and members of the class,
    so there may be more than those that run. Overridden definitions are included, as `super()` calls them.

    Args:
        kind: Class of a module, such as a `FrozenProbe`.
        names: Of methods of it.
    """
    bases = [base for base in kind.__mro__ if issubclass(base, LightningModule) and base is not LightningModule]
    packages = {"omnistream", *(_package(base) for base in bases)}
    found: dict[int, Any] = {}
    values, waiting = [], [member for name in names for member in _members(bases, name)]
    while waiting:
        value = waiting.pop(0)
        if id(value) in found:
            continue
        found[id(value)] = value  # kept alive, so that its id is not given away
        if isinstance(value, FunctionType) and _package(value) in packages:
            waiting += _named(value, bases)
        elif isinstance(value, type) and _package(value) in packages:
            waiting += [function for member in vars(value).values() if (function := _function(member))]
        elif isinstance(value, FunctionType | type):
            value = f"{value.__module__}.{value.__qualname__}"
        elif not isinstance(value, _PLAIN):
            continue
        values.append(value)
    return values


def _named(function: FunctionType, bases: list[type]) -> Iterator[Any]:
    """What the names in the code of a function may stand for."""
    names = list(dict.fromkeys(_names(function.__code__)))
    known = [function.__globals__[name] for name in names if name in function.__globals__]
    modules = [value for value in known if isinstance(value, ModuleType) and value.__name__.startswith("omnistream.")]
    known += [vars(module)[name] for module in modules for name in names if name in vars(module)]
    yield from (_function(value) or value for value in known)
    if function.__code__.co_varnames[:1] == ("self",):
        for name in names:
            yield from _members(bases, name)


def _names(code: CodeType) -> Iterator[str]:
    """Names of globals and attributes, those of functions inside it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _members(bases: list[type], name: str) -> Iterator[Any]:
    """All definitions of a member, of constants the one that holds."""
    found = [vars(base)[name] for base in bases if name in vars(base)]
    yield from (function for member in found if (function := _function(member)))
    yield from (member for member in found[:1] if not _function(member))


def _function(member: Any) -> FunctionType | None:
    """The function of a method, a property, or a decorated function."""
    if isinstance(member, property):
        member = member.fget
    elif isinstance(member, functools.cached_property):
        member = member.func
    if isinstance(member, type):
        return None
    member = inspect.unwrap(getattr(member, "__func__", member))
    return member if isinstance(member, FunctionType) else None


def _package(value: Any) -> str:
    return str(value.__module__).partition(".")[0]
