"""What the subcommands that are not Lightning's share: options declared by dataclasses, and where a model is placed."""

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from omnistream.errors import UsageError, did_you_mean, one_line
from omnistream.paths import expand_path

if TYPE_CHECKING:
    import torch

    from omnistream.backbone import OmniStream

# The docstring under a field is the help of its option.
set_parsing_settings(docstring_parse_attribute_docstrings=True)

FloatName = Literal["float32", "bfloat16", "float16"]
"""PyTorch's name of a floating-point dtype."""
SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Short names of dtypes, for `CommandParser.add_options`."""

_PLAIN = {int: "a whole number", float: "a number", bool: "true or false"}
_PLURAL = {int: "whole numbers", float: "numbers", str: "words"}

T = TypeVar("T")


class CommandParser(ArgumentParser):
    """Parser of a subcommand whose options are the fields of dataclasses.

    `--a-b` and `--a_b` are the same option; options are never abbreviated. A field of type bool is a flag, a tuple is
    written with commas (`--features cls,11`), and a tuple of numbers also with spaces (`--size 480 640`). `~` and
    `$VAR` are expanded in fields of type Path, and of type `str | Path`, which may also be a hub id or an address. A
    mistake is a `UsageError` of one line.

    Args:
        name: Of the subcommand.
        description: Above the options in the help, as it is.
        epilog: Below them.
    """

    def __init__(self, name: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=f"omnistream {name}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.name = name
        self.given: dict[str, str] = {}
        """Options on the command line that was parsed last, as they were written, by name of the field."""
        self._hints: dict[str, Any] = {}
        self._fields: dict[type, list[str]] = {}
        self._aliases: dict[str, str] = {}
        self._values: dict[str, Mapping[str, str]] = {}

    def add_options(
        self,
        kind: type,
        *,
        positional: bool = False,
        skip: Sequence[str] = (),
        aliases: Mapping[str, str] | None = None,
        values: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Add the fields of a dataclass as a group of options that has the summary of its docstring as title.

        Args:
            kind: The dataclass; docstrings under its fields are the help texts.
            positional: Whether fields without a default are written without their names.
            skip: Fields that are no options and keep their defaults.
            aliases: Further names of options, and the fields they stand for.
            values: Words that may be written for values of a field, and what they stand for in YAML.
        """
        names = self.add_class_arguments(kind, None, as_positional=positional, skip=set(skip))
        hints = get_type_hints(kind)
        self._hints |= {name: hints[name] for name in names}
        self._fields[kind] = names
        self._aliases |= aliases or {}
        self._values |= values or {}
        for action in self._actions:
            if action.dest in names:
                action.metavar = _metavar(action.dest, hints[action.dest])
                action.help = self._help(action)
                action.option_strings = [option.replace("_", "-") for option in action.option_strings[:1]]
            elif action.dest.removesuffix(".help") in names:  # jsonargparse's, for fields that may be of any class
                action.help = argparse.SUPPRESS

    def _help(self, action: argparse.Action) -> str:
        """Help of a field: its docstring, in the words of the command line, and its default."""
        text = (action.help or "").rstrip(".")
        for word, value in self._values.get(action.dest, {}).items():
            text = re.sub(r"\bNone\b", f"`{word}`", text) if value == "null" else text
        return text + _default_text(action.default)

    def parse_args(self, args: Sequence[str], namespace: Any = None) -> Namespace:  # type: ignore[override]
        """See `argparse.ArgumentParser.parse_args`.

        Raises:
            UsageError: If an option is unknown, missing or has a value that is not allowed.
        """
        self.given = {}
        found = super().parse_args(list(self._words(args)), namespace)
        for name, hint in self._hints.items():
            if Path in _alternatives(hint) and found[name] is not None:
                found[name] = _expanded(found[name])
        return found

    def options_of(self, kind: type[T], found: Namespace, **more: Any) -> T:
        """The dataclass with the values that were parsed.

        Args:
            kind: Added by `add_options`.
            found: What `parse_args` returned.
            more: Values of fields that are no options.

        Raises:
            ValueError: If the dataclass refuses a value.
        """
        return kind(**({name: found[name] for name in self._fields[kind]} | more))

    def _words(self, args: Sequence[str]) -> Iterator[str]:
        """The words of a command line, options as jsonargparse expects them: `--name=value`, values as JSON."""
        rest = list(args)
        while rest:
            word = rest.pop(0)
            option, equals, value = word.partition("=")
            name = option.removeprefix("--").replace("-", "_")
            name = self._aliases.get(name, name)
            if not option.startswith("--") or name not in self._hints:
                yield word
                continue
            hint = self._hints[name]
            if not equals:
                value = _take_value(hint, rest)
                if value is None:
                    raise UsageError(f"--{name.replace('_', '-')} needs a value; see `omnistream {self.name} --help`")
            self.given[name] = value
            value = self._values.get(name, {}).get(value, value)
            yield f"--{name}={_as_json(hint, value)}"

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message instead of leaving the process.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{self._reason(message)}; see `omnistream {self.name} --help`") from ex

    def _reason(self, message: str) -> str:
        """The message of argparse or jsonargparse in one line that names the option as it is written."""
        if (found := re.match(r'Parser key "(\w+)":', message)) and found[1] in self._hints:
            name = found[1]
            words = [word for word, value in self._values.get(name, {}).items() if value in ("null", "[]")]
            expected = " or ".join([_expected(self._hints[name]), *words])
            return f"{self._shown(name)}: expected {expected}, got {self.given.get(name)!r}"
        if found := re.search(r"required: (.*)", message):
            missing = ", ".join(self._shown(name.lstrip("-")) for name in found[1].split(", "))
            return f"the following arguments are required: {missing}"
        if found := re.search(r"unrecognized arguments: (--[^\s=]+)", message):
            known = [f"--{name.replace('_', '-')}" for name in self._hints]
            return f"there is no option {found[1]}{did_you_mean(found[1].replace('_', '-'), known)}"
        return one_line(message)

    def _shown(self, name: str) -> str:
        """A field as it is written on the command line."""
        for action in self._actions:
            if action.dest == name.replace("-", "_"):
                return action.option_strings[0] if action.option_strings else str(action.metavar)
        return name


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union without None, or the type."""
    found = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(kind for kind in found if kind is not NoneType)


def _items(hint: Any) -> tuple[Any, ...] | None:
    """Types of the items of a tuple, which may be one alternative of several; None for other types."""
    for kind in _alternatives(hint):
        if get_origin(kind) in (tuple, Sequence):
            return get_args(kind) if get_origin(kind) is tuple else (*get_args(kind), ...)
    return None


def _of_numbers(items: tuple[Any, ...]) -> bool:
    return {*items, ...} <= {int, float, ...}


def _expanded(path: Path | str) -> Path | str:
    """The path without `~` and variables; a hub id or address, which is a str, stays as it was written."""
    expanded = expand_path(path)
    return expanded if isinstance(path, Path) else path if expanded == Path(path) else str(expanded)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _take_value(hint: Any, rest: list[str]) -> str | None:
    """The value after an option, taken off the words that follow; None if there is none."""
    if hint is bool:
        return rest.pop(0) if rest and rest[0] in ("true", "false") else "true"
    if not rest or (rest[0].startswith("--") and rest[0] != "--"):
        return None
    value, items = rest.pop(0), _items(hint)
    if items and _of_numbers(items):
        limit = len(items) if ... not in items else len(rest) + 1
        taken = 1
        while rest and taken < limit and _is_number(rest[0]):
            value, taken = f"{value},{rest.pop(0)}", taken + 1
    return value


def _as_json(hint: Any, value: str) -> str:
    """A value in jsonargparse's notation: what is written with commas as a list."""
    items = _items(hint)
    if items is None or value.startswith("[") or (len(_alternatives(hint)) > 1 and "," not in value):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    return f"[{','.join(parts)}]" if _of_numbers(items) else json.dumps(parts)


