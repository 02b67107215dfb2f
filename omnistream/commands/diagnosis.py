"""Finds the key of a configuration that jsonargparse refused, and says in one line what is wrong with it.

jsonargparse reports an error as the tree of every type it tried, without the keys of dictionaries and lists. Instead of
reading that text, the configuration is checked again here, class by class and the innermost first: the first class that
does not take its arguments is the one to blame, and where it stands is its key. Only the type that a value should have
is taken from the text; if a version of jsonargparse words that differently, its own last line is shown.
"""

import dataclasses
import importlib
import inspect
import re
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from lightning import LightningDataModule, LightningModule

from omnistream.commands.overrides import Override
from omnistream.errors import did_you_mean, one_line

_ROOTS = {"model": LightningModule, "data": LightningDataModule}
_EXPECTED = re.compile(r"Expected an? (?!dot import)(.+?)(?:\. Got value: (.*))?$", re.MULTILINE)


def explain_parsing(
    error: ArgumentError, config: Mapping[str, Any], overrides: Sequence[Override], known: Sequence[str]
) -> str:
    """Why a configuration was refused: where, what is wrong, and the nearest valid name.

    Args:
        error: What jsonargparse raised.
        config: The merged configuration.
        overrides: Options laid over it.
        known: Dotted keys that the subcommand has.
    """
    tree = _overlaid(config, overrides)
    top = {key.split(".")[0] for key in known}
    if unknown := [key for key in tree if key not in top]:
        return f"there is no key {unknown[0]!r}{did_you_mean(unknown[0], top)}"
    tree["trainer"] = {"class_path": "lightning.Trainer", "init_args": tree.get("trainer") or {}}
    for key, node in _classes(tree):
        if complaint := _complaint(key, node):
            return one_line(f"{key}{complaint}")
    text = str(error)
    if missing := _missing(text):
        keys = ", ".join(name.split(".", 1)[-1] for name in missing)
        return f"nothing given for {keys}; name a configuration with -c (`omnistream configs` lists the packaged ones)"
    return one_line(_last_line(text))


def explain_construction(error: Exception, config: Mapping[str, Any]) -> str:
    """What a constructor complained of, after the key of its class.

    Args:
        error: What jsonargparse raised from it.
        config: The parsed configuration.
    """
    cause: BaseException | None = error
    while cause is not None:
        frames = _frames(cause)
        if frames and not frames[-1].f_globals.get("__name__", "").startswith("jsonargparse"):
            owners = [frame.f_locals.get("self") for frame in frames if frame.f_code.co_name.endswith("init__")]
            keys = [key for owner in reversed(owners) for key in _keys_of(owner, config)]
            where = f"{keys[0]}: " if keys and keys[0] not in _ROOTS else ""
            return one_line(f"{where}{cause}")
        cause = cause.__cause__ or cause.__context__
    return one_line(_last_line(str(error)))


def _complaint(key: str, node: Mapping[str, Any]) -> str | None:
    """What is wrong with one class and its arguments; None if nothing is. Begins with the rest of the key."""
    name, arguments = node["class_path"], node.get("init_args") or {}
    target = _find(name)
    if isinstance(target, str):
        return f": {target}"
    if inspect.isclass(target) and key in _ROOTS and not issubclass(target, _ROOTS[key]):
        return f": {name} is not a {_ROOTS[key].__name__}"
    parser = ArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if inspect.isclass(target) else parser.add_function_arguments
    add(target, fail_untyped=False)
    known = list(parser.get_defaults().keys())
    if unknown := next(_unknown(arguments, known), None):
        names = [*known, *{leaf.rpartition(".")[0] for leaf in known if "." in leaf}]
        return f": {name} has no argument {unknown!r}{did_you_mean(unknown, names)}"
    try:
        parser.parse_object(arguments)
    except ArgumentError as error:
        text = str(error)
        if missing := _missing(text):
            how = f"; add {' '.join(f'--{key}.{argument} VALUE' for argument in missing)}" if key in _ROOTS else ""
            return f": {name} needs {', '.join(missing)}{how}"
        found = re.match(r'Parser key "([^"]+)":', text)
        return f".{found[1]}: {_mismatch(text, arguments, found[1])}" if found else f": {_last_line(text)}"
    return None


def _find(name: str) -> Callable[..., Any] | str:
    """The class or function of a class path, or why there is none."""
    module, dot, attribute = name.rpartition(".")
    if not dot:  # the name alone is enough for a class that is imported
        loaded = next((kind for kind in _subclasses(object) if kind.__name__ == name), None)
        return loaded or f"expected a class path such as package.module.Class, got {name!r}"
    try:
        owner = importlib.import_module(module)
    except ImportError as error:
        return f"{name}: {error}"
    names = [known for known in dir(owner) if not known.startswith("_")]
    target: Callable[..., Any] | None = getattr(owner, attribute, None)
    return target or f"no class {attribute!r} in {module}{did_you_mean(attribute, names)}"


