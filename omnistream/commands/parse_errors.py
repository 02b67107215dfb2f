"""jsonargparse's nested error reports reduced to one line that says what to change.

A report is a tree by indentation: `Parser key "x":` and `Problem with given class_path 'C':` lead down to the reason,
and every alternative of a union adds its own complaint ("Expected a <class 'NoneType'>"). The first alternative that is
not such noise is the one the user meant. `entry_paths` adds the keys that the report leaves out.
"""

import importlib
import re
from collections.abc import Iterable

from jsonargparse import ArgumentParser

from omnistream.commands.entry_paths import GIVEN, entry_path, key_of_value
from omnistream.errors import did_you_mean, one_line

_UNION = "Does not validate against any of the Union"
_ROOTS = {".LightningModule'>": "model", ".LightningDataModule'>": "data"}
_NOISE = (
    "Subtypes: [",
    "Errors:",
    "Given value",
    "Expected a path but",
    "Not a valid subclass of",
    "Subclass types expect",
    "a class path (str)",
    "a dict with",
)


def shorten(message: str, known_keys: Iterable[str] = ()) -> str:
    """One line: where, what is wrong, and the nearest valid key.

    Args:
        message: Text of the exception that jsonargparse (or a constructor it called) raised.
        known_keys: Dotted keys of the subcommand, to suggest from where no class is involved.
    """
    path: list[str] = []
    unions: list[int] = []  # how long the path was at each value with alternatives
    class_path: str | None = None
    expected: list[str] = []  # types of the alternatives that complain without a value
    for line in message.splitlines():
        text = line.strip().removeprefix("- ").strip()
        if text.startswith(_UNION):
            unions.append(len(path))
            continue
        if found := re.fullmatch(r"Expected a ((?!dot import)(?!.*Got value).+)", text):
            expected.append(_type_name(found[1]))
            continue
        if not text or text.startswith(_NOISE):
            continue
        if found := re.fullmatch(r'Parser key "([^"]+)":', text):
            path += found[1].split(".")
        elif found := re.fullmatch(r"Problem with given class_path '([^']+)':", text):
            class_path = found[1]
        else:
            where = ".".join(_where(message, path, unions, text))
            return one_line((where + ": " if where else "") + _reason(text, class_path, known_keys) + _how(where, text))
    value = next((line.partition(GIVEN)[2] for line in message.splitlines() if GIVEN in line), None)
    if value is None or not expected:
        return one_line(message)
    kinds = " or ".join(dict.fromkeys(kind for kind in expected if kind != "NoneType"))
    return one_line(f"{'.'.join(_where(message, path, unions, ''))}: expected {kinds}, got {value!r}")


def _where(message: str, path: list[str], unions: list[int], complaint: str) -> list[str]:
    """The path with the keys that the report leaves out, which lie between the first and the last alternatives."""
    if not unions:
        return path
    first, last = unions[0], unions[-1]
    option = _option(complaint)
    entry = entry_path(message, known=path[first:last], tail=path[last:] + (option.split(".") if option else []))
    whole = path[:first] + entry + path[last:]
    if not path[last:] and (found := re.match(r"Expected a .+?\. Got value: (.*)", complaint)):
        whole += key_of_value(message, found[1])
    # An error of a constructor has no key; for the model as a whole that is enough.
    return [_root(message), *whole] if whole and not path else whole


def _root(message: str) -> str:
    subtypes = next(line for line in message.splitlines() if "Subtypes: [" in line)
    return next((key for name, key in _ROOTS.items() if name in subtypes), "trainer")


def _option(text: str) -> str | None:
    """The name of an option that is not accepted, with that of its group."""
    if found := re.search(r"(?:Option|option) '([^']+)'(?: is not accepted)?$", text):
        group = re.search(r"Group '([^']+)'", text)
        return f"{group[1]}.{found[1]}" if group else found[1]
    found = re.match(r"unrecognized arguments: --([^=\s]+)", text)
    return found[1] if found else None


def _reason(text: str, class_path: str | None, known_keys: Iterable[str]) -> str:
    """The innermost error in plain words."""
    if option := _option(text):
        return _unknown_key(option, class_path, known_keys)
    if found := re.match(r"unrecognized arguments: (\S+)", text):
        return f"unexpected argument {found[1]!r}; options are written --key value"
    if found := re.match(r"Expected a (.+?)\. Got value: (.*)", text):
        owner = f" (argument of {class_path})" if class_path else ""
        return f"expected {_type_name(found[1])}, got {found[2]!r}{owner}"
    if found := re.match(r"module '([^']+)' has no attribute '([^']+)'", text):
        names = [name for name in dir(importlib.import_module(found[1])) if not name.startswith("_")]
        return f"no class {found[2]!r} in {found[1]}{did_you_mean(found[2], names)}"
    if found := re.match(r"Expected a dot import path string: (.*)", text):
        return f"expected a class path such as package.module.Class, got {found[1]!r}"
    if found := re.match(r"the following arguments are required: (.*)", text):
        return _missing(found[1], class_path)
    if text.startswith("No module named"):
        return f"{class_path}: {text}" if class_path else text
    return text


def _unknown_key(key: str, class_path: str | None, known_keys: Iterable[str]) -> str:
    owner = f"{class_path} has no argument" if class_path else "there is no key"
    known = _keys_of(class_path) if class_path else list(known_keys)
    # In `dta.class_path` only the first part is wrong, and only that is a key the subcommand knows.
    return f"{owner} {key!r}{did_you_mean(key, known) or did_you_mean(key.split('.')[0], known)}"


def _missing(names: str, class_path: str | None) -> str:
    if class_path:
        return f"{class_path} needs {names}"
    keys = ", ".join(name.split(".", 1)[-1] for name in names.split(", "))
    return f"nothing given for {keys}; name a configuration with -c (`omnistream configs` lists the packaged ones)"


def _how(where: str, text: str) -> str:
    """The options that give the missing arguments of the model or the data."""
    found = re.match(r"the following arguments are required: (.*)", text)
    if not found or where not in _ROOTS.values():
        return ""
    return "; add " + " ".join(f"--{where}.{name} VALUE" for name in found[1].split(", "))


def _keys_of(class_path: str) -> list[str]:
    """Dotted names of everything the constructor of a class takes."""
    module, _, name = class_path.rpartition(".")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(getattr(importlib.import_module(module), name), fail_untyped=False)
    leaves = list(parser.get_defaults().keys())
    return leaves + sorted({leaf.rpartition(".")[0] for leaf in leaves if "." in leaf})


def _type_name(text: str) -> str:
    """`<class 'int'>` as `int`, `Literal['a', 'b']` as its choices, other notations without module names."""
    if found := re.search(r"Literal\[(.+)\]$", text):
        return f"one of {found[1]}"
    plain = re.sub(r"<class '([^']+)'>", r"\1", text)
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", plain)
