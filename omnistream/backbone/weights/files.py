"""Files of weights: found in folders and read memory-mapped, without running any code that they may hold."""

import argparse
import errno
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from omnistream.backbone.weights.formats import StateDict
from omnistream.backbone.weights.networks import flatten
from omnistream.errors import one_line
from omnistream.run_config import find_checkpoint, is_distributed_checkpoint

INDEX_NAME = "model.safetensors.index.json"
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
RUN_KEYS = ("state_dict", "pytorch-lightning_version")
"""What Lightning writes into every checkpoint, and needs to read one."""
_NAMES = ("model", "pytorch_model")
_MAX_JSON_BYTES = 16 * 2**20


def read_file(path: Path) -> Any:
    """Content of a weights file; its tensors are mapped, so only what is used is read from disk.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no file of weights, is cut short, or holds objects whose loading could run code.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file, or was cut short: {error}") from error
    try:
        # Many published checkpoints hold the arguments of their training script, which are plain values.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # the error below says more
            # Files in the format of PyTorch before 1.6 are not archives and cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if not _is_pickled(path):
            raise ValueError(f"{path} is no weights file") from error
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"{path} holds more than tensors and plain values{f' ({found[1]})' if found else ''}, and loading it could "
            "run code; not loaded"
        ) from error
    except (RuntimeError, EOFError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no weights file, or was cut short: {one_line(error, 200)}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ValueError(
            f"{path} was cut short: the end of the archive is missing"
        ) from error  # searched before byte 0


def _is_pickled(path: Path) -> bool:
    """Whether a file is an archive, or begins as a pickle of protocol 2 or later, which torch.save writes."""
    with path.open("rb") as file:
        return file.read(1) == b"\x80" or zipfile.is_zipfile(path)


def read_checkpoint(path: Path | str) -> StateDict:
    """All tensors of a training module, memory-mapped: what is not used is never read from disk.

    Args:
        path: Checkpoint, or folder of the run that wrote it.

    Returns:
        The tensors by the names that the module gives them. The parts of names that torch.compile, DDP and FSDP add are
        removed.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it cannot be read, or holds no tensors.
    """
    found, content = _open_checkpoint(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    return flat_tensors(state, found)


def read_run(path: Path | str) -> tuple[Path, dict[str, Any]]:
    """Everything that Lightning saved of a training run, its tensors memory-mapped.

    Args:
        path: Checkpoint, or folder of the run that wrote it.

    Returns:
        The file that was found, and its content.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it cannot be read, or is no checkpoint of a run.
    """
    found, content = _open_checkpoint(path)
    if not isinstance(content, dict) or any(key not in content for key in RUN_KEYS):
        raise ValueError(
            f"{found} is not the checkpoint of a training run; weights of a backbone are loaded with "
            "create_model(..., checkpoint=PATH)"
        )
    return found, content


def _open_checkpoint(path: Path | str) -> tuple[Path, Any]:
    """The file that a path refers to, and its content."""
    found = find_checkpoint(path)
    if is_distributed_checkpoint(found):
        raise ValueError(_distributed(found))
    return found, read_file(found)


def read_tensors(path: Path) -> StateDict:
    """All tensors of a file, or of the file or shards in a folder, by their dotted keys.

    Raises:
        FileNotFoundError: If there are no weights.
        ValueError: If they cannot be read.
    """
    found: StateDict = {}
    for file in weight_files(path) if path.is_dir() else [path]:
        found.update(flat_tensors(read_file(file), file))
    return found


def flat_tensors(content: Any, path: Path) -> StateDict:
    """All tensors in the content of a file by their dotted keys.

    Raises:
        ValueError: If there are none, or two have the same name.
    """
    try:
        state = flatten(content) if isinstance(content, Mapping) else {}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not state:
        raise ValueError(f"{path} holds no dictionary of tensors")
    return state


def weight_files(folder: Path) -> list[Path]:
    """The file, or the shards of the safetensors index, that hold a folder's weights."""
    if is_distributed_checkpoint(folder):
        raise ValueError(_distributed(folder))
    if (folder / INDEX_NAME).is_file():
        index = read_json(folder / INDEX_NAME).get("weight_map")
        names = sorted(set(index.values())) if isinstance(index, dict) else []
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise ValueError(f"{folder / INDEX_NAME} does not name the shards of the weights in its own folder")
        if absent := [name for name in names if not (folder / name).is_file()]:
            raise FileNotFoundError(f"{folder} lacks {absent[0]}, one of the {len(names)} shards of its weights")
        return [folder / name for name in names]
    for suffix in SUFFIXES:
        files = sorted(folder.glob(f"*{suffix}"))
        preferred = [file for file in files if file.stem in _NAMES] or files
        if len(preferred) > 1:
            some = ", ".join(file.name for file in preferred[:5])
            raise ValueError(f"{folder} holds {len(preferred)} weights files ({some}); give one of them")
        if preferred:
            return preferred
    raise FileNotFoundError(f"{folder} holds no weights ({', '.join(SUFFIXES)})")


def holds_weights(folder: Path) -> bool:
    """Whether a folder holds weights itself, as opposed to the checkpoints of a training run."""
    if is_distributed_checkpoint(folder) or (folder / INDEX_NAME).is_file():
        return True
    files = [file for file in folder.iterdir() if file.suffix in SUFFIXES and file.suffix != ".ckpt"]
    named = any(file.stem in _NAMES for file in files)
    return named or (bool(files) and not (folder / "checkpoints").is_dir())


def _distributed(folder: Path) -> str:
    return (
        f"{folder} is a distributed checkpoint, whose reader can run code; train with "
        "save_distributed_checkpoint: false, or turn your own into a file with "
        "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch`"
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file.

    Raises:
        ValueError: If it is too large, or no JSON object.
    """
    if not path.is_file():
        return {}
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; a configuration has at most {_MAX_JSON_BYTES}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold one JSON object, got a {type(content).__name__}")
    return content
