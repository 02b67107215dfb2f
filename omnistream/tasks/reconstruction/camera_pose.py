"""Camera poses of videos, streamed frame by frame, as CUT3R and evo score them (paper Table 4)."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from omnistream.cameras import invert_pose, make_pose, nearest_rotation
from omnistream.data.batch import SceneFrame
from omnistream.data.geometry_videos import GeometryVideo
from omnistream.evaluation.geometry_baselines import PoseBaseline, baseline_poses
from omnistream.metrics.trajectory import (
    TrajectoryAlignment,
    TrajectoryErrors,
    TrajectoryScore,
    score_trajectory,
)
from omnistream.tasks.reconstruction.outcome import ReconstructedVideo, SequenceOutcome
from omnistream.tasks.reconstruction.plotted import PlottedFrames
from omnistream.tasks.reconstruction.streamed import PredictedFrame, StreamedEvaluation

ALIGNMENTS: tuple[TrajectoryAlignment, ...] = ("sim3", "se3", "none")


class CameraPose(StreamedEvaluation):
    """ATE and RPE of camera trajectories, each video with the same weight.

    Metrics are `ate`, `rpe_translation` and `rpe_rotation` after the first alignment, and `<alignment>/ate` and so on
    after the others. With `none`, the first predicted camera whose truth is known is put on its true one and nothing is
    fitted: a model may choose its own world, but neither its scale nor its drift is forgiven. Those of a model's second
    source of poses, `ray_camera_to_world`, are `rays/ate` and so on. `ate_identity`,
    `rpe_translation_constant_velocity` and so on are those of the baselines of ``omnistream.evaluation.PoseBaseline``
    after the first alignment.

    A reference pose that is not finite is left out; a reference that does not move, or has too few poses, is no truth.
    The status of a video is that of the main errors; others without a value are noted in its details.

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

    scored_parts = ("poses",)

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
        """Errors of one video.

        Raises:
            ValueError: If the data set states no poses.
        """
        if not video.reader.has_poses:
            raise ValueError(
                f"{self.protocol}: {type(video.reader).__name__} has no true poses to compare with; choose another "
                "reader, or evaluate its depth"
            )
        plotted, ray_poses = PlottedFrames(video, self.num_plotted_frames), []
        for frame, found in stream:
            plotted.add(frame, found)
            if found.ray_camera_to_world is not None:
                ray_poses.append(found.ray_camera_to_world)
        target = torch.stack(plotted.true_poses)
        main = _score(torch.stack(plotted.poses), target, self.alignments[0])
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
        notes = [main.note] if main.note else []
        for source, preds in sources.items():
            for alignment in self.alignments:
                found = _score(preds, target, alignment)
                if found.errors is None:
                    return SequenceOutcome(name=name, status="no truth", reason=found.reason)
                prefix = source if alignment == self.alignments[0] else f"{source}{alignment}/"
                values |= _named(prefix, found.errors)
                if found.reason != main.reason:
                    notes.append(f"{prefix}ate has no value: {found.reason}")
        details = {"num_poses": main.num_poses, "note": "; ".join(notes)}
        values |= self._baselines(target)
        return SequenceOutcome(name=name, status=main.status, reason=main.reason, values=values, details=details)

    def _baselines(self, target: Float[Tensor, "T 4 4"]) -> dict[str, float]:
        known = target[target.flatten(1).isfinite().all(1)]
        values: dict[str, float] = {}
        for baseline in get_args(PoseBaseline):
            errors = _score(baseline_poses(known, baseline), known, self.alignments[0]).errors
            assert errors is not None  # there is a reference
            found = {f"{name}_{baseline}": value for name, value in _named("", errors).items()}
            if baseline == "previous_motion":
                del found["ate_previous_motion"]  # the path is the true one, late: this is no error of a prediction
            values |= found
        return values


def _score(
    preds: Float[Tensor, "T 4 4"], target: Float[Tensor, "T 4 4"], alignment: TrajectoryAlignment
) -> TrajectoryScore:
    """`score_trajectory`, but for `none`, which starts at the first known pose of the truth."""
    known = target.flatten(1).isfinite().all(1).nonzero()
    if alignment == "none" and len(known):
        start, wanted = preds[known[0, 0]].double(), target[known[0, 0]].double()
        if start.isfinite().all():
            preds = wanted @ invert_pose(make_pose(nearest_rotation(start[:3, :3]), start[:3, 3])) @ preds.double()
    return score_trajectory(preds, target, alignment=alignment)


def _named(prefix: str, errors: TrajectoryErrors) -> dict[str, float]:
    return {f"{prefix}{name}": float(value) for name, value in errors._asdict().items()}
