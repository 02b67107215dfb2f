"""What the subcommands that are not Lightning's share: options declared by dataclasses, and where a model is placed."""

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, get_type_hints

from jsonargparse import ArgumentParser, set_parsing_settings

from omnistream.commands.option_types import (
    alternatives,
    as_json,
    default_text,
    expected,
    items_of,
    metavar_of,
    take_value,
)
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

T = TypeVar("T")


@dataclass(frozen=True)
class Parsed:
    """The parsed values of a command line."""

    options: dict[type, Any]
    given: frozenset[str]
    """Fields whose options were written out."""

    def __getitem__(self, kind: type[T]) -> T:
        """The dataclass of this type."""
        return self.options[kind]  # type: ignore[no-any-return]


class CommandParser(ArgumentParser):
    """Parser of a subcommand whose options are the fields of dataclasses.

    `--a-b` and `--a_b` are the same option; options are never abbreviated. A field of type bool is a flag, a tuple is
    written with commas (`--features cls,11`), and a tuple of numbers also with spaces (`--size 480 640`). A positional
    tuple takes all words that are no options. `~` and
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
        self._given: dict[str, str] = {}
        self._hints: dict[str, Any] = {}
        self._fields: dict[type, list[str]] = {}
        self._aliases: dict[str, str] = {}
        self._values: dict[str, Mapping[str, str]] = {}
        self._many: str | None = None
        """The positional tuple, if there is one."""

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
            aliases: Names of options that are not those of their fields; the latter are understood, too.
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
                action.metavar = metavar_of(action.dest, hints[action.dest])
                action.help = self._help(action)
                if action.option_strings:
                    action.option_strings = [self._option(action.dest)]
                elif items_of(hints[action.dest]):
                    self._many, action.metavar = action.dest, f"{action.metavar} [{action.metavar} ...]"
            elif action.dest.removesuffix(".help") in names:  # jsonargparse's, for fields that may be of any class
                action.help = argparse.SUPPRESS

    def _help(self, action: argparse.Action) -> str:
        """Help of a field: its docstring, in the words of the command line, and its default."""
        return self._worded(action.dest, (action.help or "").rstrip(".")) + default_text(action.default)

    def _worded(self, name: str, text: str) -> str:
        """A text about a field with the word that is written for None on the command line."""
        for word, value in self._values.get(name, {}).items():
            text = re.sub(r"\bNone\b", f"`{word}`", text) if value == "null" else text
        return text

    def parse(self, arguments: Sequence[str]) -> Parsed:
        """The dataclasses that a command line describes.

        Raises:
            UsageError: If an option is unknown, missing or has a value that is not allowed.
            ValueError: If a dataclass refuses its values; the message is worded for the command line.
        """
        self._given = {}
        found = self.parse_args(list(self._words(arguments)))
        for name, hint in self._hints.items():
            if Path in alternatives(hint) and found[name] is not None:
                found[name] = _expanded(found[name])
        try:
            options = {kind: kind(**{name: found[name] for name in names}) for kind, names in self._fields.items()}
        except ValueError as error:
            text = str(error)
            error.args = (self._worded(text.partition(" ")[0], text),)  # messages begin with the field
            raise
        return Parsed(options, frozenset(self._given))

    def _words(self, args: Sequence[str]) -> Iterator[str]:
        """The words of a command line, options as jsonargparse expects them: `--name=value`, values as JSON."""
        rest, many = list(args), list[str]()
        while rest:
            word = rest.pop(0)
            option, equals, text = word.partition("=")
            value: str | None = text
            name = option.removeprefix("--").replace("-", "_")
            name = self._aliases.get(name, name)
            if self._many and not option.startswith("-"):
                many.append(word)
                continue
            if not option.startswith("--") or name not in self._hints:
                yield word
                continue
            hint = self._hints[name]
            if not equals:
                value = take_value(hint, rest)
            if value is None:
                self.error(f"{self._option(name)} needs a value")
            self._given[name] = value
            value = self._values.get(name, {}).get(value, value)
            yield f"--{name}={as_json(hint, value)}"
        if many:
            yield json.dumps(many)

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
            wanted = " or ".join([expected(self._hints[name]), *words])
            return f"{self._shown(name)}: expected {wanted}, got {self._given.get(name)!r}"
        if found := re.search(r"required: (.*)", message):
            missing = ", ".join(map(self._shown, found[1].split(", ")))
            return f"the following arguments are required: {missing}"
        if found := re.search(r"unrecognized arguments: (--[^\s=]+)", message):
            known = [self._option(name) for name in self._hints]
            return f"there is no option {found[1]}{did_you_mean(found[1].replace('_', '-'), known)}"
        return one_line(message)

    def _shown(self, name: str) -> str:
        """A field as it is written on the command line."""
        for action in self._actions:
            if action.dest == name:
                return action.option_strings[0] if action.option_strings else str(action.metavar)
        return name

    def _option(self, name: str) -> str:
        """The option of a field."""
        shown = next((alias for alias, field in self._aliases.items() if field == name), name)
        return "--" + shown.replace("_", "-")


def _expanded(path: Path | str) -> Path | str:
    """The path without `~` and variables; a hub id or address, which is a str, stays as it was written."""
    expanded = expand_path(path)
    return expanded if isinstance(path, Path) else path if expanded == Path(path) else str(expanded)


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
    """Check that a folder to write is empty or may be overwritten.

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
        device: Target device.
        dtype: Dtype of the weights.
    """
    import torch

    mean, std = backbone.mean.float(), backbone.std.float()
    backbone.to(device, getattr(torch, dtype))
    backbone.mean, backbone.std = mean.to(device), std.to(device)
