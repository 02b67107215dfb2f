"""Error against the length of a stream: `python benchmarks/stream_length.py CHECKPOINT [--write]`.

A trained model streams long videos of the procedural world, which it has never seen, frame by frame: with its whole
past in the cache, with sliding windows, and with an 8-bit cache. For the first 16, 32, 64, 110 and 220 frames of every
video:

- Abs Rel of depth after one scale for these frames (paper Table 3), beside the best constant depth for these frames;
- ATE of the camera after a similarity for these frames (paper Table 4), beside a camera that stands still;
- drift: how far the features of a frame are from those of the same frame with the whole past in float32.

The paper trains on 16 frames and evaluates up to 110 (its Sec. 4.3). `--write` records the result in
`benchmarks/results/stream_length.md`, with a plot beside it. The default takes about ten minutes on two cores.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from common import header, markdown_table, write

import omnistream
from omnistream.backbone import SessionOptions
from omnistream.data import FrameChoice, GeometryVideos
from omnistream.data.world import WorldVideos
from omnistream.evaluation.geometry_baselines import baseline_poses
from omnistream.metrics import constant_abs_rel, sequence_depth_errors, trajectory_errors
from omnistream.plots.curves import PALETTE
from omnistream.plots.png import encode_png
from omnistream.plots.sheet import MUTED_COLOR, Sheet
from omnistream.tasks.geometry import GeometryStream

LENGTHS = (16, 32, 64, 110, 220)
REFERENCE = "whole past, float32"
CONSTANT, STILL = "best constant depth", "camera that stands still"
METRICS = {"depth": "Abs Rel", "pose": "ATE [m]"}
HARDLY = 0.05
"""Relative change of features below which the past hardly counts."""
MEASURES = {"cosine": "cosine", "change": "relative change"}


@dataclass
class Streamed:
    """What one session found for one video, frame by frame."""

    depth: torch.Tensor
    """[T, H, W]."""
    poses: torch.Tensor
    """[T, 4, 4]."""
    features: torch.Tensor
    """Patches after the final norm, [T, h*w*D]."""


def sessions(windows):
    """The options of every session by name, the reference first."""
    kinds = {REFERENCE: SessionOptions(window=None, cache_dtype="float32")}
    kinds["whole past, int8"] = SessionOptions(window=None, cache_dtype="int8")
    for window in windows:
        for dtype in ("float32", "int8"):
            kinds[f"window {window}, {dtype}"] = SessionOptions(window=window, sink=1, cache_dtype=dtype)
    return kinds


@torch.no_grad()
def stream(model, options, images):
    """Run one session over a video, one frame per step.

    Args:
        model: From `omnistream.load`, with geometry heads.
        options: Of the session.
        images: uint8 [T, 3, H, W].
    """
    session = model.backbone.stream(options, heads={"geometry": GeometryStream(model.geometry)})
    device, found = model.backbone.cls_token.device, []
    for image in images:
        output = session.step(model.normalize(image[None, None].to(device)))
        geometry = output.heads["geometry"]
        found.append(
            (geometry.depth[0, 0].cpu(), geometry.camera_to_world[0, 0].cpu(), output.last[0, 0].flatten().cpu())
        )
    return Streamed(*(torch.stack(parts).float() for parts in zip(*found, strict=True)))


def prefix_errors(depth, poses, truth, true_poses, lengths):
    """Abs Rel and ATE of the first frames, aligned for those frames alone.

    Args:
        depth: Predicted, [T, h, w].
        poses: Predicted, [T, 4, 4].
        truth: True depth, 0 where there is none, [T, H, W].
        true_poses: [T, 4, 4].
        lengths: Numbers of first frames.

    Returns:
        `depth` and `pose`: a value per length; NaN where a prediction is not finite or the camera does not move.
    """
    errors = {"depth": [], "pose": []}
    for length in lengths:
        errors["depth"].append(float(sequence_depth_errors(depth[:length], truth[:length]).errors.abs_rel))
        path = trajectory_errors(poses[:length].double(), true_poses[:length].double())
        errors["pose"].append(math.nan if path is None else float(path.ate))
    return errors


def drift(features, reference, lengths):
    """Mean cosine, and relative change |a - b| / |b|, of the frames from each length to the next.

    Args:
        features: [T, D].
        reference: Of the same frames, [T, D].
        lengths: Ends of the parts of the video.
    """
    cosine = F.cosine_similarity(features.double(), reference.double(), dim=-1)
    change = (features.double() - reference.double()).norm(dim=-1) / reference.double().norm(dim=-1)
    parts = list(zip([0, *lengths], lengths, strict=False))
    return {
        "cosine": [float(cosine[start:stop].mean()) for start, stop in parts],
        "change": [float(change[start:stop].mean()) for start, stop in parts],
    }


def measure(model, videos, lengths, windows):
    """Errors and drift of every session and baseline.

    Returns:
        `errors[metric][kind]` and `drifts[measure][kind]`, [videos, lengths] each.
    """
    errors = {metric: {} for metric in METRICS}
    drifts = {measure: {} for measure in MEASURES}

    def keep(target, kind, found):
        for name, values in found.items():
            target[name].setdefault(kind, []).append(values)

    for index in range(len(videos)):
        frames = list(videos[index].frames())
        images = torch.stack([frame.image for frame in frames])
        truth = torch.stack([frame.depth.where(frame.valid, 0) for frame in frames])
        poses = torch.stack([frame.camera_to_world for frame in frames])
        reference = None
        for kind, options in sessions(windows).items():
            found = stream(model, options, images)
            keep(errors, kind, prefix_errors(found.depth, found.poses, truth, poses, lengths))
            if reference is None:
                reference = found.features
            else:
                keep(drifts, kind, drift(found.features, reference, lengths))
        constant = [float(constant_abs_rel(truth[:length], truth[:length] > 0)) for length in lengths]
        still = prefix_errors(truth, baseline_poses(poses, "identity"), truth, poses, lengths)
        keep(errors, CONSTANT, {"depth": constant})
        keep(errors, STILL, {"pose": still["pose"]})
    return tuple(
        {name: {kind: torch.tensor(values) for kind, values in kinds.items()} for name, kinds in target.items()}
        for target in (errors, drifts)
    )


def mean_and_error(values):
    """Mean over videos and its standard error, NaN with fewer than two; [lengths] each."""
    values = values.double()
    spread = values.std(0) / math.sqrt(len(values)) if len(values) > 1 else torch.full_like(values[0], torch.nan)
    return values.mean(0), spread


def error_table(kinds, lengths):
    """Lines of a table: a row per session or baseline, a column per length."""
    rows = []
    for kind, values in kinds.items():
        pairs = zip(*mean_and_error(values), strict=True)
        rows.append([kind, *(f"{mean:.3f}" + ("" if error.isnan() else f" ± {error:.3f}") for mean, error in pairs)])
    return markdown_table(["", *(f"first {length}" for length in lengths)], rows)


def drift_table(drifts, lengths):
    """Lines of a table of cosine and relative change."""
    columns = [f"frames {start + 1}-{stop}" for start, stop in zip([0, *lengths], lengths, strict=False)]
    rows = []
    for kind, cosine in drifts["cosine"].items():
        change = drifts["change"][kind].mean(0)
        pairs = zip(cosine.mean(0), change, strict=True)
        rows.append([kind, *(f"{cos:.4f}, {100 * relative:.2f} %" for cos, relative in pairs)])
    return markdown_table(["cosine, relative change", *columns], rows)


def findings(errors, drifts, lengths):
    """What came out, in sentences; differences between sessions are over the same videos."""
    shortest, longest = lengths[0], lengths[-1]
    lines = []
    for metric, title in METRICS.items():
        kinds, baseline = errors[metric], CONSTANT if metric == "depth" else STILL
        name, unit = title.split(" [")[0], " m" if metric == "pose" else ""
        whole = kinds[REFERENCE].double()
        short, long = float(whole[:, 0].mean()), float(whole[:, -1].mean())
        base_short, base_long = (float(kinds[baseline].double()[:, i].mean()) for i in (0, -1))
        lines.append(
            f"- {name} with the whole past goes from {short:.3f}{unit} at {shortest} frames to {long:.3f}{unit} at "
            f"{longest} ({long / short:.2f} times); the {baseline} goes from {base_short:.3f} to {base_long:.3f} "
            f"({base_long / base_short:.2f} times)."
        )
        mean, error = mean_and_error((whole - kinds[baseline].double())[:, -1:])
        lines.append(f"  - At {longest} frames: {_difference(float(mean), float(error), unit, f'the {baseline}')}.")
        for kind, values in kinds.items():
            if kind not in (REFERENCE, CONSTANT, STILL):
                mean, error = mean_and_error((values.double() - whole)[:, -1:])
                text = _difference(float(mean), float(error), unit, "the whole past")
                lines.append(f"  - {kind}: {text} at {longest} frames.")
    for kind, cosine in drifts["cosine"].items():
        first, last = float(cosine[:, 0].mean()), float(cosine[:, -1].mean())
        lines.append(f"- Features, {kind}: cosine {first:.4f} in the first {shortest} frames, {last:.4f} in the last.")
    largest = max(float(values.mean(0).max()) for values in drifts["change"].values())
    if largest < HARDLY:
        lines.append(
            f"- No session changes the features by more than {100 * largest:.1f} % on average: this model hardly uses "
            f"frames that are farther back, so this says little about windows for one that does."
        )
    return lines


def _difference(mean, error, unit, other):
    """A paired difference in words: it counts if it exceeds two standard errors."""
    text = f"{mean:+.4f}{unit}" + ("" if math.isnan(error) else f" ± {error:.4f}")
    if math.isnan(error):
        return f"{text} against {other} (one video, so nothing can be said)"
    kind = "no clear difference from" if abs(mean) <= 2 * error else "worse than" if mean > 0 else "better than"
    return f"{text}, {kind} {other}"


def draw(errors, drifts, lengths):
    """Errors and drift over the length of the stream, uint8 [H, W, 3]."""
    width, height, gap = 380, 300, 74
    panels = [("depth: Abs Rel", errors["depth"]), ("camera: ATE [m]", errors["pose"])]
    panels.append(("features: relative change", drifts["change"]))
    kinds = list(dict.fromkeys(kind for _, values in panels for kind in values))
    sheet = Sheet(3 * (width + gap) + 20, height + 116 + 22 * math.ceil(len(kinds) / 4))
    sheet.write("Error against the length of the stream", 8, 8, size=11, bold=True)
    sheet.write("mean over videos with its standard error; dashed: baselines", 8, 29, color=MUTED_COLOR)
    handles = {}
    for index, (title, values) in enumerate(panels):
        axes = sheet.axes(x=gap - 14 + index * (width + gap), y=72, width=width, height=height)
        for kind, found in values.items():
            mean, error = mean_and_error(found)
            style = "--" if kind in (CONSTANT, STILL) else "-"
            color = PALETTE[kinds.index(kind) % len(PALETTE)]
            handles[kind] = axes.errorbar(
                lengths,
                mean,
                error.nan_to_num(0),
                color=color,
                linestyle=style,
                marker="o",
                markersize=4,
                capsize=2,
                linewidth=max(1.0, 4.0 - 0.8 * kinds.index(kind)),  # lines that coincide are seen one inside the other
            )
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [str(length) for length in lengths])
        axes.minorticks_off()
        axes.set_xlabel("frames", fontsize=9, color=MUTED_COLOR, labelpad=1)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=8.5, colors=MUTED_COLOR)
        axes.grid(visible=True, linewidth=0.4, alpha=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    sheet.figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=4, fontsize=9, frameon=False)
    return sheet.pixels()


def report(args, errors, drifts, plot):
    """Lines of the recorded result."""
    lengths = args.lengths
    lines = header("Error against the length of a stream", args.device, modules=(omnistream,))
    lines += [
        f"{args.videos} videos of {lengths[-1]} frames of {args.size}x{args.size} pixels of the procedural world, of "
        f"scenes that no training has seen; camera and objects move at about the speed of the training clips, and turn "
        f"back at the ends of their paths. Frames are given one by one. Values are means over videos, ± their standard "
        f"errors. A longer part of a video is harder in itself: compare with the baselines, and sessions with each "
        f"other. Sessions have no key frames.",
        "",
        "## What came out",
        "",
        *findings(errors, drifts, lengths),
        "",
        f"![Error against length]({plot})",
        "",
    ]
    for metric, title in METRICS.items():
        aligned = "one scale" if metric == "depth" else "one similarity"
        lines += [f"## {title}, {aligned} for the first frames", "", *error_table(errors[metric], lengths), ""]
    lines += [f"## Drift of the features from {REFERENCE}", "", *drift_table(drifts, lengths)]
    return lines


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="run folder or checkpoint with geometry heads")
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--windows", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--size", type=int, default=64, help="image side in pixels")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--write", action="store_true", help="record the results")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder for --write")
    args = parser.parse_args(arguments)
    args.lengths = sorted(set(args.lengths))
    if args.lengths[0] < 3:
        parser.error("--lengths: a camera path needs at least 3 frames")
    model = omnistream.load(args.checkpoint, heads=("geometry",)).to(args.device)
    reader = WorldVideos(num_videos=args.videos, num_frames=args.lengths[-1], size=(args.size, args.size))
    videos = GeometryVideos(reader, frames=FrameChoice(), images=None)
    errors, drifts = measure(model, videos, args.lengths, args.windows)
    path, plot = (args.out / f"stream_length.{kind}" if args.write else None for kind in ("md", "png"))
    write(report(args, errors, drifts, "stream_length.png"), path)
    if plot is not None:
        image = draw(errors, drifts, args.lengths)
        plot.write_bytes(encode_png(image, title="Error against the length of a stream"))


if __name__ == "__main__":
    main()
