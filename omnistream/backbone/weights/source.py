"""A place that weights come from: a file, a folder, a training run, or a repository of the Hugging Face hub."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnistream.backbone.weights.files import SUFFIXES, flat_tensors, holds_weights, read_file, read_json, read_tensors
from omnistream.backbone.weights.formats import StateDict
from omnistream.backbone.weights.networks import extract, flatten
from omnistream.backbone.weights.published import find_published
from omnistream.errors import one_line
from omnistream.paths import expand_path
from omnistream.run_config import Described, find_checkpoint, find_run_config, read_run_config

# Arguments that do not belong to a saved model: where weights come from, how they are initialised, how it runs.
NOT_STORED = {
    "self",
    "checkpoint",
    "pretrained",
    "variant",
    "layer_scale_init",
    "attention",
    "activation_checkpointing",
}

# Safetensors come first, so that repositories that hold both formats are not downloaded twice.
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
    run: "TrainingRun | None" = None
    """For a checkpoint of a training run."""


@dataclass
class TrainingRun:
    """The training module that a checkpoint belongs to."""

    path: Path
    """The checkpoint."""
    tensors: StateDict
    """All tensors of the module."""
    module: Described | None
    """Its class and arguments; None if neither the checkpoint nor a config.yaml describes it. Hyper-parameters in a
    checkpoint do not name the class, so `class_path` is empty then."""

    def backbone_settings(self) -> dict[str, Any]:
        """Variant and options of the backbone, as a config.json has them; empty if they are not described."""
        backbone = None if self.module is None else Described.read(self.module.settings.get("backbone"))
        if backbone is None or "variant" not in backbone.settings:
            return {}
        options = {key: value for key, value in backbone.settings.items() if key not in NOT_STORED}
        return {"variant": backbone.settings["variant"], "options": options}


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
        ValueError: If the hub denies access, a file cannot be read without running code, or `part` is not in it.
    """
    name, path = str(source), expand_path(source)
    if not path.exists():
        path = _download(_hub_id(name), revision, token)
    if path.is_dir() and not holds_weights(path):
        path = _last_checkpoint(path)
    content = read_file(path) if path.suffix == ".ckpt" else None
    tensors = read_tensors(path) if content is None else flat_tensors(content, path)
    try:
        state, left_out = extract(tensors, part)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if run := _training_run(path, content):
        return WeightSource(name, state, run.backbone_settings(), left_out=left_out, run=run)
    if not path.is_dir() and not re.fullmatch(r"model.*\.safetensors", path.name):
        return WeightSource(name, state, left_out=left_out)
    folder = path if path.is_dir() else path.parent
    config, processor = (read_json(folder / f"{kind}.json") for kind in ("config", "preprocessor_config"))
    return WeightSource(name, state, config, processor, left_out)


def _hub_id(name: str) -> str:
    """The repository on the hub that a name stands for.

    Raises:
        FileNotFoundError: If it can only be a path.
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


def _training_run(path: Path, content: Any) -> TrainingRun | None:
    """The run that wrote a checkpoint; None if no state dict is in it."""
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        return None
    saved, config = content.get("hyper_parameters"), find_run_config(path)
    if isinstance(saved, dict) and "backbone" in saved:
        module: Described | None = Described("", saved)
    else:
        module = None if config is None else read_run_config(config)
    return TrainingRun(path, flatten(content["state_dict"]), module)


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
            f"there is no {hub_id} here, and it cannot be downloaded from the hub ({one_line(error, 200)}); "
            "gated weights (facebook/dinov3-*) need their licence accepted on the hub and `hf auth login`"
        ) from error
    assert folder is not None
    return folder


def section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """An object inside a config.json; empty if it is not there.

    Raises:
        ValueError: If it is something else.
    """
    section = config.get(name, {})
    if not isinstance(section, dict):
        raise ValueError(f"{name} in config.json should be an object, got {section!r}")
    return section