def _subclasses(kind: type) -> Iterator[type]:
    children: list[type] = type.__subclasses__(kind)  # a metaclass has no bound method of this name
    for child in children:
        yield child
        yield from _subclasses(child)


def _unknown(arguments: Mapping[str, Any], known: Sequence[str], prefix: str = "") -> Iterator[str]:
    """Keys that are neither an argument nor, as `loss` of `loss.koleo`, a group of arguments."""
    for key, value in arguments.items():
        whole = prefix + key
        if any(leaf.startswith(whole + ".") for leaf in known):
            if isinstance(value, Mapping):
                yield from _unknown(value, known, whole + ".")
        elif whole not in known:
            yield whole


def _mismatch(text: str, arguments: Any, key: str) -> str:
    """That a value has another type than its argument."""
    for part in key.split("."):
        arguments = arguments.get(part) if isinstance(arguments, Mapping) else None
    expected = [(kind, value) for kind, value in _EXPECTED.findall(text) if "NoneType" not in kind]
    if not expected:
        return _last_line(text)
    value = next((repr(value) for _, value in expected if value), repr(arguments))
    return f"expected {' or '.join(dict.fromkeys(_type_name(kind) for kind, _ in expected))}, got {value}"


def _type_name(text: str) -> str:
    """`<class 'int'>` as `int`, `Literal['a', 'b']` as its choices, other notations without module names."""
    if found := re.search(r"Literal\[(.+)\]$", text):
        return f"one of {found[1]}"
    plain = re.sub(r"<class '([^']+)'>", r"\1", text)
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", plain)


def _missing(text: str) -> list[str]:
    """Names of required arguments that were not given."""
    found = re.match(r"the following arguments are required: (.*)", text)
    return found[1].split(", ") if found else []


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1].strip().removeprefix("- ")


def _overlaid(config: Mapping[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """The configuration with the options of the command line in their places."""
    tree: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(config)))  # a copy of its own
    for override in overrides:
        *parents, last = override.key.split(".")
        node = tree
        for part in parents:
            node = _arguments_of(node, part)
            if not isinstance(node.get(part), dict):
                node[part] = {"class_path": node[part], "init_args": {}} if isinstance(node.get(part), str) else {}
            node = node[part]
        node = _arguments_of(node, last)
        value = yaml.safe_load(override.value or "null")
        is_class = isinstance(node.get(last), dict) and "class_path" in node[last] and isinstance(value, str)
        node[last] = {"class_path": value} if is_class else value
    return tree


def _arguments_of(node: dict[str, Any], part: str) -> dict[str, Any]:
    """Where `part` belongs: in the `init_args` of a class, unless it is a key of the class itself."""
    if "class_path" not in node or part in ("class_path", "init_args", "dict_kwargs"):
        return node
    if not node.get("init_args"):
        node["init_args"] = {}
    arguments: dict[str, Any] = node["init_args"]
    return arguments


def _classes(tree: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every class in a configuration with its key, those inside it first."""
    if isinstance(tree, list):
        tree = {str(index): entry for index, entry in enumerate(tree)}
    if isinstance(tree, Mapping):
        is_class = isinstance(tree.get("class_path"), str)
        for name, child in ((tree.get("init_args") or {}) if is_class else tree).items():
            yield from _classes(child, f"{key}.{name}" if key else str(name))
        if is_class:
            yield key, tree


def _frames(error: BaseException) -> list[FrameType]:
    """The frames that an exception passed through, the one that raised it last."""
    frames, step = [], error.__traceback__
    while step is not None:
        frames.append(step.tb_frame)
        step = step.tb_next
    return frames


def _keys_of(owner: object, tree: Any, key: str = "") -> Iterator[str]:
    """Keys at which a configuration describes this object, by its class or, for a dataclass, by its values."""
    if isinstance(tree, Mapping):
        arguments = tree.get("init_args", tree) or {}
        for name, child in arguments.items():
            yield from _keys_of(owner, child, f"{key}.{name}" if key else str(name))
        if str(tree.get("class_path", "")).rpartition(".")[2] == type(owner).__name__ or tree == _values(owner):
            yield key


def _values(owner: object) -> dict[str, Any] | None:
    """The fields of a dataclass; None for other objects."""
    if not dataclasses.is_dataclass(owner):
        return None
    return {field.name: getattr(owner, field.name) for field in dataclasses.fields(owner)}
