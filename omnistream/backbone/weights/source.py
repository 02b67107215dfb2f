"""A place that weights come from: a file, a folder, a training run, or a repository of the Hugging Face hub."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnistream.backbone.weights.files import SUFFIXES, holds_weights, read_file, read_json, read_tensors
from omnistream.backbone.weights.formats import StateDict
from omnistream.backbone.weights.networks import extract, flatten
from omnistream.backbone.weights.published import find_published
from omnistream.errors import one_line
from omnistream.paths import expand_path
from omnistream.run_config import Described, find_checkpoint, find_run_config, read_run_config

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


def read_source(
    source: Path | str, *, part: str | None = None, revision: str | None = None, token: str | None = None
) -> WeightSource:
    """Weights and settings of a local file, folder or training run, or of a repository on the Hugging Face hub.

    Tensors are mapped, not read; see `files.read_file`.

    Args:
        source: Path of a file (.safetensors, .pth, .pt, .ckpt, .bin), of a folder with one, or of the folder of a
            training run, whose last checkpoint is meant; a hub id `owner/name`; or a name that `omnistream models`
            lists. `~` and `$VAR` are expanded.
        part: Which network of a checkpoint that holds several, e.g. `student`. Default: the backbone of a checkpoint of
            this library, else the teacher or moving average.
        revision: Branch, tag or commit on the hub.
        token: Access token of the hub; default that of `hf auth login`.

    Raises:
        FileNotFoundError: If there is nothing there.
        ValueError: If the hub refuses, a file cannot be read without running code, or `part` is not in it.
    """
    name, path = str(source), expand_path(source)
    if not path.exists():
        path = _download(_hub_id(name), revision, token)
    if path.is_dir() and not holds_weights(path):
        path = _last_checkpoint(path)
    trained = path.suffix == ".ckpt" and path.is_file()
    content = read_file(path) if trained else read_tensors(path)
    try:
        state, left_out = extract(flatten(content), part)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if trained:
        return WeightSource(name, state, _settings_of_run(path, content), left_out=left_out)
    if not path.is_dir() and not re.fullmatch(r"model.*\.safetensors", path.name):
        return WeightSource(name, state, left_out=left_out)
    folder = path if path.is_dir() else path.parent
    config, processor = (read_json(folder / f"{kind}.json") for kind in ("config", "preprocessor_config"))
    return WeightSource(name, state, config, processor, left_out)


def _hub_id(name: str) -> str:
    """The repository that is meant by what is no path.

    Raises:
        FileNotFoundError: If it can only have been meant as a path.
    """
    hub_id = name.removeprefix("hf-hub:").removeprefix("hf_hub:") if "/" in name else find_published(name) or name
    if hub_id.endswith(SUFFIXES) or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", hub_id):
        raise FileNotFoundError(
            f"no weights at {name}: no such file or folder (a hub id has the form owner/name; see `omnistream models`)"
        )
    return hub_id


def _last_checkpoint(folder: Path) -> Path:
    try:
        return find_checkpoint(folder)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder} holds no weights ({', '.join(SUFFIXES)}) and is no folder of a run (checkpoints/last.ckpt)"
        ) from error


def described_run(path: Path, content: Any) -> Described | None:
    """What a training checkpoint says about its module, else the config.yaml of its run; None if neither does.

    The hyper-parameters in a checkpoint do not name the module's own class, so `class_path` is empty then.

    Raises:
        ValueError: If config.yaml is not YAML.
    """
    saved = content.get("hyper_parameters") if isinstance(content, dict) else None
    if isinstance(saved, dict) and "backbone" in saved:
        return Described("", saved)
    config = find_run_config(path)
    return None if config is None else read_run_config(config)


def _settings_of_run(path: Path, content: Any) -> dict[str, Any]:
    """Variant and options of the backbone that a run trained; empty if nothing says them."""
    model = described_run(path, content)
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
