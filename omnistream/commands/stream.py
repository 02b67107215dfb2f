"""`omnistream stream`: a video, a camera or a folder of images through the backbone, and results to files."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from omnistream.commands.arguments import (
    SHORT_DTYPES,
    CommandParser,
    FloatName,
    Parsed,
    place,
    refuse_occupied,
    usable_device,
)
from omnistream.errors import UsageError

if TYPE_CHECKING:
    import torch

    from omnistream.backbone.sessions.options import SessionOptions
    from omnistream.streaming.outputs import OutputOptions
    from omnistream.streaming.runner import StreamResult
    from omnistream.streaming.writer import Writer
    from omnistream.trained import TrainedModel

_DESCRIPTION = """\
Send a stream through the backbone frame by frame and write features, depth and cameras to a folder. Results go to disk
as they come, and memory stays the same however long the stream is: the window is that of the checkpoint, else 64
frames, unless --window all is given.

SOURCE is a video file, a folder of images (or a pattern: 'folder/*.color.png'), the number of a camera, or an address
(rtsp://, http://, ...). Broken frames are reported, counted and left out. Ctrl-C ends the stream and completes the
files.
"""
_EXAMPLES = """\
written to the folder:
  features_pca.mp4   each frame beside its features, three principal components as colours
  depth.mp4, poses.txt, intrinsics.txt, points.ply   from the geometry heads of the checkpoint (--heads)
  depth/ or depth.npz         depth as numbers, with --depth-format
  features.npz or features/   features, with --features
  summary.json       frames, problems, speed, memory, options

examples:
  omnistream stream clip.mp4 --checkpoint runs/quickstart/version_0 --out seen --size 64
  omnistream stream rtsp://camera/live --checkpoint my_backbone --out seen --window 256 --fps 5 --features cls
  omnistream stream 0 --random --variant vit_tiny --out tried --max-frames 100
"""
_USUAL_WINDOW = 64
_NOT_OPTIONS = ("session", "layers", "camera_token", "max_frames")
"""Fields of the session that follow from what is written, and one that `--max-frames` does not mean."""
_OF_HEADS = {
    "depth_range": ("depth",),
    "depth_format": ("depth",),
    "depth_scale": ("depth",),
    "cameras": ("pose", "points"),
    "point_stride": ("points",),
    "point_confidence": ("points",),
    "max_points": ("points",),
}
"""Options that have an effect only if one of these outputs is written."""


@dataclass(frozen=True)
class Input:
    """The stream."""

    source: str | Path
    """Video file, folder, pattern, camera number or address."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Where the results go."""

    out: Path
    """Folder to write."""
    overwrite: bool = False
    """Replace the files of an earlier run in the folder."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model.

    Raises:
        UsageError: If two options contradict each other, or neither weights nor `random` is given.
    """

    checkpoint: str | Path | None = None
    """Run folder or checkpoint of `omnistream fit`, folder of save_pretrained, file of weights, or hub id."""
    config: Path | None = None
    """The config.yaml of the run, if it is not near the checkpoint."""
    variant: str | None = None
    """Size, for --random and for weights that do not say (see `omnistream models`)."""
    random: bool = False
    """Random weights, to try a source or measure speed."""
    device: str | None = None
    """E.g. cpu or cuda:1. Default: cuda if available."""
    dtype: FloatName = "float32"
    """Of the backbone; heads run in float32."""

    def __post_init__(self) -> None:
        if self.random and self.checkpoint:
            raise UsageError("give either --checkpoint or --random, not both")
        if self.random and self.config:
            raise UsageError("--config describes a checkpoint; leave it out with --random")
        if self.random and not self.variant:
            raise UsageError("--random needs --variant, e.g. vit_tiny; `omnistream models` lists the variants")
        if not self.random and not self.checkpoint:
            raise UsageError("no weights: give --checkpoint, or --random --variant vit_tiny to try without any")


def run(arguments: list[str]) -> None:
    """Stream, and say in one line what was written."""
    from omnistream.streaming.frames import SourceOptions
    from omnistream.streaming.outputs import clear, make_writers, write_summary
    from omnistream.streaming.problems import Problems
    from omnistream.streaming.reader import interruptible
    from omnistream.streaming.runner import StreamOptions, run_stream
    from omnistream.streaming.sources import open_source
    from omnistream.tasks.geometry import GeometryStream

    given = _parser().parse(arguments)
    folder, read, options = given[Folder], given[SourceOptions], given[StreamOptions]
    refuse_occupied(folder.out, folder.overwrite, "--out")
    model = _load(given[ModelOptions])
    outputs = _resolve_outputs(given, model)
    device = _place(model, given[ModelOptions])
    options = replace(options, session=_resolve_session(given, model, outputs))
    heads = {"geometry": GeometryStream(model.geometry, outputs.cameras)} if model.geometry and outputs.heads else None
    problems = Problems(_print_line)
    source = interruptible(lambda: open_source(str(given[Input].source), problems, read))
    writers: list[Writer] = []

    def start() -> Sequence["Writer"]:
        clear(folder.out)
        writers.extend(make_writers(folder.out, source.fps, outputs))
        return writers

    def finish(result: "StreamResult") -> None:
        used: dict[str, object] = {"source": source.name}
        for part in (folder, given[ModelOptions], read, outputs, options, options.session):
            used |= {field.name: getattr(part, field.name) for field in fields(part) if field.name not in _NOT_OPTIONS}
        used["max_frames"] = options.max_frames
        write_summary(folder.out, result, writers, problems, model=model.origin, device=device, options=used)

    try:
        result = run_stream(model.backbone, source, start, options, problems, heads, finish=finish)
    finally:
        source.close()
    skipped = f", {problems.skipped} broken ones left out" if problems.skipped else ""
    rate = speed(result.frames, result.seconds)
    print(f"{result.frames} frames ({result.ended}{skipped}), {rate}; wrote {folder.out}")


def speed(frames: int, seconds: float) -> str:
    """Frames per second; two digits of a slow stream, such as a short one that is compiled."""
    rate = frames / max(seconds, 1e-9)
    return f"{rate:.1f} frames/s" if rate >= 1 else f"{rate:.2g} frames/s"


def _parser() -> CommandParser:
    from omnistream.backbone.sessions.options import SessionOptions
    from omnistream.streaming.frames import SourceOptions
    from omnistream.streaming.outputs import OutputOptions
    from omnistream.streaming.runner import StreamOptions

    parser = CommandParser("stream", _DESCRIPTION, _EXAMPLES)
    parser.add_options(Input, positional=True)
    parser.add_options(Folder)
    parser.add_options(ModelOptions, values={"dtype": SHORT_DTYPES})
    parser.add_options(SourceOptions)
    parser.add_options(StreamOptions, skip=("session",))
    parser.add_options(
        SessionOptions,
        skip=_NOT_OPTIONS,
        aliases={"compile": "compiled"},
        values={"window": {"all": "null"}, "cache_dtype": SHORT_DTYPES},
    )
    parser.add_options(OutputOptions, values={"heads": {"none": "[]"}, "features_dtype": SHORT_DTYPES})
    return parser


def _print_line(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(f"omnistream: {line}", file=sys.stderr)


def _load(given: ModelOptions) -> "TrainedModel":
    from omnistream.backbone import create_model
    from omnistream.trained import TrainedModel, load

    if given.random:
        return TrainedModel(create_model(str(given.variant)), origin=f"{given.variant} with random weights").eval()
    chosen = {} if given.variant is None else {"variant": given.variant}
    return load(str(given.checkpoint), heads=("geometry",), config=given.config, **chosen)


def _place(model: "TrainedModel", given: ModelOptions) -> "torch.device":
    """Move the model; heads stay in float32."""
    import torch

    device = usable_device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    place(model.backbone, device, given.dtype)
    if model.geometry is not None:
        model.geometry.to(device)
    return device


def _resolve_outputs(given: Parsed, model: "TrainedModel") -> "OutputOptions":
    """The outputs with the heads that the model has.

    Raises:
        UsageError: If an option asks for what the model does not have, or would have no effect.
    """
    from omnistream.streaming.features import check_features
    from omnistream.streaming.outputs import HEADS, OutputOptions

    outputs = given[OutputOptions]
    if outputs.heads and model.geometry is None:
        raise UsageError(f"--heads {','.join(outputs.heads)} needs geometry heads, which {model.origin} does not have")
    heads = (HEADS if model.geometry else ()) if outputs.heads is None else outputs.heads
    for name in sorted(given.given & _OF_HEADS.keys()):
        if not set(_OF_HEADS[name]) & set(heads):
            raise UsageError(
                f"--{name.replace('_', '-')} is for the output {' or '.join(_OF_HEADS[name])}, which is not written: "
                + ("it is not in --heads" if model.geometry else "this model has no geometry heads")
            )
    if not outputs.features and (wrong := sorted(given.given & {"features_format", "features_dtype"})):
        raise UsageError(f"--{wrong[0].replace('_', '-')} needs --features, which names the features to store")
    if outputs.depth_scale is not None and outputs.depth_format != "png":
        raise UsageError("--depth-scale is for --depth-format png")
    check_features(outputs.features, model.backbone.num_layers)
    return replace(outputs, heads=heads)


def _resolve_session(given: Parsed, model: "TrainedModel", outputs: "OutputOptions") -> "SessionOptions":
    """The options of the session: the checkpoint's own window, else 64 frames, and the blocks that are stored."""
    from omnistream.backbone.sessions.options import SessionOptions
    from omnistream.streaming.features import blocks_of

    session, backbone = given[SessionOptions], model.backbone
    if session.window is None and "sink" in given.given:
        raise UsageError("--window all forgets no frame, so --sink has no effect; leave one of them out")
    if "window" not in given.given and backbone.window is None:
        session = replace(session, window=_USUAL_WINDOW)
    return replace(session, layers=blocks_of(outputs.features)).resolve(backbone)
