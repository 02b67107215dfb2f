"""`omnistream stream`: a video, a camera or a folder of frames through the backbone, and what it sees to files."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omnistream.commands.arguments import DTYPE_NAMES, FLOAT_NAMES, CommandParser, usable_device
from omnistream.errors import UsageError

if TYPE_CHECKING:
    import torch

    from omnistream.streaming.models import StreamModel
    from omnistream.streaming.outputs import OutputOptions
    from omnistream.streaming.pictures import DepthRange
    from omnistream.streaming.runner import StreamOptions, StreamResult
    from omnistream.streaming.writer import Writer

_DESCRIPTION = """\
Send a stream through the backbone frame by frame and write what it sees to a folder. Everything goes to disk as it
comes, and memory stays the same however long the stream is (unless --window all).

SOURCE is a video file, a folder of pictures (or a pattern: 'folder/*.color.png'), the number of a camera, or an address
(rtsp://, http://, ...). Broken frames are told, counted and left out. Ctrl-C ends the stream and completes the files.
"""
_EXAMPLES = """\
written to the folder:
  features_pca.mp4   each frame beside its features, three principal components as colours
  depth.mp4, poses.txt, intrinsics.txt, points.ply   from the geometry heads of the checkpoint (--heads)
  features.npz or features/   what --features asks for
  summary.json       frames, problems, speed, memory, options

examples:
  omnistream stream clip.mp4 --checkpoint runs/quickstart/version_0/checkpoints/last.ckpt --out seen
  omnistream stream rtsp://camera/live --checkpoint my_backbone --out seen --window 256 --fps 5 --features cls
  omnistream stream 0 --random --variant vit_tiny --out tried --max-frames 100
"""
_USUAL_WINDOW = 64


def run(arguments: list[str]) -> None:
    """Stream, and say in one line what was written."""
    given = _parser().parse_args(arguments)
    folder = Path(given.out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; --out is a folder")
    if folder.is_dir() and any(folder.iterdir()) and not given.overwrite:
        raise UsageError(f"{folder} is not empty; choose another folder or add --overwrite")
    from omnistream.streaming.outputs import make_writers, write_summary
    from omnistream.streaming.problems import Problems
    from omnistream.streaming.runner import run_stream
    from omnistream.streaming.sources import open_source
    from omnistream.tasks.geometry import GeometryStream

    model = _model(given)
    outputs = _output_options(given, model)
    options = _stream_options(given, model, outputs)
    device = _place(model, given)
    heads = {"geometry": GeometryStream(model.geometry, given.cameras)} if model.geometry and outputs.heads else None
    problems = Problems(_tell)
    source = open_source(given.source, problems, fps=given.fps, frame_rate=given.frame_rate, timeout=given.timeout)
    writers: list[Writer] = []

    def start() -> Sequence["Writer"]:
        writers.extend(make_writers(folder, source.fps, outputs))  # refuses bad options, and opens no file yet
        _clear(folder)
        return writers

    chosen = vars(given) | {"source": source.name, "window": options.window, "sink": options.sink}
    chosen["heads"] = outputs.heads

    def finish(result: "StreamResult") -> None:
        write_summary(folder, result, writers, problems, model=model.origin, device=device, options=chosen)

    try:
        result = run_stream(model.backbone, source, start, options, problems, heads, finish=finish)
    finally:
        source.close()
    skipped = f", {problems.skipped} broken ones left out" if problems.skipped else ""
    rate = result.frames / max(result.seconds, 1e-9)
    print(f"{result.frames} frames ({result.ended}{skipped}), {rate:.1f} frames/s; wrote {folder}")


def _tell(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(f"omnistream: {line}", file=sys.stderr)


def _clear(folder: Path) -> None:
    """Make the folder, without the files of an earlier run; others in it stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("features_pca.mp4", "depth.mp4", "poses.txt", "intrinsics.txt", "points.ply", "features.npz"):
        (folder / name).unlink(missing_ok=True)
    (folder / "summary.json").unlink(missing_ok=True)
    if (folder / "features").is_dir():
        for shard in (folder / "features").glob("features-*.safetensors"):
            shard.unlink()


def _model(given: argparse.Namespace) -> "StreamModel":
    from omnistream.streaming.models import load_model, random_model

    if given.random:
        if given.checkpoint:
            raise UsageError("give either --checkpoint or --random, not both")
        if not given.variant:
            raise UsageError("--random needs --variant, e.g. vit_tiny; `omnistream models` lists the variants")
        return random_model(given.variant)
    if not given.checkpoint:
        raise UsageError("no weights: give --checkpoint, or --random --variant vit_tiny to try without any")
    return load_model(given.checkpoint, variant=given.variant, config=given.config)


def _place(model: "StreamModel", given: argparse.Namespace) -> "torch.device":
    """Move the model; heads stay in float32, and so does the normalisation of frames."""
    import torch

    device = usable_device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    mean, std = model.backbone.mean.float(), model.backbone.std.float()
    model.backbone.to(device, getattr(torch, DTYPE_NAMES[given.dtype]))
    model.backbone.mean, model.backbone.std = mean.to(device), std.to(device)
    if model.geometry is not None:
        model.geometry.to(device)
    return device


def _output_options(given: argparse.Namespace, model: "StreamModel") -> "OutputOptions":
    import torch

    from omnistream.streaming.features import parse_features
    from omnistream.streaming.outputs import HEADS, OutputOptions

    heads = HEADS if model.geometry is not None else ()
    if given.heads is not None:
        heads = tuple(name.strip() for name in given.heads.split(",") if name.strip() not in ("", "none"))
        if unknown := [name for name in heads if name not in HEADS]:
            raise UsageError(f"heads are {', '.join(HEADS)} or none, separated by commas; got {', '.join(unknown)}")
        if heads and model.geometry is None:
            raise UsageError(f"--heads {given.heads} needs geometry heads, which {model.origin} does not have")
    return OutputOptions(
        heads=heads,
        features=parse_features(given.features or "", model.backbone.num_layers),
        features_format=given.features_format,
        features_dtype=getattr(torch, DTYPE_NAMES[given.features_dtype]),
        fit_frames=given.fit_frames,
        depth_range=_depth_range(given.depth_range),
        point_stride=given.point_stride,
        point_confidence=given.point_confidence,
        max_points=given.max_points,
    )


def _depth_range(text: str) -> "DepthRange":
    named: dict[str, DepthRange] = {"first": "first", "running": "running"}
    if text in named:
        return named[text]
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"depth range is first, running or LOW,HIGH; got {text!r}") from None
    return low, high