def _metavar(name: str, hint: Any) -> str:
    """What stands for the value in the help."""
    kinds = _alternatives(hint)
    if kinds == (bool,):
        return ""
    if get_origin(kinds[0]) is Literal:
        return "{" + ",".join(map(str, get_args(kinds[0]))) + "}" + (",LOW,HIGH" if _items(hint) else "")
    items = _items(hint)
    if not items or not _of_numbers(items):
        return name.upper().replace("_", "-")
    return "N [N ...]" if ... in items else " ".join("N" for _ in items)


def _default_text(default: Any) -> str:
    if default is None or default is False or default == () or default is argparse.SUPPRESS:
        return ""
    return f" (default: {','.join(map(str, default)) if isinstance(default, tuple) else default})"


def _expected(hint: Any) -> str:
    """A type in words."""
    words = []
    for kind in _alternatives(hint):
        if get_origin(kind) is Literal:
            words.append(_choice([str(choice) for choice in get_args(kind)]))
        elif items := _items(kind):
            words.append(_expected_items(items))
        elif kind in _PLAIN:
            words.append(_PLAIN[kind])
    return " or ".join(words)


def _choice(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _expected_items(items: tuple[Any, ...]) -> str:
    first = items[0]
    choices = ", ".join(map(str, get_args(first)))
    kind = f"some of {choices}" if get_origin(first) is Literal else _PLURAL.get(first, str(first))
    count = "" if ... in items else f"{len(items)} "
    return f"{count}{kind}, separated by commas"


def usable_device(name: str) -> "torch.device":
    """The device of this name.

    Raises:
        UsageError: If there is none, or nothing can be put on it and read back.
    """
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` takes anything, and gives nothing back
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} cannot be used ({one_line(error, 120)})") from error
    return device


def refuse_occupied(path: Path, overwrite: bool, option: str) -> None:
    """Refuse to write a folder that is not empty.

    Args:
        path: Folder to write; it need not exist.
        overwrite: Whether the user allows it.
        option: The name of the folder on the command line.

    Raises:
        UsageError: If it is a file, or holds something and `overwrite` is not set.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file; {option} is a folder")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise UsageError(f"{path} is not empty; choose another folder or add --overwrite")


def place(backbone: "OmniStream", device: "torch.device", dtype: str) -> None:
    """Move a backbone; the statistics that normalise frames stay in float32.

    Args:
        backbone: Changed in place.
        device: Where it goes.
        dtype: Of the weights.
    """
    import torch

    mean, std = backbone.mean.float(), backbone.std.float()
    backbone.to(device, getattr(torch, dtype))
    backbone.mean, backbone.std = mean.to(device), std.to(device)
