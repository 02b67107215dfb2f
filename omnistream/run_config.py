"""The folder that a training run leaves: its checkpoints and its `config.yaml`.

The configuration is read as plain data: classes are only compared by name, and nothing is imported.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from omnistream.errors import one_line
from omnistream.paths import expand_path

LAST_CHECKPOINT = "last.ckpt"
"""Name of the newest checkpoint of a run, as ModelCheckpoint writes it with `save_last`."""


@dataclass(frozen=True)
class Described:
    """A class and its arguments, from `class_path` and `init_args`."""

    class_path: str
    """Name of the class."""
    settings: dict[str, Any]
    """Arguments of its constructor."""

    @classmethod
    def read(cls, value: Any) -> "Described | None":
        """What a value of the file describes; None if it is not a class with arguments."""
        settings = (value.get("init_args") or {}) if isinstance(value, dict) else None
        if not isinstance(settings, dict) or not isinstance(value.get("class_path"), str):
            return None
        return cls(value["class_path"], settings)


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a path refers to, so that a run folder can be given wherever a checkpoint is expected.

    Args:
        path: A checkpoint file, a distributed checkpoint (a folder), the folder of a run, its folder `checkpoints`, or
            the folder that holds the runs `version_0`, `version_1`, ... `~` and `$VAR` are expanded.

    Returns:
        The checkpoint itself; for the folder of a run its `last.ckpt`, or the newest checkpoint if there is no such
        file; for a folder of versions that of the highest version that has any.

    Raises:
        FileNotFoundError: If there is nothing at the path, or no checkpoint in the folder.
        ValueError: If the path names an environment variable that is not set.
    """
    path = expand_path(path)
    if path.is_file() or is_distributed_checkpoint(path):
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"no checkpoint and no run folder at {path}")
    for run in (path, *_versions(path)):
        if found := list_checkpoints(run):
            return found[-1]
    raise FileNotFoundError(f"no checkpoint (checkpoints/last.ckpt or another *.ckpt) in {path} or a version_N in it")


def _versions(folder: Path) -> list[Path]:
    """The runs `version_N` in a folder, the highest number first."""
    numbers = [name.removeprefix("version_") for name in (path.name for path in folder.glob("version_*"))]
    return [folder / f"version_{number}" for number in sorted(filter(str.isdecimal, numbers), key=int, reverse=True)]


def list_checkpoints(run: Path) -> list[Path]:
    """Checkpoints of a run by time of writing, `last.ckpt` at the end.

    Args:
        run: Folder of the run, or its folder `checkpoints`.
    """
    folder = run / "checkpoints" if (run / "checkpoints").is_dir() else run
    return sorted(folder.glob("*.ckpt"), key=lambda path: (path.stem.startswith("last"), path.stat().st_mtime_ns))


def newest_checkpoint(runs: Iterable[Path]) -> Path | None:
    """The checkpoint written last in any of these run folders; None if there is none."""
    last = [found[-1] for run in runs if (found := list_checkpoints(run))]
    return max(last, key=lambda path: path.stat().st_mtime_ns, default=None)


def is_distributed_checkpoint(path: Path) -> bool:
    """Whether a folder is a checkpoint of sharded training, which `torch.distributed.checkpoint` reads."""
    return (path / ".metadata").is_file()


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
