"""Camera poses of videos, streamed frame by frame, as CUT3R and evo score them (paper Table 4)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from omnistream.data.batch import SceneFrame
from omnistream.data.geometry_videos import GeometryVideo
from omnistream.evaluation.geometry_baselines import PoseBaseline, baseline_poses
from omnistream.metrics.trajectory import TrajectoryAlignment, TrajectoryErrors, trajectory_errors
from omnistream.tasks.reconstruction.outcome import ReconstructedVideo, SequenceOutcome
from omnistream.tasks.reconstruction.plotted import PlottedFrames
from omnistream.tasks.reconstruction.streamed import PredictedFrame, StreamedEvaluation

ALIGNMENTS: tuple[TrajectoryAlignment, ...] = ("sim3", "se3", "none")


class CameraPose(StreamedEvaluation):
    """ATE and RPE of camera trajectories, each video with the same weight.

    Metrics are `ate`, `rpe_translation` and `rpe_rotation` after the first alignment, and `<alignment>/ate` and so on
    after the others. Those of a model's second source of poses, `ray_camera_to_world`, are `rays/ate` and so on.
    `ate_identity`, `rpe_translation_constant_velocity` and so on are those of the baselines of
    `omnistream.evaluation.PoseBaseline` after the first alignment.

    A reference pose that is not finite is left out; a reference that does not move, or has fewer than three poses, is
    no truth.

    Args:
        geometry: See `StreamedEvaluation`.
        checkpoint: See `StreamedEvaluation`.
        protocol: Stable name of the evaluation.
        alignments: Which ones, the main one first; see `omnistream.metrics.trajectory_errors`.
        resume: See `StreamedEvaluation`.
        num_plotted_frames: See `StreamedEvaluation`.

    Raises:
        ValueError: If there is no alignment, or as `StreamedEvaluation`.
    """

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
        poses = {"": torch.stack(plotted.poses)} | ({"rays/": torch.stack(ray_poses)} if ray_poses else {})
        outcome = self._outcome(video.name, poses, torch.stack(plotted.true_poses))
        return outcome, plotted.video(plotted.position_errors())

    def _outcome(
        self, name: str, poses: Mapping[str, Float[Tensor, "T 4 4"]], target: Float[Tensor, "T 4 4"]
    ) -> SequenceOutcome:
        main, values = self.alignments[0], {}
        for source, preds in poses.items():
            for alignment in self.alignments:
                errors = trajectory_errors(preds, target, alignment=alignment)
                if errors is None:
                    return SequenceOutcome(name=name, status="no truth", reason=_no_truth(target))
                values |= _named(f"{source}{'' if alignment == main else alignment + '/'}", errors)
        known = target.flatten(1).isfinite().all(1)
        for baseline in get_args(PoseBaseline):
            truth = target[known]
            errors = trajectory_errors(baseline_poses(truth, baseline), truth, alignment=main)
            assert errors is not None  # there is a reference
            found = _named("", errors)
            values |= {f"{key}_{baseline}": value for key, value in found.items() if _means_something(key, baseline)}
        return SequenceOutcome(name=name, values=values, **_status(poses, known))


def _named(prefix: str, errors: TrajectoryErrors) -> dict[str, float]:
    return {f"{prefix}{name}": float(value) for name, value in errors._asdict().items()}


def _means_something(metric: str, baseline: PoseBaseline) -> bool:
    """The path of `previous_motion` is the true one, late: its ATE is no error of a prediction."""
    return not (baseline == "previous_motion" and metric == "ate")


def _no_truth(target: Float[Tensor, "T 4 4"]) -> str:
    known = int(target.flatten(1).isfinite().all(1).sum())
    if known < 3:
        return f"only {known} of {len(target)} reference poses are known, and an alignment needs three"
    return "the reference does not move"


def _status(poses: Mapping[str, Float[Tensor, "T 4 4"]], known: Bool[Tensor, " T"]) -> dict[str, Any]:
    for source, preds in poses.items():
        wrong = (known & ~preds.flatten(1).isfinite().all(1)).nonzero()
        if len(wrong):
            origin = "pose from rays" if source else "pose"
            return {"status": "not finite", "reason": f"the predicted {origin} of frame {int(wrong[0])} is not finite"}
    return {}
