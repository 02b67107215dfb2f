"""Point maps of videos, streamed frame by frame: accuracy, completeness and F-score of the points of all frames."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from omnistream.cameras import Similarity, apply_similarity, apply_similarity_to_poses
from omnistream.data.batch import SceneFrame
from omnistream.data.geometry_videos import GeometryVideo
from omnistream.metrics import VoxelCloud, cloud_errors, nearest_distances
from omnistream.metrics.trajectory import TrajectoryAlignment, TrajectoryScore, score_trajectory, turned_like_cameras
from omnistream.tasks.reconstruction.judged_points import JudgedDepth, TrueCloud
from omnistream.tasks.reconstruction.outcome import ReconstructedVideo, SequenceOutcome
from omnistream.tasks.reconstruction.plotted import PlottedFrames
from omnistream.tasks.reconstruction.streamed import PredictedFrame, StreamedEvaluation

ALIGNMENTS: tuple[TrajectoryAlignment, ...] = ("sim3", "se3", "none")
_PER_FRAME = 1024
"""Points of a frame of which its error over time is made."""


class _Prediction(NamedTuple):
    cloud: Float64[Tensor, "N 3"]
    samples: list[tuple[int, Tensor]]
    """Some points of every frame, with its number."""
    reason: str
    """Why there is no point; else empty."""


_FAILED = _Prediction(torch.zeros(0, 3, dtype=torch.float64), [], "")
"""Its errors are NaN."""


class PointMap(StreamedEvaluation):
    """Distances between the predicted and the true points of a video, each video with the same weight.

    Metrics are those of `omnistream.metrics.CloudErrors`: `accuracy` and `completeness` in metres, their medians, and
    `precision`, `recall` and `f_score` at the threshold. `accuracy_constant` and so on are those of a baseline with the
    true cameras and one depth everywhere, the geometric mean of the video's.

    Predicted points are made of depth, K and pose of each frame. Points that a model also predicts itself are not
    used: so all models, and predictions from files, are judged by the same three outputs. The whole cloud is moved by
    the similarity of the camera centres, which the points have no part in; the turn about a straight path, which the
    centres leave open, is that of the cameras. A predicted pixel is judged if the truth has a depth there, and a true
    one if the image shows it; neither cloud answers for what the other cannot know.

    Both clouds are thinned to one point per voxel, so that memory and time grow with the volume of the scene and not
    with the length of the stream, and surfaces that are seen for long count no more than others. A coordinate
    of a prediction beyond 2^20 voxels from the origin (20 km for voxels of 2 cm) is cut there.

    A reference that does not move is no truth unless nothing is aligned.

    Args:
        geometry: See `StreamedEvaluation`.
        checkpoint: See `StreamedEvaluation`.
        protocol: Stable name of the evaluation.
        alignment: `sim3`, `se3` or `none`; see ``omnistream.metrics.TrajectoryAlignment``.
        voxel: Side of a voxel in metres. The default is that of Atlas' evaluation of rooms: about the noise of their
            depth cameras.
        threshold: Of precision, recall and F-score, in metres; at least twice the voxel, below which the grid decides.
        max_depth: Only true depth below this is compared.
        resume: See `StreamedEvaluation`.
        num_plotted_frames: See `StreamedEvaluation`.

    Raises:
        ValueError: If an option is out of range, or as `StreamedEvaluation`.

    Source: magicleap/Atlas (`eval_mesh`: one point per 2 cm, threshold 5 cm).
    """

    scored_parts = ("depth", "poses", "intrinsics")

    def __init__(
        self,
        geometry: nn.Module,
        checkpoint: str | None = None,
        *,
        protocol: str = "point_map",
        alignment: TrajectoryAlignment = "sim3",
        voxel: float = 0.02,
        threshold: float = 0.05,
        max_depth: float | None = None,
        resume: str | None = None,
        num_plotted_frames: int = 8,
    ) -> None:
        common: dict[str, Any] = {"resume": resume, "num_plotted_frames": num_plotted_frames}
        super().__init__(geometry, checkpoint, protocol=protocol, **common)
        if alignment not in ALIGNMENTS:
            raise ValueError(f"alignment must be one of {', '.join(ALIGNMENTS)}, got {alignment!r}")
        if voxel <= 0 or threshold < 2 * voxel:
            raise ValueError(
                f"voxel must be positive and threshold at least twice as large, got {voxel:g} and {threshold:g}"
            )
        self.alignment, self.voxel, self.threshold, self.max_depth = alignment, voxel, threshold, max_depth

    def options(self) -> dict[str, Any]:
        """Alignment, voxel and limits."""
        limits = {"voxel": self.voxel, "threshold": self.threshold, "max_depth": self.max_depth}
        return {"alignments": [self.alignment], **limits}

    def score(
        self, video: GeometryVideo, stream: Iterator[tuple[SceneFrame, PredictedFrame]]
    ) -> tuple[SequenceOutcome, ReconstructedVideo | None]:
        """Errors of one video.

        Raises:
            ValueError: If a true point is too far away for the size of the voxels.
        """
        plotted, truth = PlottedFrames(video, self.num_plotted_frames), TrueCloud(self.voxel, self.max_depth)
        cameras: list[Tensor] = []
        with JudgedDepth() as judged:
            for frame, found in stream:
                size = (found.depth.shape[0], found.depth.shape[1])
                try:
                    judged.add(found.depth, truth.add(frame, size))
                except ValueError as error:
                    raise ValueError(f"{video.name}, frame {len(cameras)}: {error}") from error
                plotted.add(frame, found)
                cameras.append(found.intrinsics)
            poses, target = torch.stack(plotted.poses), torch.stack(plotted.true_poses)
            main = score_trajectory(poses, target, alignment=self.alignment)
            if main.errors is None or not truth.num_pixels:
                reason = main.reason or "no pixel has a true depth to compare with"
                return SequenceOutcome(name=video.name, status="no truth", reason=reason), plotted.video({}, main)
            baseline = self._cloud(judged, truth.cameras, target, constant=truth.typical_depth)
            found_cloud = _FAILED
            if main.similarity is not None:
                main = self._turned(main, main.similarity, poses, target)
                found_cloud = self._cloud(judged, cameras, poses, main.similarity)
        outcome = self._outcome(video.name, main, truth.points, found_cloud, baseline)
        over_time = _over_time(found_cloud, truth.points, len(target))
        return outcome, plotted.video({"accuracy": over_time, "position": main.position_errors}, main)

    def _turned(
        self,
        main: TrajectoryScore,
        similarity: Similarity,
        poses: Float[Tensor, "T 4 4"],
        target: Float[Tensor, "T 4 4"],
    ) -> TrajectoryScore:
        if self.alignment == "none":
            return main
        turned = turned_like_cameras(similarity, poses, target)
        return main._replace(similarity=turned, aligned=apply_similarity_to_poses(turned, poses))

    def _cloud(
        self,
        judged: JudgedDepth,
        cameras: list[Tensor],
        poses: Float[Tensor, "T 4 4"],
        similarity: Similarity | None = None,
        constant: float | None = None,
    ) -> _Prediction:
        """One point per voxel, moved to the truth; nothing more once a point is not finite."""
        cloud, samples = VoxelCloud(self.voxel), []
        for frame, points in judged.points(cameras, poses, constant):
            moved = points if similarity is None else apply_similarity(similarity, points)
            if not moved.isfinite().all():
                return _FAILED._replace(reason=f"the predicted points of frame {frame} are not finite")
            moved = moved.clamp(-cloud.reach, cloud.reach)
            cloud.add(moved)
            samples.append((frame, moved[:: math.ceil(len(moved) / _PER_FRAME)]))
        return _Prediction(cloud.points, samples, "" if samples else "no predicted pixel falls on a true depth")

    def _outcome(
        self,
        name: str,
        main: TrajectoryScore,
        truth: Float64[Tensor, "M 3"],
        found: _Prediction,
        baseline: _Prediction,
    ) -> SequenceOutcome:
        values: dict[str, float] = {}
        for ending, prediction in {"": found, "_constant": baseline}.items():
            errors = cloud_errors(prediction.cloud, truth, threshold=self.threshold)
            assert errors is not None  # there is a true point
            values |= {f"{metric}{ending}": float(value) for metric, value in errors._asdict().items()}
        if problem := main.reason or found.reason:
            return SequenceOutcome(name=name, status="not finite", reason=problem, values=values)
        assert main.similarity is not None
        sizes = {"true_points": len(truth), "predicted_points": len(found.cloud)}
        details = {"scale": float(main.similarity.scale), "note": main.note, **sizes}
        return SequenceOutcome(name=name, values=values, details=details)


def _over_time(found: _Prediction, truth: Float64[Tensor, "M 3"], num_frames: int) -> Float64[Tensor, " T"]:
    """Mean distance of some points of every frame from the truth; NaN where there are none."""
    errors = torch.full((num_frames,), torch.nan, dtype=torch.float64)
    if found.samples:
        distances = nearest_distances(torch.cat([points for _, points in found.samples]), truth)
        parts = distances.split([len(points) for _, points in found.samples])
        for (frame, _), part in zip(found.samples, parts, strict=True):
            errors[frame] = part.mean()
    return errors
