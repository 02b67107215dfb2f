"""Plots, point clouds and videos of the worst and the best sequences of a reconstruction evaluation."""

import math
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from PIL import Image

from omnistream import distributed
from omnistream.plots.camera_paths import draw_paths
from omnistream.plots.depth import draw_depth
from omnistream.plots.depth_video import write_depth_video
from omnistream.plots.fused_points import write_points
from omnistream.plots.png import encode_png
from omnistream.plots.reconstruction import depth_plot, draw_errors, headline, mean_errors, path_plot
from omnistream.report.reconstructions import DrawnSequence, remove_sequences, sequence_plots, worst_and_best
from omnistream.tasks.reconstruction.outcome import ReconstructedVideo


class ReconstructionPlots(Callback):
    """Draws the worst and the best sequences of a test into the folder `reconstruction` of its log folder.

    Each sequence has a folder with `depth.png`, `path.png`, `errors.png`, `points.ply` and `depth.mp4`, as far as the
    evaluation predicts what they need, and `sequence.json` with its error. They are written as the test goes on, so a
    test that is stopped leaves them; a sequence that is no longer among the worst or best is removed.
    `omnistream report --html` shows the plots, the worst and the best first, and so does TensorBoard.

    A module's test step returns a `ReconstructedVideo`, several, or none. Sequences are ordered by the mean over their
    frames of the first of their errors. Every process draws its own; the best and worst of all processes remain.

    Args:
        max_sequences: Sequences that are kept, half of them the worst ones.
        point_cloud: Write `points.ply`.
        video: Write `depth.mp4`.
        max_frames: Frames in `depth.png`.
        unit: Of depth and positions.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(
        self,
        max_sequences: int = 6,
        point_cloud: bool = True,
        video: bool = True,
        max_frames: int = 6,
        unit: str = "m",
    ) -> None:
        if max_sequences < 1 or max_frames < 1:
            raise ValueError(f"max_sequences and max_frames must be at least 1, got {max_sequences} and {max_frames}")
        self.max_sequences, self.max_frames, self.unit = max_sequences, max_frames, unit
        self.point_cloud, self.video = point_cloud, video
        self.folder: Path | None = None
        """Of the last test."""
        self._drawn: list[DrawnSequence] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the folder, and remove what an earlier test left there."""
        self.folder = Path(trainer.log_dir or trainer.default_root_dir) / "reconstruction"  # a collective
        self._drawn = []
        if trainer.is_global_zero:
            remove_sequences(self.folder)
        trainer.strategy.barrier("reconstruction plots")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the sequences of a batch that are among the worst or best so far."""
        videos = outputs if isinstance(outputs, list) else [outputs]
        for video in videos:
            if isinstance(video, ReconstructedVideo):
                self._consider(video)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the worst and best of all processes, and log them."""
        assert self.folder is not None
        everything = [one for part in distributed.gather_objects(self._drawn) for one in part]
        kept = worst_and_best(everything, self.max_sequences)
        for one in self._drawn:
            if one not in kept:
                shutil.rmtree(self.folder / one.folder)
        self._drawn = [one for one in self._drawn if one in kept]
        trainer.strategy.barrier("reconstruction plots")
        if not everything:
            rank_zero_warn("ReconstructionPlots has no effect: no test step returned a ReconstructedVideo")
        elif trainer.is_global_zero:
            self._log(trainer, kept)
            rank_zero_info(f"Plots of {len(kept)} sequences: {self.folder.resolve()}")

    def _consider(self, video: ReconstructedVideo) -> None:
        """Draw a sequence if it is among the worst or best, and remove the one that it replaces."""
        assert self.folder is not None
        one = self._entry(video)
        kept = worst_and_best([*self._drawn, one], self.max_sequences)
        for old in self._drawn:
            if old not in kept:
                shutil.rmtree(self.folder / old.folder)
        if one in kept:
            self._draw(video, one)
        self._drawn = kept

    def _entry(self, video: ReconstructedVideo) -> DrawnSequence:
        folder = re.sub(r"[^A-Za-z0-9_.]+", "-", video.name).strip("-.") or "sequence"
        error = next(iter(mean_errors(video).values()), math.inf)
        return DrawnSequence(
            video.name, folder, headline(video, self.unit), error if math.isfinite(error) else math.inf
        )

    def _draw(self, video: ReconstructedVideo, one: DrawnSequence) -> None:
        assert self.folder is not None
        folder = self.folder / one.folder
        folder.mkdir(parents=True, exist_ok=True)
        depth, path = depth_plot(video, self.unit), path_plot(video, self.unit)
        if depth is not None:
            caption = "Truth and prediction of all frames share one colour scale; the error is relative to the truth."
            image = draw_depth(depth, max_frames=self.max_frames)
            _write(folder / "depth.png", image, f"{video.name}: depth", caption)
            if self.video:
                write_depth_video(depth, folder / "depth.mp4")
        if path is not None:
            caption = "Camera path from above and from the side, aligned as the evaluation does."
            _write(folder / "path.png", draw_paths(path), f"{video.name}: camera path", caption)
        if video.frame_errors:
            caption = "Errors of every frame; dashed: their mean."
            _write(folder / "errors.png", draw_errors(video, self.unit), f"{video.name}: errors over time", caption)
        if self.point_cloud and not any(
            part is None for part in (video.depth, video.intrinsics, video.camera_to_world)
        ):
            write_points(video, folder / "points.ply")
        one.write(folder)

    def _log(self, trainer: Trainer, kept: Iterable[DrawnSequence]) -> None:
        """Add the plots to TensorBoard."""
        assert self.folder is not None
        for target in trainer.loggers:
            if not isinstance(target, TensorBoardLogger):
                continue
            for one in kept:
                for path in sequence_plots(self.folder, one):
                    with Image.open(path) as image:
                        pixels = np.asarray(image)
                    tag = f"test/reconstruction/{one.folder}/{path.stem}"
                    target.experiment.add_image(tag, pixels, trainer.global_step, dataformats="HWC")


def _write(path: Path, image: UInt8[np.ndarray, "H W 3"], title: str, caption: str) -> None:
    path.write_bytes(encode_png(image, title=title, caption=caption))
