"""Weights and settings from a file, a folder or the Hugging Face hub; nothing that is read is executed."""

import json
import pickle
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from omnistream.backbone.weights.formats import StateDict
from omnistream.errors import one_line
from omnistream.run_config import Described, find_run_config, read_run_config

# Arguments that say where weights come from, how they are drawn, or how the model runs and trains; not what it is.
NOT_STORED = {
    "self",
    "checkpoint",
    "pretrained",
    "variant",
    "layer_scale_init",
    "attention",
    "activation_checkpointing",
}

INDEX_NAME = "model.safetensors.index.json"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
_MAX_JSON_BYTES = 16 * 2**20
# Safetensors are asked for first, so that repositories that hold both forms are not downloaded twice.
_HUB_FILES = (["*.json", "*.safetensors"], ["*.pth", "*.pt", "*.bin"])


@dataclass
class WeightSource:
    """What was found at one place."""

    name: str
    """Path or hub id as the user gave it."""
    state: StateDict
    """Tensors, unwrapped."""
    config: dict[str, Any] = field(default_factory=dict)
    """The folder's config.json, or the like from a training run's config.yaml; empty if there is none."""
    processor: dict[str, Any] = field(default_factory=dict)
    """The folder's preprocessor_config.json (Hugging Face); empty if there is none."""
    left_out: list[str] = field(default_factory=list)
    """What else the file held."""


def read_source(source: Path | str, *, revision: str | None = None, token: str | None = None) -> WeightSource:
    """Weights and settings of a local file or folder, or of a repository on the Hugging Face hub.

    Args:
        source: Path of a file (.safetensors, .pth, .pt, .ckpt, .bin) or folder, or a hub id `owner/name`.
        revision: Branch, tag or commit on the hub.
        token: Access token of the hub; default that of `hf auth login`.

    Raises:
        FileNotFoundError: If there is nothing there.
        ValueError: If the hub refuses, or a file cannot be read without running code.
    """
    name, path = str(source), Path(source)
    if not path.exists():
        hub_id = name.removeprefix("hf-hub:").removeprefix("hf_hub:")
        if path.suffix in _SUFFIXES or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", hub_id):
            raise FileNotFoundError(
                f"no weights at {source}: no such file or folder (a hub id has the form owner/name)"
            )
        path = _download(hub_id, revision, token)
    state, left_out = _read_state(path)
    folder = path if path.is_dir() else path.parent
    if path.suffix == ".ckpt":
        return WeightSource(name, state, _run_config(path), left_out=left_out)
    if not path.is_dir() and not re.fullmatch(r"model.*\.safetensors", path.name):
        return WeightSource(name, state, left_out=left_out)
    config, processor = (_read_json(folder / f"{kind}.json") for kind in ("config", "preprocessor_config"))
    return WeightSource(name, state, config, processor, left_out)


def read_state(path: Path | str) -> StateDict:
    """Tensors of a .safetensors, .pth, .pt, .bin or .ckpt file or a folder with one, unwrapped.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no state dict, or things whose loading could run code.
    """
    return _read_state(Path(path))[0]


def _read_state(path: Path) -> tuple[StateDict, list[str]]:
    if path.is_dir():
        files = _weight_files(path)
        if len(files) > 1:
            shards: StateDict = {}
            for file in files:
                shards.update(_load(file))
            return shards, []
        path = files[0]
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    return _unwrap(_load(path), path)


def _weight_files(folder: Path) -> list[Path]:
    """The file, or the shards of the safetensors index, that hold a folder's weights."""
    if (folder / ".metadata").is_file():
        raise ValueError(
            f"{folder} is a distributed checkpoint, whose reader can run code; train with "
            "save_distributed_checkpoint: false, or turn your own into a file with "
            "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch`"
        )
    if (folder / INDEX_NAME).is_file():
        index = _read_json(folder / INDEX_NAME).get("weight_map")
        names = sorted(set(index.values())) if isinstance(index, dict) else []
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise ValueError(f"{folder / INDEX_NAME} does not name the shards of the weights in its own folder")
        if absent := [name for name in names if not (folder / name).is_file()]:
            raise FileNotFoundError(f"{folder} lacks {absent[0]}, one of the {len(names)} shards of its weights")
        return [folder / name for name in names]
    for suffix in _SUFFIXES:
        files = sorted(folder.glob(f"*{suffix}"))
        preferred = [file for file in files if file.stem in ("model", "pytorch_model")] or files
        if len(preferred) > 1:
            some = ", ".join(file.name for file in preferred[:5])
            raise ValueError(f"{folder} holds {len(preferred)} weights files ({some}); give one of them")
        if preferred:
            return preferred
    raise FileNotFoundError(f"{folder} holds no weights ({', '.join(_SUFFIXES)})")


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file, or was cut short: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # it is refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values, and loading it could run code (or it is no weights "
            "file); not loaded"
        ) from error
    except (RuntimeError, EOFError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no weights file, or was cut short: {one_line(error, 200)}") from error


def _unwrap(state: Any, path: Path) -> tuple[StateDict, list[str]]:
    """The state dict inside a checkpoint, and a word on what lay beside it."""
    for wrapper in ("state_dict", "model", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(f"{path} holds no dictionary of tensors")
    left_out = []
    for prefix in ("module.", "backbone."):
        if any(key.startswith(prefix) for key in state):
            beside = sorted({key.split(".")[0] for key in state if not key.startswith(prefix)})
            if beside:
                left_out.append(f"{', '.join(f'{name}.*' for name in beside)} (beside the backbone)")
            state = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    return state, left_out


def _read_json(path: Path) -> dict[str, Any]:
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


def _run_config(checkpoint: Path) -> dict[str, Any]:
    """Variant and options of the backbone in the config.yaml of the run that wrote a checkpoint; empty without one."""
    path = find_run_config(checkpoint)
    model = None if path is None else read_run_config(path)
    backbone = None if model is None else Described.read(model.settings.get("backbone"))
    if backbone is None or "variant" not in backbone.settings:
        return {}
    options = {key: value for key, value in backbone.settings.items() if key not in NOT_STORED}
    return {"variant": backbone.settings["variant"], "options": options}


def _download(hub_id: str, revision: str | None, token: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    folder = None
    try:
        for patterns in _HUB_FILES:
            folder = Path(snapshot_download(hub_id, revision=revision, token=token, allow_patterns=patterns))
            if any(folder.glob("*.safetensors")):
                break
    except (OSError, HFValidationError) as error:
        raise ValueError(
            f"there is no {hub_id} here, and it cannot be had from the hub ({one_line(error, 200)}); "
            "gated weights (facebook/dinov3-*) need their licence accepted on the hub and `hf auth login`"
        ) from error
    assert folder is not None
    return folder
