"""The streaming step as a file that runs without this library: `torch.export` (.pt2) and ONNX."""

import json
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from omnistream.backbone.export.onnx_step import GrowingOnnxStep, RingOnnxStep
from omnistream.backbone.model import StreamingViT
from omnistream.backbone.sessions.frame_step import FrameStep, StepInput
from omnistream.backbone.sessions.options import SessionOptions
from omnistream.backbone.sessions.static_step import StaticStep
from omnistream.version import __version__

DESCRIPTION = "omnistream.json"
"""Extra file of a .pt2 (in ONNX a metadata property `omnistream`) that says what the step takes and gives."""
OPSET = 18


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Parameters without gradient, so that users of the file do not need `torch.no_grad`."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        with torch.no_grad():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def describe(step: FrameStep, **more: Any) -> dict[str, Any]:
    """What a user of the file needs to know, as plain values."""
    backbone, options, inputs = step.backbone, step.options, step.inputs
    return {
        "omnistream": __version__,
        "torch": torch.__version__,
        "variant": backbone.variant,
        "rope_layout": backbone.rope_layout,
        "time_mode": options.time_mode,
        "image_size": list(inputs.image_size),
        "batch_size": inputs.batch_size,
        "images": "uint8 RGB, 0 to 255" if inputs.normalize else "normalised RGB",
        "images_dtype": str(step.blank_images().dtype).removeprefix("torch."),
        "mean": backbone.mean.flatten().tolist(),
        "std": backbone.std.flatten().tolist(),
        "window": options.window,
        "sink": options.sink,
        "layers": list(options.layers),
        "camera_token": options.camera_token,
        "aspect_ratio": None if inputs.aspect_ratio is None else list(inputs.aspect_ratio),
        "cache_dtype": str(step.cache_dtype).removeprefix("torch."),
    } | more


def _check_options(options: SessionOptions) -> None:
    if options.compiled or options.max_frames is not None:
        raise ValueError("an exported step has neither compiled=True nor max_frames; leave them out")


def export_step(backbone: StreamingViT, path: Path | str, options: SessionOptions, inputs: StepInput) -> Path:
    """Write the step with its state (see `StaticStep`) as a `.pt2` archive.

    `torch.export.load(path).module()` gives a module with two inputs, the frames [B, 3, H, W] and a bool [B] that is
    True where a stream restarts; it returns the dictionary of `Features` and keeps its cache in its own buffers. It
    runs on the device of the backbone.

    Args:
        backbone: Model to export.
        path: File to write.
        options: What the step remembers and returns; needs a window.
        inputs: The frames it takes.

    Returns:
        The path.

    Raises:
        ValueError: If there is no window or an option does not fit the backbone.
    """
    path = Path(path)
    _check_options(options)
    step = StaticStep(backbone, options, inputs)
    reset = torch.zeros(inputs.batch_size, dtype=torch.bool, device=step.frame.device)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _frozen(step), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        program = torch.export.export(step, (step.blank_images(), reset))
        whole, small = Path(folder) / path.name, Path(folder) / "small"
        torch.export.save(program, whole, extra_files={DESCRIPTION: json.dumps(describe(step))})
        _deflate_constants(whole, small)
        small.replace(path)
    return path


def _deflate_constants(source: Path, target: Path) -> None:
    """Copy a .pt2 and compress all but the weights: the empty cache is often larger than the model."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            copy = zipfile.ZipInfo(entry.filename)
            copy.compress_type = zipfile.ZIP_DEFLATED if "/constants/" in entry.filename else zipfile.ZIP_STORED
            with old.open(entry) as reader, new.open(copy, "w", force_zip64=True) as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)


def export_onnx(
    backbone: StreamingViT,
    path: Path | str,
    options: SessionOptions,
    inputs: StepInput,
    cache: Literal["ring", "growing"] = "ring",
) -> Path:
    """Write the step as ONNX, with the cache as inputs `keys_<i>`, `values_<i>` and outputs `next_keys_<i>`, ...

    The graph has no Tile, no float64 and no loop. With `ring` the shapes are fixed and empty slots are masked. With
    `growing` the cache has any number of frames, none at first; the output has one more, and the caller drops those to
    forget.

    Args:
        backbone: Model to export; in float32 or float16.
        path: File to write. Weights above 2 GB go to a second file beside it.
        options: What the step remembers and returns; `ring` needs a window, `growing` takes none.
        inputs: The frames it takes.
        cache: `ring` or `growing`, see above.

    Returns:
        The path.

    Raises:
        ImportError: If the packages of the extra `onnx` are missing.
        ValueError: If an option does not fit the backbone or the kind of cache, or the dtype has no ONNX kernels.
    """
    path = Path(path)
    check_onnx_installed()
    if cache not in ("ring", "growing"):
        raise ValueError(f"cache must be 'ring' or 'growing', got {cache!r}")
    _check_options(options)
    if cache == "growing" and options.resolve(backbone).window is not None:
        raise ValueError("with a growing cache the caller drops old frames; pass window=None, or use cache='ring'")
    step = RingOnnxStep(backbone, options, inputs) if cache == "ring" else GrowingOnnxStep(backbone, options, inputs)
    for dtype in (backbone.cls_token.dtype, step.cache_dtype):
        if dtype not in (torch.float32, torch.float16):
            raise ValueError(f"ONNX export needs float32 or float16, got {dtype}; convert with backbone.float()")
    arguments = (step.blank_images(), step.new_frame_count(), *step.example_caches())
    with _frozen(step), warnings.catch_warnings():
        # All caches have the same number of frames, under one name, about which the exporter warns.
        warnings.filterwarnings("ignore", "# The axis name: frames will not be used")
        program: Any = torch.onnx.export(
            step,
            arguments,
            input_names=step.input_names(),
            output_names=step.output_names(),
            dynamic_shapes=step.dynamic_shapes(),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    program.model.metadata_props["omnistream"] = json.dumps(describe(step, cache=cache))
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(path)
    return path


def check_onnx_installed() -> None:
    """Check that the packages of the extra `onnx` are installed.

    Raises:
        ImportError: If a package that torch's exporter needs is not there.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"ONNX export needs {error.name}; install it with: pip install 'omnistream[onnx]'", name=error.name
        ) from error
