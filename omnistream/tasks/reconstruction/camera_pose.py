"""Camera poses of videos, streamed frame by frame, as CUT3R and evo score them (paper Table 4)."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from omnistream.data.batch import SceneFrame
from omnistream.data.geometry_videos import GeometryVideo
from omnistream.evaluation.geometry_baselines import PoseBaseline, baseline_poses
from omnistream.metrics.trajectory import (
    TrajectoryAlignment,
    TrajectoryErrors,
    TrajectoryScore,
    score_trajectory,
    trajectory_errors,
)
from omnistream.tasks.reconstruction.outcome import ReconstructedVideo, SequenceOutcome
from omnistream.tasks.reconstruction.plotted import PlottedFrames
from omnistream.tasks.reconstruction.streamed import PredictedFrame, StreamedEvaluation

ALIGNMENTS: tuple[TrajectoryAlignment, ...] = ("sim3", "se3", "none")


class CameraPose(StreamedEvaluation):
    """ATE and RPE of camera trajectories, each video with the same weight.

    Metrics are `ate`, `rpe_translation` and `rpe_rotation` after the first alignment, and `<alignment>/ate` and so on
    after the others. Those of a model's second source of poses, `ray_camera_to_world`, are `rays/ate` and so on.
    `ate_identity`, `rpe_translation_constant_velocity` and so on are those of the baselines of
    ``omnistream.evaluation.PoseBaseline`` after the first alignment.

    A reference pose that is not finite is left out; a reference that does not move, or has too few poses, is no truth.

    Args:
        geometry: See `StreamedEvaluation`.
        checkpoint: See `StreamedEvaluation`.
        protocol: Stable name of the evaluation.
        alignments: Which ones, the main one first; see `omnistream.metrics.score_trajectory`.
        resume: See `StreamedEvaluation`.
        num_plotted_frames: See `StreamedEvaluation`.

    Raises:
        ValueError: If there is no alignment, or as `StreamedEvaluation`.
    """

    scored_part = "poses"

    def __init__(
        self,
        geometry: nn.Module,
        checkpoint: str | None = None,
        *,
        protocol: str = "camera_pose",
        alignments: Sequence[TrajectoryAlignment] = ALIGNMENTS,
        resume: str | None = None,
        num_plotted_frames: int = 8,
    ) -> None:
        common: dict[str, Any] = {"resume": resume, "num_plotted_frames": num_plotted_frames}
        super().__init__(geometry, checkpoint, protocol=protocol, **common)
        if not alignments or len(set(alignments)) < len(alignments):
            raise ValueError(f"alignments must be different ones, at least one; got {list(alignments)}")
        self.alignments = tuple(alignments)

    def options(self) -> dict[str, Any]:
        """Alignments."""
        return {"alignments": list(self.alignments)}

    def score(
        self, video: GeometryVideo, stream: Iterator[tuple[SceneFrame, PredictedFrame]]
    ) -> tuple[SequenceOutcome, ReconstructedVideo | None]:
        """Errors of one video."""
        plotted, ray_poses = PlottedFrames(video, self.num_plotted_frames), []
        for frame, found in stream:
            plotted.add(frame, found)
            if found.ray_camera_to_world is not None:
                ray_poses.append(found.ray_camera_to_world)
        target = torch.stack(plotted.true_poses)
        main = score_trajectory(torch.stack(plotted.poses), target, alignment=self.alignments[0])
        rays = torch.stack(ray_poses) if ray_poses else None
        outcome = self._outcome(video.name, plotted, target, main, rays)
        return outcome, plotted.video({"position": main.position_errors}, main)

    def _outcome(
        self,
        name: str,
        plotted: PlottedFrames,
        target: Float[Tensor, "T 4 4"],
        main: TrajectoryScore,
        rays: Float[Tensor, "T 4 4"] | None,
    ) -> SequenceOutcome:
        if main.errors is None:
            return SequenceOutcome(name=name, status="no truth", reason=main.reason)
        sources = {"": torch.stack(plotted.poses)} | ({} if rays is None else {"rays/": rays})
        values: dict[str, float] = {}
        problems = []
        for source, preds in sources.items():
            for alignment in self.alignments:
                found = score_trajectory(preds, target, alignment=alignment)
                if found.errors is None:
                    return SequenceOutcome(name=name, status="no truth", reason=found.reason)
                prefix = source if alignment == self.alignments[0] else f"{source}{alignment}/"
                values |= _named(prefix, found.errors)
                problems += [f"{source}{found.reason}"] if found.reason else []
        details = {"num_poses": main.num_poses, "note": main.note}
        status: dict[str, Any] = {"status": "not finite", "reason": problems[0]} if problems else {}
        return SequenceOutcome(name=name, values=values | self._baselines(target), details=details, **status)

    def _baselines(self, target: Float[Tensor, "T 4 4"]) -> dict[str, float]:
        known = target[target.flatten(1).isfinite().all(1)]
        values: dict[str, float] = {}
        for baseline in get_args(PoseBaseline):
            errors = trajectory_errors(baseline_poses(known, baseline), known, alignment=self.alignments[0])
            assert errors is not None  # there is a reference
            found = {f"{name}_{baseline}": value for name, value in _named("", errors).items()}
            if baseline == "previous_motion":
                del found["ate_previous_motion"]  # the path is the true one, late: this is no error of a prediction
            values |= found
        return values


def _named(prefix: str, errors: TrajectoryErrors) -> dict[str, float]:
    return {f"{prefix}{name}": float(value) for name, value in errors._asdict().items()}
