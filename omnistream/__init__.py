"""OmniStream: one streaming visual backbone, its three training objectives and its evaluation."""

from typing import TYPE_CHECKING, Any

from omnistream.version import __version__

if TYPE_CHECKING:
    from omnistream.backbone import (
        BackboneOutput,
        CompiledSession,
        OmniStream,
        SessionOptions,
        StreamSession,
        create_model,
        list_models,
    )
    from omnistream.trained import ClipGeometry, TrainedModel, load

__all__ = [
    "BackboneOutput",
    "ClipGeometry",
    "CompiledSession",
    "OmniStream",
    "SessionOptions",
    "StreamSession",
    "TrainedModel",
    "__version__",
    "create_model",
    "list_models",
    "load",
]
_TRAINED = {"ClipGeometry", "TrainedModel", "load"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import omnistream` alone does not wait for PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module("omnistream.trained" if name in _TRAINED else "omnistream.backbone"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | set(__all__))