def _window(text: str | None, own: int | None) -> int | None:
    """Remembered frames; None for all."""
    if text is None:
        return _USUAL_WINDOW if own is None else own
    if text != "all" and not re.fullmatch("[0-9]+", text):
        raise UsageError(f"window is a number of frames or all, got {text!r}")
    return None if text == "all" else int(text)


def _stream_options(given: argparse.Namespace, model: "StreamModel", outputs: "OutputOptions") -> "StreamOptions":
    import torch

    from omnistream.streaming.features import layers_of
    from omnistream.streaming.frame_size import FrameSize
    from omnistream.streaming.runner import StreamOptions

    return StreamOptions(
        window=_window(given.window, model.backbone.window),
        sink=model.backbone.sink if given.sink is None else given.sink,
        cache_dtype=None if given.cache_dtype is None else getattr(torch, DTYPE_NAMES[given.cache_dtype]),
        size=FrameSize.parse(given.size),
        max_frames=given.max_frames,
        chunk=given.chunk,
        layers=layers_of(list(outputs.features)),
    )


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("stream", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("source", metavar="SOURCE", help="video file, folder, pattern, camera number or address")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier run in the folder")
    _add_model_options(parser.add_argument_group("model"))
    _add_stream_options(parser.add_argument_group("stream"))
    _add_output_options(parser.add_argument_group("output"))
    return parser


def _add_model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="checkpoint of `omnistream fit` (.ckpt), folder of save_pretrained, file of weights, or hub id",
    )
    group.add_argument("--config", metavar="YAML", help="config.yaml of the run, if it does not lie near the .ckpt")
    group.add_argument(
        "--variant", help="size, for --random and for weights that do not tell (see `omnistream models`)"
    )
    group.add_argument("--random", action="store_true", help="random weights, to try a source or measure speed")
    group.add_argument("--device", help="e.g. cpu or cuda:1; default cuda if there is one")
    group.add_argument("--dtype", choices=FLOAT_NAMES, default="fp32", help="of the backbone; heads run in fp32")


def _add_stream_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--window", metavar="W", help="frames remembered, or all: memory then grows (the checkpoint's own, else 64)"
    )
    group.add_argument("--sink", type=int, metavar="N", help="first frames never forgotten (the checkpoint's own)")
    stored = "of the memory of past frames; default --dtype"
    group.add_argument("--cache-dtype", choices=tuple(DTYPE_NAMES), help=stored)
    group.add_argument(
        "--size",
        default="224",
        help="224 or short:224 (shorter side), long:512, or 240x320 (height x width); sides are rounded to patches",
    )
    group.add_argument("--fps", type=float, help="thin out to this rate by time stamps")
    group.add_argument("--frame-rate", type=float, default=30.0, help="rate of a folder of pictures (30)")
    group.add_argument("--max-frames", type=int, metavar="N", help="stop after N frames")
    group.add_argument("--chunk", type=int, default=1, metavar="N", help="frames per step: faster, but later (1)")
    group.add_argument("--timeout", type=float, default=10.0, help="seconds to wait for an address (10)")


def _add_output_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--heads", metavar="LIST", help="some of depth,pose,points, or none; default all there are")
    group.add_argument("--cameras", choices=("head", "rays"), default="head", help="what poses are read from (head)")
    group.add_argument("--features", metavar="LIST", help="store features: last, cls, numbers of blocks; e.g. cls,5,11")
    group.add_argument("--features-format", choices=("npz", "safetensors"), default="npz", help="one file, or shards")
    group.add_argument("--features-dtype", choices=("fp32", "fp16"), default="fp32", help="stored type (fp32)")
    group.add_argument("--fit-frames", type=int, default=16, metavar="N", help="first frames that fix the colours (16)")
    group.add_argument("--depth-range", default="first", help="colour scale of depth: first, running or LOW,HIGH")
    group.add_argument("--point-stride", type=int, default=4, metavar="N", help="a point every N pixels (4)")
    group.add_argument(
        "--point-confidence", type=float, default=0.5, metavar="Q", help="leave out this share of unsure points (0.5)"
    )
    group.add_argument("--max-points", type=int, default=2_000_000, metavar="N", help="limit of the cloud (2000000)")
