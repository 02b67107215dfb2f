"""`omnistream stream`: a video, a camera or a folder of frames through the backbone, and what it sees to files."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omnistream.commands.arguments import DTYPE_NAMES, place, usable_device
from omnistream.commands.stream_arguments import check_together, fill_in, make_parser
from omnistream.errors import UsageError

if TYPE_CHECKING:
    import torch

    from omnistream.streaming.models import StreamModel
    from omnistream.streaming.outputs import OutputOptions
    from omnistream.streaming.pictures import DepthRange
    from omnistream.streaming.runner import StreamOptions, StreamResult
    from omnistream.streaming.writer import Writer

_USUAL_WINDOW = 64


def run(arguments: list[str]) -> None:
    """Stream, and say in one line what was written."""
    given = make_parser().parse_args(arguments)
    check_together(given)
    folder = Path(given.out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; --out is a folder")
    if folder.is_dir() and any(folder.iterdir()) and not given.overwrite:
        raise UsageError(f"{folder} is not empty; choose another folder or add --overwrite")
    from omnistream.streaming.outputs import make_writers, write_summary
    from omnistream.streaming.problems import Problems
    from omnistream.streaming.reader import interruptible
    from omnistream.streaming.runner import run_stream
    from omnistream.streaming.sources import open_source
    from omnistream.tasks.geometry import GeometryStream

    model = _model(given)
    outputs = _output_options(given, model)
    options = _stream_options(given, model, outputs)
    device = _place(model, given)
    heads = {"geometry": GeometryStream(model.geometry, given.cameras)} if model.geometry and outputs.heads else None
    problems = Problems(_tell)
    source = interruptible(
        lambda: open_source(given.source, problems, fps=given.fps, frame_rate=given.frame_rate, timeout=given.timeout)
    )
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
        return random_model(given.variant)
    return load_model(given.checkpoint, variant=given.variant, config=given.config)


def _place(model: "StreamModel", given: argparse.Namespace) -> "torch.device":
    """Move the model; heads stay in float32."""
    import torch

    device = usable_device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    place(model.backbone, device, given.dtype)
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
    fill_in(given, tuple(heads))
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
        compiled=given.compile,
        layers=layers_of(list(outputs.features)),
    )
