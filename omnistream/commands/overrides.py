"""Configuration files and `null` overrides, merged before LightningCLI sees them.

LightningCLI (jsonargparse 4.53) replaces a dictionary as a whole when a second file sets one of its entries, and
rejects `--model.tasks.geometry null` for a dictionary of modules. Both are ways to drop a task, so both are done here:
the files are merged entry by entry, and overrides to `null` are written into the result. All other overrides are left
to LightningCLI, which then reads one configuration.

Rules of the merge: a later file wins; mappings merge key by key; where a later file names another `class_path`, the
earlier `init_args` go; a mapping without `class_path` that is merged into a class sets its `init_args`. A command-line
override wins over every file, wherever it stands; of two overrides the later one wins.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from omnistream.errors import UsageError, did_you_mean, one_line
from omnistream.packaged_configs import find_config
from omnistream.paths import expand_path

_CLASS_KEYS = frozenset({"class_path", "init_args", "dict_kwargs"})
_TO_EXPAND = re.compile(r"^~[\w.-]*(/|$)|(^|/)\$(\w|\{\w)")
"""Starts with `~` or `~user`, or has a part that starts with a variable."""


@dataclass(frozen=True)
class Override:
    """One `--key value` of the command line."""

    key: str
    """Dotted key without the dashes."""
    value: str | None
    """Its value; None for an option that came without one."""

    def within(self, key: str) -> bool:
        """Whether this sets `key` or something below it."""
        return self.key == key or self.key.startswith(key + ".")

    def token(self) -> str:
        """The override as LightningCLI reads it."""
        return f"--{self.key}" if self.value is None else f"--{self.key}={self.value}"


def prepare(arguments: list[str]) -> list[str]:
    """Arguments after the subcommand, rewritten so that LightningCLI gets at most one configuration.

    Args:
        arguments: `-c NAME`, `--key value`, `--key=value` in any order.

    Raises:
        UsageError: If a file is missing or malformed, or an override addresses an entry that is not there.
    """
    names, overrides, rest = split(arguments)
    config: dict[str, Any] = {}
    for name in names:
        config = merge(config, load_config(find_config(name)))
    _refuse_overlay_alone(config, names, overrides)
    config = expand_paths(config)
    overrides = [Override(one.key, _expand_override(one.value)) for one in overrides]
    kept: list[Override] = []
    for override in overrides:
        parent = _parent_of(config, override, kept)
        if override.value == "null" and parent is not None:
            kept = [earlier for earlier in kept if not earlier.within(override.key)]
            parent[override.key.rsplit(".", 1)[1]] = None
        else:
            kept.append(override)
    given = [f"--config={yaml.safe_dump(config, sort_keys=False)}"] if config else []
    return given + [override.token() for override in kept] + rest


def expand_paths(value: Any) -> Any:
    """The value with `~` and `$VAR` replaced in every string that is written as a path with one, at any depth.

    Raises:
        UsageError: If an environment variable is not set.
    """
    if isinstance(value, dict):
        return {key: expand_paths(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [expand_paths(entry) for entry in value]
    if isinstance(value, str) and "://" not in value and _TO_EXPAND.search(value):
        try:
            return str(expand_path(value))
        except ValueError as error:
            raise UsageError(str(error)) from error
    return value


def _expand_override(value: str | None) -> str | None:
    """The same for a value of the command line, which may be a list or mapping in YAML."""
    if value is None or not value.startswith(("[", "{")):
        return expand_paths(value)
    try:
        content = yaml.safe_load(value)
    except yaml.YAMLError:
        return value  # the parser says what is wrong with it
    expanded = expand_paths(content)
    return value if expanded == content else yaml.safe_dump(expanded, default_flow_style=True, width=2**30).strip()


def _refuse_overlay_alone(config: dict[str, Any], names: list[str], overrides: list[Override]) -> None:
    """Check that files do not change settings of a model or data module that no file names.

    Raises:
        UsageError: If they do; the message names the configuration to merge them into.
    """
    given = {override.key for override in overrides}
    for key in ("model", "data"):
        settings = config.get(key)
        named = not names or {key, f"{key}.class_path"} & given or "class_path" in (settings or {})
        if named or (not settings and did_you_mean(key, config)):  # the parser names a misspelled key
            continue
        problem = f"changes settings of {key}, but names none" if settings else f"names no {key}"
        example = f"-c quickstart -c {names[-1]}"
        raise UsageError(f"{', '.join(names)} {problem}: combine it with a complete configuration, as in {example}")


def split(arguments: list[str]) -> tuple[list[str], list[Override], list[str]]:
    """Names of configurations, `--key value` overrides, and everything else, each in the order given."""
    names: list[str] = []
    overrides: list[Override] = []
    rest: list[str] = []
    queue = list(arguments)
    while queue:
        token = queue.pop(0)
        if not token.startswith("--") and token != "-c":
            rest.append(token)
            continue
        key, has_value, value = token.partition("=")
        # A value may start with one dash (a negative number), but is not an option.
        if not has_value and queue and not queue[0].startswith("--") and queue[0] not in ("-c", "-h"):
            value, has_value = queue.pop(0), "="
        if key not in ("-c", "--config"):
            overrides.append(Override(key=key[2:], value=value if has_value else None))
        elif has_value:
            names.append(value)
        else:
            raise UsageError(
                f"{key} needs the name or path of a configuration; `omnistream configs` lists the packaged ones"
            )
    return names, overrides, rest


def load_config(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, with jsonargparse's reading of numbers (`1e-4` is a float).

    Raises:
        UsageError: If it is no text, not valid YAML or not a mapping; the message has file and line.
    """
    try:
        content = get_loader("yaml")(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a text file; expected a configuration in YAML") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        raise UsageError(f"{where}: not valid YAML: {one_line(getattr(error, 'problem', None) or error)}") from error
    if not isinstance(content, dict):
        raise UsageError(
            f"{path}: expected a mapping with keys such as model, data, trainer; got {type(content).__name__}"
        )
    return content


def merge(base: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """A new mapping: `later` merged into `base` by the rules at the top of this module."""
    if "class_path" in base:
        if base["class_path"] != later.get("class_path", base["class_path"]):
            return later
        if later and not _CLASS_KEYS & later.keys():
            later = {"init_args": later}
    merged = dict(base)
    for key, value in later.items():
        both_mappings = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = merge(base[key], value) if both_mappings else value
    return merged


def _parent_of(config: dict[str, Any], override: Override, earlier: list[Override]) -> dict[str, Any] | None:
    """The mapping that holds the last part of the override's key; None where the files do not spell it out.

    Raises:
        UsageError: If the key leads to an entry that a dictionary of classes lacks, or that is null.
    """
    parent = None
    for mapping, key, name, is_last in _walk(config, override.key):
        parent = mapping if is_last else None
        set_before = any(one.key == key for one in earlier)
        if set_before or not _holds_classes(mapping) or (is_last and override.value != "null"):
            continue
        if name not in mapping:
            raise UsageError(
                f"--{override.key}: there is no {name!r} in {key.rpartition('.')[0]}{did_you_mean(name, mapping)}; "
                f"it has {', '.join(mapping)}"
            )
        if mapping[name] is None and not is_last:
            raise UsageError(f"--{override.key}: {key} is null; give it a class first: --{key} CLASS_PATH")
    return parent


def _walk(config: dict[str, Any], key: str) -> Iterator[tuple[dict[str, Any], str, str, bool]]:
    """Mapping, dotted key so far, its last part and whether it ends the key, down to where the files go."""
    mapping: Any = config
    parts = key.split(".")
    for index, part in enumerate(parts):
        if "class_path" in mapping and part not in _CLASS_KEYS:
            mapping = mapping.setdefault("init_args", {})
        if not isinstance(mapping, dict):
            return
        # The top level belongs to LightningCLI: `--ckpt_path null` needs no help.
        if index > 0:
            yield mapping, ".".join(parts[: index + 1]), part, index == len(parts) - 1
        mapping = mapping.get(part)
        if not isinstance(mapping, dict):
            return


def _holds_classes(mapping: dict[str, Any]) -> bool:
    """Whether every value is a class or null, as in a dictionary of tasks."""
    classes = [value for value in mapping.values() if isinstance(value, dict) and "class_path" in value]
    return bool(classes) and len(classes) + list(mapping.values()).count(None) == len(mapping)
