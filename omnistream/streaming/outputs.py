"""Which files a stream leaves, and the summary beside them."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from omnistream.streaming.features import FeatureFiles, FeaturesFormat
from omnistream.streaming.geometry import PointCloud, PoseFiles
from omnistream.streaming.pictures import DepthRange, DepthVideo, FeaturesVideo
from omnistream.streaming.problems import Problems
from omnistream.streaming.runner import MIB, StreamResult
from omnistream.streaming.writer import Writer
from omnistream.version import __version__

HEADS = ("depth", "pose", "points")


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is written."""

    heads: Sequence[str] = ()
    """Some of `HEADS`."""
    features: Sequence[str] = ()
    """See `features.parse_features`."""
    features_format: FeaturesFormat = "npz"
    """One file, or a folder of shards."""
    features_dtype: torch.dtype = torch.float32
    """Stored type."""
    fit_frames: int = 16
    """First frames that determine the colours."""
    depth_range: DepthRange = "first"
    """See `pictures.DepthVideo`."""
    point_stride: int = 4
    """See `geometry.PointCloud`."""
    point_confidence: float = 0.5
    """See `geometry.PointCloud`."""
    max_points: int = 2_000_000
    """See `geometry.PointCloud`."""


def make_writers(folder: Path, fps: float, options: OutputOptions) -> list[Writer]:
    """Writers of everything asked for.

    Args:
        folder: Where the files go; it need not exist before the first step.
        fps: Frame rate of the videos.
        options: What is written.

    Raises:
        ValueError: If an option is out of range.
    """
    writers: list[Writer] = [FeaturesVideo(folder / "features_pca.mp4", fps, options.fit_frames)]
    if "depth" in options.heads:
        writers.append(DepthVideo(folder / "depth.mp4", fps, options.depth_range, options.fit_frames))
    if "pose" in options.heads:
        writers.append(PoseFiles(folder))
    if "points" in options.heads:
        writers.append(
            PointCloud(
                folder / "points.ply",
                stride=options.point_stride,
                confidence=options.point_confidence,
                max_points=options.max_points,
            )
        )
    if options.features:
        names = list(options.features)
        writers.append(FeatureFiles(folder, names, options.features_format, options.features_dtype))
    return writers


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
    """Write `summary.json`, whole or not at all.

    Args:
        folder: Where.
        result: What the runner says.
        writers: After they were closed.
        problems: Counted along the way.
        model: Where the weights come from.
        device: Where it ran.
        options: What the user chose.

    Raises:
        OSError: If there is no room for it.
    """
    height, width = result.size
    cuda = None if result.peak_cuda is None else round(result.peak_cuda / MIB, 1)
    content = {
        "frames": result.frames,
        "skipped": problems.skipped,
        "problems": problems.lines,
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
