"""Types of options, and how their values are written on the command line."""

import argparse
import json
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

_PLAIN = {int: "a whole number", float: "a number", bool: "true or false"}
_PLURAL = {int: "whole numbers", float: "numbers", str: "words"}


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union without None, or the type."""
    found = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(kind for kind in found if kind is not NoneType)


def items_of(hint: Any) -> tuple[Any, ...] | None:
    """Types of the items of a tuple, which may be one alternative of several; None for other types."""
    for kind in alternatives(hint):
        if get_origin(kind) in (tuple, Sequence):
            return get_args(kind) if get_origin(kind) is tuple else (*get_args(kind), ...)
    return None


def _of_numbers(items: tuple[Any, ...]) -> bool:
    return {*items, ...} <= {int, float, ...}


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def take_value(hint: Any, rest: list[str]) -> str | None:
    """The value after an option, taken off the words that follow; None if there is none."""
    if hint is bool:
        return rest.pop(0) if rest and rest[0] in ("true", "false") else "true"
    if not rest or (rest[0].startswith("--") and rest[0] != "--"):
        return None
    value, items = rest.pop(0), items_of(hint)
    if items and _of_numbers(items):
        limit = len(items) if ... not in items else len(rest) + 1
        taken = 1
        while rest and taken < limit and _is_number(rest[0]):
            value, taken = f"{value},{rest.pop(0)}", taken + 1
    return value


def as_json(hint: Any, value: str) -> str:
    """A value in jsonargparse's notation: what is written with commas as a list."""
    items = items_of(hint)
    if items is None or value.startswith("[") or (len(alternatives(hint)) > 1 and "," not in value):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    return f"[{','.join(parts)}]" if _of_numbers(items) else json.dumps(parts)


def metavar_of(name: str, hint: Any) -> str:
    """The placeholder of the value in the help."""
    kinds = alternatives(hint)
    if kinds == (bool,):
        return ""
    if get_origin(kinds[0]) is Literal:
        return "{" + ",".join(map(str, get_args(kinds[0]))) + "}" + (",LOW,HIGH" if items_of(hint) else "")
    items = items_of(hint)
    if not items or not _of_numbers(items):
        return name.upper().replace("_", "-")
    return "N [N ...]" if ... in items else " ".join("N" for _ in items)


def default_text(default: Any) -> str:
    """The default as the help shows it; empty if there is none."""
    if default is None or default is False or default == () or default is argparse.SUPPRESS:
        return ""
    return f" (default: {','.join(map(str, default)) if isinstance(default, tuple) else default})"


def expected(hint: Any) -> str:
    """A type in words."""
    words = []
    for kind in alternatives(hint):
        if get_origin(kind) is Literal:
            words.append(_choice([str(choice) for choice in get_args(kind)]))
        elif items := items_of(kind):
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
