"""The `config.yaml` that a training run writes, read for the checkpoints that lie near it.

It is read as plain data: a class named in it is a name to compare, nothing is imported.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from omnistream.errors import one_line


@dataclass(frozen=True)
class Described:
    """A class and its arguments, as `class_path` and `init_args` say them."""

    class_path: str
    """Name of the class."""
    settings: dict[str, Any]
    """Arguments of its constructor."""

    @classmethod
    def read(cls, value: Any) -> "Described | None":
        """What a value of the file describes; None if it is no class with arguments."""
        settings = (value.get("init_args") or {}) if isinstance(value, dict) else None
        if not isinstance(settings, dict) or not isinstance(value.get("class_path"), str):
            return None
        return cls(value["class_path"], settings)


def run_folders(checkpoint: Path) -> list[Path]:
    """Where the config.yaml of the run that wrote a checkpoint may lie: its folder and the two above."""
    return [checkpoint.parent, *checkpoint.absolute().parents[1:3]]


def find_run_config(checkpoint: Path) -> Path | None:
    """The config.yaml of the run that wrote a checkpoint; None if there is none."""
    found = (folder / "config.yaml" for folder in run_folders(checkpoint))
    return next((path for path in found if path.is_file()), None)


def read_run_config(path: Path) -> Described | None:
    """The model of a run's configuration; None if the file describes none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not YAML.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no configuration at {path}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {one_line(error, 200)}") from error
    return Described.read(content.get("model")) if isinstance(content, dict) else None
