"""The options of `omnistream stream`, and the refusal of those that would have no effect."""

import argparse
from typing import Any

from omnistream.commands.arguments import DTYPE_NAMES, FLOAT_NAMES, CommandParser, above_zero, frame_rate
from omnistream.errors import UsageError

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
  omnistream stream clip.mp4 --checkpoint runs/quickstart/version_0/checkpoints/last.ckpt --out seen --size 64
  omnistream stream rtsp://camera/live --checkpoint my_backbone --out seen --window 256 --fps 5 --features cls
  omnistream stream 0 --random --variant vit_tiny --out tried --max-frames 100
"""
_OF_HEADS: dict[str, tuple[Any, str]] = {
    "depth_range": ("first", "depth"),
    "cameras": ("head", "pose"),
    "point_stride": (4, "points"),
    "point_confidence": (0.5, "points"),
    "max_points": (2_000_000, "points"),
}
"""What an option is unless it is given, and the head whose output it is about."""
_OF_FEATURES = {"features_format": "npz", "features_dtype": "fp32"}


def fill_in(given: argparse.Namespace, heads: tuple[str, ...]) -> None:
    """Refuse options about outputs that are not written, and give the others their usual values.

    Args:
        given: What was parsed; changed.
        heads: Outputs of the geometry heads that are written.

    Raises:
        UsageError: If an option would have no effect.
    """
    for name, (usual, head) in _OF_HEADS.items():
        if getattr(given, name) is None:
            setattr(given, name, usual)
        elif head not in heads:
            raise UsageError(
                f"{_option(name)} is about the output {head}, which is not written: it is not in --heads, or there are "
                "no geometry heads"
            )
    for name, usual in _OF_FEATURES.items():
        if getattr(given, name) is None:
            setattr(given, name, usual)
        elif not given.features:
            raise UsageError(f"{_option(name)} is about stored features: say with --features which")


def check_together(given: argparse.Namespace) -> None:
    """Refuse options that exclude each other.

    Raises:
        UsageError: If two do.
    """
    if given.random and given.checkpoint:
        raise UsageError("give either --checkpoint or --random, not both")
    if given.random and given.config:
        raise UsageError("--config describes a checkpoint; leave it out with --random")
    if given.random and not given.variant:
        raise UsageError("--random needs --variant, e.g. vit_tiny; `omnistream models` lists the variants")
    if not given.random and not given.checkpoint:
        raise UsageError("no weights: give --checkpoint, or --random --variant vit_tiny to try without any")
    if given.compile and given.cache_dtype == "int8":
        raise UsageError("8-bit caches are not compiled: leave out --cache-dtype int8 or --compile")
    if given.window == "all" and given.sink is not None:
        raise UsageError("with --window all nothing is forgotten; leave --sink out")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def make_parser() -> CommandParser:
    """The parser; options that belong to some output alone are None unless they are given."""
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
        "--window",
        metavar="W",
        help="frames remembered, or all: memory then grows (the checkpoint's own, else 64); what is more than 16 "
        "frames back is further away than anything in a training clip of 16",
    )
    group.add_argument("--sink", type=int, metavar="N", help="first frames never forgotten (the checkpoint's own)")
    stored = "of the memory of past frames; default --dtype"
    group.add_argument("--cache-dtype", choices=tuple(DTYPE_NAMES), help=stored)
    group.add_argument(
        "--size",
        default="224",
        help="224 or short:224 (shorter side) or long:512, rounded to patches; or 240x320 (height x width), multiples "
        "of the patch size",
    )
    group.add_argument("--fps", type=frame_rate, help="thin out to this rate by time stamps")
    group.add_argument("--frame-rate", type=frame_rate, help="rate of a folder of pictures (30)")
    group.add_argument("--max-frames", type=int, metavar="N", help="stop after N frames")
    group.add_argument("--chunk", type=int, default=1, metavar="N", help="frames per step: faster, but later (1)")
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile the step: the first frames then take minutes; meant for long streams on a GPU",
    )
    group.add_argument("--timeout", type=above_zero, help="seconds to wait for an address (10)")


def _add_output_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--heads", metavar="LIST", help="some of depth,pose,points, or none; default all there are")
    group.add_argument("--cameras", choices=("head", "rays"), help="what poses are read from (head)")
    group.add_argument("--features", metavar="LIST", help="store features: last, cls, numbers of blocks; e.g. cls,5,11")
    group.add_argument("--features-format", choices=("npz", "safetensors"), help="one file (npz), or shards")
    group.add_argument("--features-dtype", choices=("fp32", "fp16"), help="stored type (fp32)")
    group.add_argument("--fit-frames", type=int, default=16, metavar="N", help="first frames that fix the colours (16)")
    group.add_argument("--depth-range", help="colour scale of depth: first, running or LOW,HIGH (first)")
    group.add_argument("--point-stride", type=int, metavar="N", help="a point every N pixels (4)")
    group.add_argument(
        "--point-confidence", type=float, metavar="Q", help="leave out this share of unsure points (0.5)"
    )
    group.add_argument("--max-points", type=int, metavar="N", help="limit of the cloud (2000000)")
