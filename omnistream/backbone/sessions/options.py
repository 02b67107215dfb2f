"""The options of a streaming session, declared once for Python, configuration files and the command line."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypedDict, get_args

import torch

from omnistream.backbone.attention import check_window
from omnistream.backbone.model import StreamingViT
from omnistream.backbone.time_mode import TimeMode, check_time_mode

FromBackbone = Literal["backbone"]
"""Stands for the value that the backbone was built with."""
FROM_BACKBONE: FromBackbone = "backbone"
CacheDtype = Literal["float32", "bfloat16", "float16", "int8"]
HOW_IT_RUNS = {"offload", "compiled", "backend", "mode"}
"""Options that change speed and memory but not what is remembered: saved states can be exchanged between them."""


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """What a stream remembers, what it returns, and how it runs.

    Raises:
        ValueError: If a value is out of range, or two options contradict each other.
    """

    window: int | FromBackbone | None = FROM_BACKBONE
    """Number of past frames W that are remembered, so a frame attends to W + 1 frames including itself. None remembers
    all of them, and memory then grows with the stream."""
    sink: int | FromBackbone = FROM_BACKBONE
    """Number of frames at the start of the stream that a window never forgets."""
    max_frames: int | None = None
    """Without a window: allocate memory for this many frames at once, and refuse more. None grows by doubling."""
    cache_dtype: CacheDtype | torch.dtype | None = None
    """Dtype of cache and attention, by default that of the backbone. `int8` stores 8-bit codes with one scale per head
    and token for all frames but the sink, and attends in the backbone's dtype."""
    time_mode: TimeMode | FromBackbone = FROM_BACKBONE
    """`absolute`, or `official` to compare with the authors' release; see `omnistream.backbone.time_mode`."""
    layers: Sequence[int] = ()
    """Blocks (0-based) whose patch features are returned, before the final norm."""
    camera_token: bool = False
    """Add the camera token to every frame and return its features."""
    offload: bool = False
    """Keep the cache in CPU memory and bring one layer at a time to the accelerator."""
    compiled: bool = False
    """Compile the step with `torch.compile`. This takes from seconds to minutes, and pays off in long streams."""
    backend: str = "inductor"
    """Backend of `torch.compile`."""
    mode: str | None = None
    """Mode of `torch.compile`, by default `reduce-overhead` (CUDA graphs) on CUDA and `default` elsewhere."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "cache_dtype", _dtype_name(self.cache_dtype))
        check_window(
            None if self.window == FROM_BACKBONE else self.window, 0 if self.sink == FROM_BACKBONE else self.sink
        )
        if self.time_mode != FROM_BACKBONE:
            check_time_mode(self.time_mode)
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"max_frames must be at least 1 (or None to grow), got {self.max_frames}")
        if self.max_frames is not None and isinstance(self.window, int):
            raise ValueError(f"max_frames is for streams without a window (here {self.window}); pass window=None")
        if self.compiled:
            check_static(self)
        elif (self.backend, self.mode) != ("inductor", None):
            raise ValueError("backend and mode are options of torch.compile: pass compiled=True with them")

    def resolve(self, backbone: StreamingViT) -> "ResolvedOptions":
        """The options with the backbone's own values filled in.

        Raises:
            ValueError: If they do not fit the backbone.
        """
        values = {field.name: getattr(self, field.name) for field in fields(SessionOptions)}
        for name in ("window", "sink", "time_mode"):
            if values[name] == FROM_BACKBONE:
                values[name] = getattr(backbone, name)
        found = ResolvedOptions(**values)
        backbone.check_layers(found.layers)
        if found.offload and backbone.cls_token.device.type == "cpu":
            raise ValueError("offload=True moves the cache from an accelerator to the CPU; the backbone is on the CPU")
        return found

    @property
    def stored_dtype(self) -> torch.dtype | None:
        """`cache_dtype` as a torch dtype; None for that of the backbone."""
        return None if self.cache_dtype is None else getattr(torch, str(self.cache_dtype))

    def state(self) -> dict[str, Any]:
        """What a saved session must agree with, as plain values."""
        return {name: value for name, value in asdict(self).items() if name not in HOW_IT_RUNS}


@dataclass(frozen=True, kw_only=True)
class ResolvedOptions(SessionOptions):
    """Options without a reference to the backbone."""

    window: int | None
    sink: int
    time_mode: TimeMode


class SessionKeywords(TypedDict, total=False):
    """The fields of `SessionOptions` as keyword arguments, all but `compiled`; see there for what they mean."""

    window: int | FromBackbone | None
    sink: int | FromBackbone
    max_frames: int | None
    cache_dtype: CacheDtype | torch.dtype | None
    time_mode: TimeMode | FromBackbone
    layers: Sequence[int]
    camera_token: bool
    offload: bool
    backend: str
    mode: str | None


def check_static(options: SessionOptions) -> None:
    """Check the options of a compiled or exported step, which keeps a floating-point cache on its device.

    Raises:
        ValueError: If only a `StreamSession` can have them.
    """
    if options.cache_dtype == "int8":
        raise ValueError(
            "a compiled or exported step has a floating-point cache, got cache_dtype int8; choose another, or for a "
            "stream leave out compiled=True"
        )
    if options.offload:
        raise ValueError("a compiled or exported step keeps its cache on the device; leave out offload=True")


def with_keywords(options: SessionOptions | None, keywords: dict[str, Any]) -> SessionOptions:
    """Options with some fields replaced.

    Raises:
        TypeError: If a keyword is not a field.
    """
    known = [field.name for field in fields(SessionOptions)]
    if unknown := sorted(set(keywords) - set(known)):
        raise TypeError(f"a stream has no option {', '.join(unknown)}; its options are {', '.join(known)}")
    return SessionOptions(**keywords) if options is None else replace(options, **keywords)


def _dtype_name(value: Any) -> str | None:
    name = str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else value
    if name is not None and name not in get_args(CacheDtype):
        raise ValueError(
            f"cache_dtype must be one of {', '.join(get_args(CacheDtype))} (or None for the backbone's), got {value}"
        )
    return name
