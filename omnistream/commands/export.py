"""`omnistream export`: the streaming step as a .pt2 or ONNX file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from omnistream.commands.arguments import SHORT_DTYPES, CommandParser, FloatName, place, usable_device
from omnistream.errors import UsageError

if TYPE_CHECKING:
    from omnistream.backbone import OmniStream
    from omnistream.backbone.sessions.options import SessionOptions

_DESCRIPTION = """\
Write the streaming step, one frame in and features out, as a file that runs without this library.

pt2   for torch.export.load: the state is inside, a flag per stream restarts it (examples/run_pt2.py).
onnx  for ONNX Runtime and TensorRT: the cache is an input and an output (examples/run_onnx.py); needs the extra `onnx`.

CHECKPOINT is a weights file or folder in a known layout, or a hub id, as for OmniStream.from_pretrained. A .pt2 can run
code when it is loaded: load only files from people you trust.
"""
_EXAMPLES = """\
examples:
  omnistream export weights.safetensors step.pt2 --window 16 --size 512 512
  omnistream export weights.safetensors step.onnx --format onnx --window 8 --size 256 256
"""

_NOT_OPTIONS = ("max_frames", "offload", "compiled", "backend", "mode")
"""Fields of `SessionOptions` that an exported step does not have."""


@dataclass(frozen=True)
class ExportOptions:
    """What is exported.

    Raises:
        UsageError: If the format is neither given nor clear from the name of the file, or does not go with the cache.
    """

    checkpoint: str | Path
    """Run folder, checkpoint, file or folder of weights, or hub id."""
    out: Path
    """File to write."""
    format: Literal["pt2", "onnx"] | None = None
    """Kind of file. Default: by the suffix of OUT."""
    overwrite: bool = False
    """Replace the file if it exists."""
    variant: str | None = None
    """Size of the backbone, if the weights do not say (see `omnistream models`)."""
    rope_layout: Literal["rotation", "official", "spatial"] | None = None
    """Positions. Default: the checkpoint's own."""
    dtype: FloatName = "float32"
    """Dtype of the weights."""
    device: str = "cpu"
    """Device on which a .pt2 runs, e.g. cuda."""
    normalized: bool = False
    """Take frames that are normalised already instead of uint8 RGB."""
    cache: Literal["ring", "growing"] = "ring"
    """Kind of ONNX cache: of fixed shape (ring), or as many frames as are passed in (growing)."""

    def __post_init__(self) -> None:
        if self.kind not in ("pt2", "onnx"):
            raise UsageError(f"cannot tell the format from {str(self.out)!r}; add --format pt2 or --format onnx")
        if self.kind == "pt2" and self.cache == "growing":
            raise UsageError("--cache growing is for --format onnx; a .pt2 keeps its state in a ring, set --window")
        if self.out.is_dir():
            raise UsageError(f"{self.out} is a folder; OUT is a file")
        if self.out.exists() and not self.overwrite:
            raise UsageError(f"{self.out} exists; choose another name or add --overwrite")

    @property
    def kind(self) -> str:
        """The format."""
        return self.format or self.out.suffix.removeprefix(".")


def run(arguments: list[str]) -> None:
    """Export, and print what was written."""
    from omnistream.backbone.export.files import check_onnx_installed, export_onnx, export_step
    from omnistream.backbone.sessions.frame_step import StepInput
    from omnistream.backbone.sessions.options import SessionOptions

    parser = CommandParser("export", _DESCRIPTION, _EXAMPLES)
    parser.add_options(ExportOptions, positional=True, values={"dtype": SHORT_DTYPES})
    parser.add_options(StepInput, skip=("normalize",), aliases={"size": "image_size"})
    parser.add_options(SessionOptions, skip=_NOT_OPTIONS, values={"cache_dtype": SHORT_DTYPES})
    given = parser.parse(arguments)
    options = given[ExportOptions]
    session = _with_window(given[SessionOptions], options, given.given)
    inputs = replace(given[StepInput], normalize=not options.normalized)
    device = usable_device(options.device)
    if options.kind == "onnx":
        try:
            check_onnx_installed()
        except ImportError as error:
            raise UsageError(str(error)) from error
    backbone = _load(options)
    place(backbone, device, options.dtype)
    if options.kind == "pt2":
        path = export_step(backbone, options.out, session, inputs)
    else:
        path = export_onnx(backbone, options.out, session, inputs, options.cache)
    frames = f"{inputs.image_size[0]} x {inputs.image_size[1]}, {'normalised' if options.normalized else 'uint8'}"
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB): {backbone.variant}, frames {frames}")
    print(f"run it with: python examples/run_{options.kind}.py {path}")


def _with_window(session: "SessionOptions", options: ExportOptions, given: frozenset[str]) -> "SessionOptions":
    """The session with a window that fits the kind of cache.

    Raises:
        UsageError: If a window is missing, or given without effect.
    """
    if options.cache == "growing":
        if {"window", "sink"} & given:
            raise UsageError(
                "a growing cache never drops frames itself; leave --window and --sink out, or use --cache ring"
            )
        return replace(session, window=None)
    if "window" not in given:
        raise UsageError("set --window: the number of frames that the step remembers")
    return session


def _load(options: ExportOptions) -> "OmniStream":
    from omnistream.backbone import OmniStream

    chosen = {name: value for name in ("variant", "rope_layout") if (value := getattr(options, name)) is not None}
    return OmniStream.from_pretrained(options.checkpoint, **chosen)
