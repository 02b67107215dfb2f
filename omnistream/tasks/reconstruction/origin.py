"""What decides the outcome of a video: one of a stopped test is taken over only where all of it is the same."""

from typing import Any

from torch import nn

from omnistream.data.scenes.reader import SceneReader
from omnistream.evaluation.fingerprint import fingerprint, model_fingerprint


def model_settings(geometry: nn.Module) -> dict[str, Any]:
    """Class and settings of a model, as plain values for `results.json`."""
    own = geometry.settings() if hasattr(geometry, "settings") else {}  # type: ignore[operator]
    return {"class": f"{type(geometry).__module__}.{type(geometry).__qualname__}", **own}


def model_origin(geometry: nn.Module) -> dict[str, Any]:
    """Weights, code and settings of a model.

    Plain attributes of a model with `settings` do not count, as some change while it runs; those of its parts do.

    Raises:
        ValueError: If the weights are sharded over processes.
    """
    if not hasattr(geometry, "settings"):
        return {"settings": model_settings(geometry), "model": model_fingerprint(geometry)}
    parts = {name: model_fingerprint(part) for name, part in geometry.named_children()}
    return {
        "settings": model_settings(geometry),
        "class": fingerprint(type(geometry)),
        "own": fingerprint([*geometry.named_parameters(recurse=False), *geometry.named_buffers(recurse=False)]),
        "parts": parts,
    }


def videos_origin(reader: SceneReader) -> dict[str, Any]:
    """Class, arguments and files of a reader; which frames and images of it are used, `GeometryVideo.settings` says."""
    arguments = {
        name: value
        for name, value in vars(reader).items()
        if not name.startswith("_") and name not in ("root", "broken")
    }
    return {"reader": fingerprint([type(reader), arguments]), **reader.state()}
