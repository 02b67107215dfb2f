"""`omnistream export`: the streaming step as a .pt2 or ONNX file."""

import argparse
from pathlib import Path

from omnistream.commands.arguments import DTYPE_NAMES, FLOAT_NAMES, CommandParser, place, usable_device
from omnistream.errors import UsageError

_DESCRIPTION = """\
Write the streaming step, one frame in and features out, as a file that runs without this library.

pt2   for torch.export.load: the state is inside, a flag per stream starts it anew (examples/run_pt2.py).
onnx  for ONNX Runtime and TensorRT: the cache goes in and comes out (examples/run_onnx.py); needs the extra `onnx`.

CHECKPOINT is a weights file or folder in a known layout, or a hub id, as for OmniStream.from_pretrained. A .pt2 can run
code when it is loaded: load only files from people you trust.
"""
_EXAMPLES = """\
examples:
  omnistream export weights.safetensors step.pt2 --window 16 --size 512 512
  omnistream export weights.safetensors step.onnx --format onnx --window 8 --size 256 256
"""


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("export", _DESCRIPTION, _EXAMPLES)
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT")
    add("out", metavar="OUT", type=Path)
    add("--format", choices=["pt2", "onnx"], help="default: from the ending of OUT")
    add("--variant", help="size of the backbone, see `omnistream models`; default: found out from the weights")
    add("--rope-layout", choices=["rotation", "official", "spatial"], help="default: as from_pretrained chooses")
    add("--time-mode", choices=["absolute", "official"], help="default: as from_pretrained chooses")
    add("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), required=True, help="of the frames in pixels")
    add("--window", type=int, help="remembered frames; needed unless --cache growing")
    add("--sink", type=int, help="first frames never forgotten; default: the checkpoint's own")
    add("--batch-size", type=int, default=1, help="streams side by side; default 1")
    add("--layers", type=int, nargs="*", default=[], help="blocks whose patch features are returned as well")
    add("--camera-token", action="store_true", help="add the camera token")
    add("--aspect-ratio", type=float, nargs="+", help="height over width of each stream, told to the camera token")
    add("--dtype", choices=FLOAT_NAMES, default="fp32", help="of the weights")
    add("--cache-dtype", choices=FLOAT_NAMES, help="of cache and attention; default --dtype")
    add("--device", default="cpu", help="where a .pt2 is to run, e.g. cuda; default cpu")
    add("--normalized", action="store_true", help="take frames that are normalised; default: uint8 as from a camera")
    add("--cache", choices=["ring", "growing"], default="ring", help="kind of ONNX cache; default ring")
    return parser


def run(arguments: list[str]) -> None:
    """Export, and print what was written."""
    options = _parser().parse_args(arguments)
    kind = options.format or options.out.suffix.removeprefix(".")
    if kind not in ("pt2", "onnx"):
        raise UsageError(f"cannot tell the format from {str(options.out)!r}; add --format pt2 or --format onnx")
    if kind == "pt2" and options.cache == "growing":
        raise UsageError("--cache growing is for --format onnx; a .pt2 keeps its state in a ring, set --window")
    if options.cache == "growing" and (options.window, options.sink) != (None, None):
        raise UsageError(
            "a growing cache forgets nothing by itself; leave --window and --sink out, or take --cache ring"
        )
    if options.cache == "ring" and options.window is None:
        raise UsageError("set --window: the number of frames the step remembers")
    if options.out.is_dir():
        raise UsageError(f"{options.out} is a folder; OUT is a file")
    import torch

    from omnistream.backbone import OmniStream
    from omnistream.backbone.export.files import check_onnx_installed, export_onnx, export_step
    from omnistream.backbone.sessions.frame_step import StepInput
    from omnistream.backbone.sessions.options import SessionOptions

    device = usable_device(options.device)
    if kind == "onnx":
        try:
            check_onnx_installed()
        except ImportError as error:
            raise UsageError(str(error)) from error
    named = ("variant", "rope_layout", "time_mode")
    chosen = {name: getattr(options, name) for name in named if getattr(options, name) is not None}
    backbone = OmniStream.from_pretrained(options.checkpoint, **chosen)
    step = SessionOptions(
        window=options.window,
        sink=backbone.sink if options.sink is None else options.sink,
        layers=tuple(options.layers),
        camera_token=options.camera_token,
        cache_dtype=None if options.cache_dtype is None else getattr(torch, DTYPE_NAMES[options.cache_dtype]),
    )
    frames = StepInput(
        image_size=tuple(options.size),
        batch_size=options.batch_size,
        aspect_ratio=None if options.aspect_ratio is None else tuple(options.aspect_ratio),
        normalize=not options.normalized,
    )
    place(backbone, device, options.dtype)
    if kind == "pt2":
        path = export_step(backbone, options.out, step, frames)
    else:
        path = export_onnx(backbone, options.out, step, frames, options.cache)
    shape = f"{options.size[0]} x {options.size[1]}, {'normalised' if options.normalized else 'uint8'}"
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB): {backbone.variant}, frames {shape}")
    print(f"run it with: python examples/run_{kind}.py {path}")
