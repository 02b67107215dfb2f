"""The output files of a stream, and their summary."""

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from omnistream.streaming.depth import DepthArrays, DepthFormat, DepthImages
from omnistream.streaming.features import FeatureFiles, FeaturesFormat
from omnistream.streaming.points import PointCloud
from omnistream.streaming.poses import PoseFiles
from omnistream.streaming.problems import Problems
from omnistream.streaming.runner import MIB, StreamResult
from omnistream.streaming.videos import DepthRange, DepthVideo, FeaturesVideo
from omnistream.streaming.writer import Writer
from omnistream.tasks.geometry.streaming import CameraSource
from omnistream.version import __version__

WRITTEN = (
    "features_pca.mp4",
    "depth.mp4",
    "depth.npz",
    "depth/[0-9]*.png",
    "poses.txt",
    "intrinsics.txt",
    "points.ply",
    "features.npz",
    "features/features-*.safetensors",
    "summary.json",
)
"""All files that a run may write to its folder."""

Head = Literal["depth", "pose", "points"]
HEADS: tuple[Head, ...] = get_args(Head)


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is written.

    Raises:
        ValueError: If a value is out of range.
    """

    heads: tuple[Head, ...] | None = None
    """Outputs of the geometry heads to write: some of depth,pose,points, or none. Default: all that the model has."""
    cameras: CameraSource = "head"
    """What poses and intrinsics are computed from: the camera head, or the ray map."""
    features: tuple[str, ...] = ()
    """Features to store: last, cls, and numbers of blocks, e.g. cls,5,11."""
    features_format: FeaturesFormat = "npz"
    """One file (npz), or a folder of shards (safetensors)."""
    features_dtype: Literal["float32", "float16"] = "float32"
    """Type of stored features."""
    depth_format: DepthFormat | None = None
    """Also store depth as numbers: 16-bit images (png), or float32 arrays with the confidence (npz)."""
    depth_scale: float | None = None
    """Value per unit of depth in the images. Default: four times the largest depth of the first frame fits."""
    depth_range: DepthRange = "first"
    """Range of the colours in depth.mp4: that of the first frames, one that adapts slowly (running), or two depths."""
    fit_frames: int = 16
    """Number of frames at the start to which the colours of both videos are fitted."""
    point_stride: int = 4
    """Distance in pixels between the points of a frame."""
    point_confidence: float = 0.5
    """Fraction of each frame's points that is left out, the least confident ones."""
    max_points: int = 2_000_000
    """Maximum number of points in the cloud."""

    def __post_init__(self) -> None:
        for name in ("fit_frames", "point_stride", "max_points"):
            if (number := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if not 0 <= self.point_confidence < 1:
            raise ValueError(f"point_confidence must be at least 0 and below 1, got {self.point_confidence}")
        if self.depth_scale is not None and not 0 < self.depth_scale < math.inf:
            raise ValueError(f"depth_scale must be a positive number, got {self.depth_scale}")
        if isinstance(self.depth_range, tuple) and not self.depth_range[0] < self.depth_range[1]:
            raise ValueError(f"depth_range must be increasing, got {self.depth_range[0]},{self.depth_range[1]}")


def make_writers(folder: Path, fps: float, options: OutputOptions) -> list[Writer]:
    """Writers for the requested outputs. They open no file before the first step.

    Args:
        folder: Output folder; it need not exist yet.
        fps: Frame rate of the videos.
        options: What to write; `heads` must be outputs that the model has.
    """
    heads = options.heads or ()
    writers: list[Writer] = [FeaturesVideo(folder / "features_pca.mp4", fps, options.fit_frames)]
    if "depth" in heads:
        writers.append(DepthVideo(folder / "depth.mp4", fps, options.depth_range, options.fit_frames))
        if options.depth_format == "png":
            writers.append(DepthImages(folder, options.depth_scale))
        elif options.depth_format == "npz":
            writers.append(DepthArrays(folder))
    if "pose" in heads:
        writers.append(PoseFiles(folder))
    if "points" in heads:
        writers.append(
            PointCloud(
                folder / "points.ply",
                stride=options.point_stride,
                confidence=options.point_confidence,
                max_points=options.max_points,
            )
        )
    if options.features:
        dtype = getattr(torch, options.features_dtype)
        writers.append(FeatureFiles(folder, options.features, options.features_format, dtype))
    return writers


def clear(folder: Path) -> None:
    """Create the folder, or remove the files of an earlier run from it; other files are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in WRITTEN:
        for file in folder.glob(pattern):
            file.unlink()


def write_summary(
    folder: Path,
    result: StreamResult,
    writers: Sequence[Writer],
    problems: Problems,
    *,
    model: str,
    device: torch.device,
    options: dict[str, object],
) -> None:
    """Write `summary.json` atomically.

    Args:
        folder: Output folder.
        result: Result of the runner.
        writers: The writers, closed.
        problems: Problems of the source.
        model: Where the weights come from.
        device: Device of the model.
        options: All options.

    Raises:
        OSError: If the disk is full.
    """
    height, width = result.size
    cuda = None if result.peak_cuda is None else round(result.peak_cuda / MIB, 1)
    content = {
        "frames": result.frames,
        "skipped": problems.skipped,
        "problems": problems.lines,
        **({} if problems.truncated is None else {"truncated": problems.truncated}),
        "ended": result.ended,
        **({} if result.error is None else {"error": result.error}),
        "seconds": round(result.seconds, 3),
        "frames_per_second": round(result.frames / max(result.seconds, 1e-9), 2),
        "peak_memory_mib": {"resident": round(result.peak_rss / MIB, 1), "cuda": cuda},
        "frame_size": {"height": height, "width": width},
        "source_size": {"height": result.source_size[0], "width": result.source_size[1]},
        "model": model,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "versions": {"omnistream": __version__, "torch": torch.__version__},
        "files": {name: facts for writer in writers for name, facts in writer.summary().items()},
        "options": options,
    }
    draft = folder / "summary.tmp"
    try:
        draft.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
        draft.replace(folder / "summary.json")
    except OSError:
        draft.unlink(missing_ok=True)
        raise
