"""A video of predicted depth beside the truth, on one colour scale."""

from pathlib import Path

import numpy as np
from einops import repeat

from omnistream.plots.depth import color_depth
from omnistream.plots.mp4 import Mp4File
from omnistream.plots.sheet import to_frames
from omnistream.plots.video_frames import MIN_SHOWN_SIDE, color_bar
from omnistream.tasks.plots import DepthPlot


def write_depth_video(plot: DepthPlot, path: Path, fps: float = 10.0) -> None:
    """Write frame, truth (where there is any) and prediction side by side, with a colour bar, as MP4.

    Truth and prediction of all frames share the scale of `color_depth`.

    Args:
        plot: One video.
        path: File to write.
        fps: Frames per second.

    Raises:
        RuntimeError: If FFmpeg has no encoder.
    """
    colors = color_depth(plot)
    columns = [to_frames(plot.images), colors.truth, colors.prediction]
    if not plot.valid.any():
        del columns[1]
    height, width = columns[0].shape[1:3]
    factor = -(-MIN_SHOWN_SIDE // min(height, width))
    bar = color_bar(colors.depth_scale, factor * height, "depth", plot.unit)
    video = Mp4File(path, fps)
    try:
        for tiles in zip(*columns, strict=True):
            row = np.concatenate(tiles, axis=1)
            enlarged = repeat(row, "h w c -> (h i) (w j) c", i=factor, j=factor)
            video.add(np.concatenate([enlarged, bar], axis=1))
    finally:
        video.close()
