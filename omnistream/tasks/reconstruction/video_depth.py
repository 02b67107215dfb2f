"""Depth of videos, streamed frame by frame, as CUT3R scores it (paper Table 3)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from omnistream.data.batch import SceneFrame
from omnistream.data.geometry_videos import GeometryVideo
from omnistream.metrics import DepthPairs, SequenceDepth
from omnistream.metrics.video_depth import VideoAlignment
from omnistream.tasks.reconstruction.outcome import ReconstructedVideo, SequenceOutcome
from omnistream.tasks.reconstruction.plotted import PlottedFrames, true_depth
from omnistream.tasks.reconstruction.streamed import PredictedFrame, StreamedEvaluation

ALIGNMENTS: tuple[VideoAlignment, ...] = ("scale", "scale_shift_l2", "median", "metric", "frame_median")


class VideoDepth(StreamedEvaluation):
    """Errors of z-depth after one alignment per video, weighted by the pixels that have a true depth.

    Metrics are `abs_rel`, `sq_rel`, `rmse`, `log_rmse`, `delta1`, `delta2` and `delta3` for the first alignment, and
    `<alignment>/abs_rel` and so on for the others. `abs_rel_constant` is Abs Rel of a constant depth under the first
    alignment, or under `scale` where that is `metric`. Predictions are resized to the truth, never the reverse.

    Args:
        geometry: See `StreamedEvaluation`.
        checkpoint: See `StreamedEvaluation`.
        protocol: Stable name of the evaluation.
        alignments: Which ones; see ``omnistream.metrics.VideoAlignment``. The first gives the main figures.
        max_depth: Only true depth below this is compared: 70 for Sintel and BONN, null for KITTI.
        clip_to: Largest aligned depth: 70 for Sintel, null for the others.
        resume: See `StreamedEvaluation`.
        num_plotted_frames: See `StreamedEvaluation`.

    Raises:
        ValueError: If there is no alignment, or as `StreamedEvaluation`.
    """

    scored_part = "depth"

    def __init__(
        self,
        geometry: nn.Module,
        checkpoint: str | None = None,
        *,
        protocol: str = "video_depth",
        alignments: Sequence[VideoAlignment] = ALIGNMENTS,
        max_depth: float | None = None,
        clip_to: float | None = None,
        resume: str | None = None,
        num_plotted_frames: int = 8,
    ) -> None:
        common: dict[str, Any] = {"resume": resume, "num_plotted_frames": num_plotted_frames}
        super().__init__(geometry, checkpoint, protocol=protocol, **common)
        if not alignments or len(set(alignments)) < len(alignments):
            raise ValueError(f"alignments must be different ones, at least one; got {list(alignments)}")
        self.alignments, self.max_depth, self.clip_to = tuple(alignments), max_depth, clip_to

    def options(self) -> dict[str, Any]:
        """Alignments and limits."""
        return {"alignments": list(self.alignments), "max_depth": self.max_depth, "clip_to": self.clip_to}

    def score(
        self, video: GeometryVideo, stream: Iterator[tuple[SceneFrame, PredictedFrame]]
    ) -> tuple[SequenceOutcome, ReconstructedVideo | None]:
        """Errors of one video."""
        plotted = PlottedFrames(video, self.num_plotted_frames)
        with ExitStack() as stack:
            pairs, constant = (stack.enter_context(DepthPairs(self.max_depth)) for _ in range(2))
            for frame, found in stream:
                truth = true_depth(frame)
                pairs.add(found.depth, truth)
                constant.add(torch.ones(1, 1), truth)
                plotted.add(frame, found)
            errors = pairs.errors(self.alignments, self.clip_to)
            base: VideoAlignment = "scale" if self.alignments[0] == "metric" else self.alignments[0]
            baseline = constant.errors([base], self.clip_to)[base]
        first = errors[self.alignments[0]]
        per_frame = {"abs_rel": first.frame_errors.abs_rel, "delta1": first.frame_errors.delta1}
        shown = plotted.video(per_frame, depth=first, clip_to=self.clip_to)
        return self._outcome(video, errors, baseline), shown

    def _outcome(
        self, video: GeometryVideo, found: dict[VideoAlignment, SequenceDepth], baseline: SequenceDepth
    ) -> SequenceOutcome:
        first = found[self.alignments[0]]
        if not first.num_valid:
            return SequenceOutcome(
                name=video.name, status="no truth", reason="no pixel has a true depth to compare with"
            )
        values = {
            name if alignment == self.alignments[0] else f"{alignment}/{name}": float(value)
            for alignment, errors in found.items()
            for name, value in errors.errors._asdict().items()
        }
        values["abs_rel_constant"] = float(baseline.errors.abs_rel)
        fits = {a: {"scale": e.scale.tolist(), "shift": e.shift.tolist()} for a, e in found.items() if not e.scale.ndim}
        undefined = [name for name, value in values.items() if math.isnan(value)]
        reason = ""
        if first.not_finite_frame is not None:
            reason = f"the predicted depth of frame {first.not_finite_frame} is not finite"
        elif undefined:
            reason = f"the alignment has no solution, which leaves without value: {', '.join(undefined)}"
        return SequenceOutcome(
            name=video.name,
            status="not finite" if reason else "scored",
            reason=reason,
            values=values,
            weight=float(first.num_valid),
            details={} if reason else {"alignments": fits},
        )
