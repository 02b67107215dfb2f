"""Errors of camera trajectories after an alignment: ATE and RPE, as evo and CUT3R report them (paper Table 4).

A reference with fewer than three known poses, or one that does not move, cannot be aligned to: it is left out and
counted in `skipped`. A prediction that does not move is put on the mean of the reference (the limit of a vanishing
scale), and one with a value that is not finite makes the result NaN: a failure of the model never improves a mean.
`score_trajectory` says in words which of these it was.

Source: MichaelGrupp/evo (`ape`, `rpe` with `align=True, correct_scale=True, delta=1`, RMSE); CUT3R/CUT3R eval/relpose.
Unlike evo, a straight path is evaluated: none of the three errors depends on the turn about it that is left open.
"""

from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from omnistream.cameras import (
    Similarity,
    align_similarity,
    apply_similarity_to_poses,
    invert_pose,
    make_pose,
    nearest_rotation,
    rotation_angle,
)
from omnistream.metrics.mean import SampleMean

TrajectoryAlignment = Literal["sim3", "se3", "scale", "none"]
"""How a prediction is brought to the reference: by the best similarity of the camera centres, by the best rigid motion,
by the factor of that similarity alone, or not at all."""
TrajectoryStatus = Literal["scored", "no truth", "not finite"]
"""`no truth`: the reference cannot be aligned to; `not finite`: a predicted pose is not, and the errors are NaN."""

MIN_POSES = 3
"""Known poses that an alignment needs; without one, two make a pair of frames."""
MOTION = 1e-9
"""Largest coordinate difference, in its own unit, of a prediction that does not move."""
REFERENCE_MOTION = 1e-6
"""The same of a reference, in its unit: less is the rounding of a camera that stands still."""
STRAIGHT = 1e-6
"""Largest ratio of the second to the first singular value of the centres of a straight path."""


class TrajectoryErrors(NamedTuple):
    """Errors of one trajectory, float64 scalars."""

    ate: Tensor
    """Root mean square distance of the aligned camera centres, in the reference's unit (absolute trajectory error)."""
    rpe_translation: Tensor
    """Root mean square translation error between frames, in the reference's unit."""
    rpe_rotation: Tensor
    """Root mean square rotation error between frames, in degrees."""


class TrajectoryScore(NamedTuple):
    """One trajectory, whether it could be scored or not."""

    status: TrajectoryStatus
    reason: str
    """In words, for every status but `scored`."""
    note: str
    """What is particular to a trajectory that was scored, such as a prediction that does not move; else empty."""
    errors: TrajectoryErrors | None
    """NaN if a prediction is not finite, None without a truth."""
    similarity: Similarity | None
    """That was applied to the prediction, float64; None if it was not scored."""
    aligned: Float[Tensor, "N 4 4"] | None
    """All predicted poses after the alignment, float64; None if it was not scored."""
    position_errors: Float[Tensor, " N"]
    """Distance of each aligned camera centre from its reference; NaN where there is none."""
    num_poses: int
    """Frames whose reference pose is known."""


def trajectory_similarity(
    preds: Float[Tensor, "N 4 4"], target: Float[Tensor, "N 4 4"], alignment: TrajectoryAlignment = "sim3"
) -> Similarity:
    """The similarity, in float64, that brings the predicted camera centres closest to those of the reference.

    The scale of `sim3` and `scale` is 0 if the prediction does not move: `sim3` then puts all centres on the mean of
    the reference.

    Args:
        preds: Camera-to-world poses.
        target: Reference poses.
        alignment: See `TrajectoryAlignment`.

    Raises:
        ValueError: If there is no such alignment.
    """
    if alignment not in get_args(TrajectoryAlignment):
        raise ValueError(f"alignment must be one of {', '.join(get_args(TrajectoryAlignment))}, got {alignment!r}")
    centres, wanted = preds[:, :3, 3].double(), target[:, :3, 3].double()
    turn, origin = torch.eye(3, dtype=centres.dtype, device=centres.device), torch.zeros_like(centres[0])
    if alignment == "none":
        return Similarity(torch.ones_like(origin[0]), turn, origin)
    found = align_similarity(centres, wanted, with_scale=alignment != "se3")
    if alignment != "se3" and not _moves(preds, MOTION):
        found = Similarity(torch.zeros_like(found.scale), found.rotation, wanted.mean(0))
    return Similarity(found.scale, turn, origin) if alignment == "scale" else found


def turned_like_cameras(
    similarity: Similarity, preds: Float[Tensor, "N 4 4"], target: Float[Tensor, "N 4 4"]
) -> Similarity:
    """A similarity of camera centres whose turn about a straight path, which they leave open, is that of the cameras.

    Errors of a trajectory do not depend on that turn, those of its points do. Where the path is not straight, nothing
    is changed.

    Args:
        similarity: From `trajectory_similarity`.
        preds: Camera-to-world poses.
        target: Reference poses; those that are not finite are left out.
    """
    known = target.flatten(1).isfinite().all(1)
    some, reference = preds[known].double(), target[known].double()
    mean, wanted = some[:, :3, 3].mean(0), reference[:, :3, 3].mean(0)
    left, extents, _ = torch.linalg.svd((reference[:, :3, 3] - wanted).mT @ (some[:, :3, 3] - mean))
    if extents[1] > STRAIGHT * extents[0]:
        return similarity
    axis, zero = left[:, 0], extents.new_zeros(())
    x, y, z = axis
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    along = torch.outer(axis, axis)
    between = (similarity.rotation @ some[:, :3, :3] @ reference[:, :3, :3].mT).sum(0)
    # tr(turn @ between), the agreement of all cameras, is a cosine and a sine of the angle: this is its maximum
    angle = torch.atan2(torch.trace(cross @ between), torch.trace(between) - axis @ between @ axis)
    turn = angle.cos() * (torch.eye(3).to(along) - along) + angle.sin() * cross + along
    rotation = turn @ similarity.rotation
    return Similarity(similarity.scale, rotation, wanted - similarity.scale * (rotation @ mean))


def position_rmse(preds: Float[Tensor, "N 4 4"], target: Float[Tensor, "N 4 4"]) -> Float[Tensor, ""]:
    """Root mean square distance of the camera centres, without any alignment."""
    return _rms((preds[:, :3, 3] - target[:, :3, 3]).norm(dim=-1))


def score_trajectory(
    preds: Float[Tensor, "N 4 4"],
    target: Float[Tensor, "N 4 4"],
    valid: Bool[Tensor, " N"] | None = None,
    alignment: TrajectoryAlignment = "sim3",
    delta: int = 1,
) -> TrajectoryScore:
    """ATE and RPE of one trajectory, and what became of it.

    Args:
        preds: Camera-to-world poses, OpenCV axes, in any frame and scale. Their rotations, and those of the reference,
            are replaced by the nearest ones.
        target: Reference poses.
        valid: Frames whose reference pose is known; one with a value that is not finite never is. Those that are
            `delta` apart among the known ones make the pairs of the RPE.
        alignment: See `TrajectoryAlignment`.
        delta: Of the pairs; all of them, also those that overlap.

    Raises:
        ValueError: If the numbers of poses differ, or there is no such alignment.
    """
    if len(preds) != len(target):
        raise ValueError(f"there are {len(preds)} predicted poses for {len(target)} frames")
    known = target.flatten(1).isfinite().all(1) & (True if valid is None else valid)
    position_errors = torch.full((len(target),), torch.nan, dtype=torch.float64, device=target.device)
    some, reference = preds[known].double(), target[known].double()

    def unscored(status: TrajectoryStatus, reason: str, errors: TrajectoryErrors | None) -> TrajectoryScore:
        return TrajectoryScore(status, reason, "", errors, None, None, position_errors, len(reference))

    missing = _without_truth(reference, alignment, delta)
    if missing:
        return unscored("no truth", missing, None)
    finite = preds.flatten(1).isfinite().all(1)
    if not finite[known].all():
        frame = int((known & ~finite).nonzero()[0])
        return unscored("not finite", f"the predicted pose of frame {frame} is not finite", _nan_errors(reference))
    similarity = trajectory_similarity(some, reference, alignment)
    aligned = apply_similarity_to_poses(similarity, preds.double())
    errors = _pose_errors(_rigid(aligned[known]), _rigid(reference), delta)
    position_errors[known] = (aligned[known] - reference)[:, :3, 3].norm(dim=-1)
    note = _peculiarity(some, reference)
    return TrajectoryScore("scored", "", note, errors, similarity, aligned, position_errors, len(reference))


def trajectory_errors(
    preds: Float[Tensor, "N 4 4"],
    target: Float[Tensor, "N 4 4"],
    valid: Bool[Tensor, " N"] | None = None,
    alignment: TrajectoryAlignment = "sim3",
    delta: int = 1,
) -> TrajectoryErrors | None:
    """ATE and RPE of one trajectory; arguments as those of `score_trajectory`.

    Returns:
        NaN errors if a prediction is not finite; None if there is no reference to compare with.
    """
    return score_trajectory(preds, target, valid, alignment, delta).errors


def _without_truth(reference: Tensor, alignment: TrajectoryAlignment, delta: int) -> str:
    """Why nothing can be compared with a reference; empty if it can."""
    needed = max(delta + 1, 1 if alignment == "none" else MIN_POSES)
    if len(reference) < needed:
        return f"the reference has {len(reference)} known poses; {needed} are needed"
    if alignment != "none" and not _moves(reference, REFERENCE_MOTION):
        return "the reference does not move"
    return ""


def _peculiarity(preds: Tensor, reference: Tensor) -> str:
    if not _moves(preds, MOTION):
        return "the prediction does not move"
    for name, poses in (("reference", reference), ("prediction", preds)):
        centres = poses[:, :3, 3]
        extents = torch.linalg.svdvals(centres - centres.mean(0))
        if extents[1:2].sum() <= STRAIGHT * extents[0]:
            return f"the path of the {name} is straight"
    return ""


def _rigid(poses: Tensor) -> Tensor:
    return make_pose(nearest_rotation(poses[:, :3, :3]), poses[:, :3, 3])


def _nan_errors(like: Tensor) -> TrajectoryErrors:
    return TrajectoryErrors(*torch.full((3,), torch.nan, dtype=torch.float64, device=like.device))


def _pose_errors(aligned: Tensor, reference: Tensor, delta: int) -> TrajectoryErrors:
    steps = [invert_pose(poses[:-delta]) @ poses[delta:] for poses in (reference, aligned)]
    wrong = invert_pose(steps[0]) @ steps[1]
    return TrajectoryErrors(
        ate=position_rmse(aligned, reference),
        rpe_translation=_rms(wrong[:, :3, 3].norm(dim=-1)),
        rpe_rotation=_rms(rotation_angle(steps[0][:, :3, :3], steps[1][:, :3, :3])),
    )


def absolute_trajectory_error(
    preds: Float[Tensor, "B N 4 4"],
    target: Float[Tensor, "B N 4 4"],
    valid: Bool[Tensor, "B N"] | None = None,
    alignment: TrajectoryAlignment = "sim3",
) -> Float[Tensor, ""]:
    """Mean over trajectories of the ATE after alignment, in the reference's unit. Lower is better."""
    return _mean(preds, target, valid, alignment, "ate")


def relative_translation_error(
    preds: Float[Tensor, "B N 4 4"],
    target: Float[Tensor, "B N 4 4"],
    valid: Bool[Tensor, "B N"] | None = None,
    alignment: TrajectoryAlignment = "sim3",
) -> Float[Tensor, ""]:
    """Mean over trajectories of the RPE in translation, in the reference's unit. Lower is better."""
    return _mean(preds, target, valid, alignment, "rpe_translation")


def relative_rotation_error(
    preds: Float[Tensor, "B N 4 4"],
    target: Float[Tensor, "B N 4 4"],
    valid: Bool[Tensor, "B N"] | None = None,
    alignment: TrajectoryAlignment = "sim3",
) -> Float[Tensor, ""]:
    """Mean over trajectories of the RPE in rotation, in degrees. Lower is better."""
    return _mean(preds, target, valid, alignment, "rpe_rotation")


class _TrajectoryMetric(SampleMean):
    """Mean over trajectories of an error after alignment; see the module for what is left out.

    Args:
        alignment: See `TrajectoryAlignment`.
        options: For torchmetrics.
    """

    higher_is_better = False
    error: Literal["ate", "rpe_translation", "rpe_rotation"]
    skipped: Tensor
    """Trajectories without a usable reference, of this process."""
    skipped_samples = 0
    """The same over all processes, after `compute`."""

    def __init__(self, alignment: TrajectoryAlignment = "sim3", **options: Any) -> None:
        super().__init__(**options)
        self.alignment = alignment
        self.add_state("skipped", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        preds: Float[Tensor, "B N 4 4"],
        target: Float[Tensor, "B N 4 4"],
        valid: Bool[Tensor, "B N"] | None = None,
    ) -> None:
        """Add trajectories; arguments as in `score_trajectory`."""
        values = _errors(preds, target, valid, self.alignment, self.error)
        self.add(values)
        self.skipped = self.skipped + len(preds) - len(values)

    def compute(self) -> Float[Tensor, ""]:
        """The mean so far."""
        self.skipped_samples = int(self.skipped)
        return super().compute()


class AbsoluteTrajectoryError(_TrajectoryMetric):
    """Mean over trajectories of the ATE, in the reference's unit, lower is better; see `absolute_trajectory_error`."""

    error = "ate"


class RelativeTranslationError(_TrajectoryMetric):
    """Mean over trajectories of the RPE in translation, in the reference's unit, lower is better."""

    error = "rpe_translation"


class RelativeRotationError(_TrajectoryMetric):
    """Mean over trajectories of the RPE in rotation, in degrees, lower is better."""

    error = "rpe_rotation"


def _errors(
    preds: Tensor, target: Tensor, valid: Tensor | None, alignment: TrajectoryAlignment, name: str
) -> Float[Tensor, " K"]:
    """The named error of every trajectory that has a reference."""
    masks = [None] * len(preds) if valid is None else list(valid)
    found = [trajectory_errors(*each, alignment) for each in zip(preds, target, masks, strict=True)]
    values = [getattr(errors, name) for errors in found if errors is not None]
    return torch.stack(values) if values else preds.new_zeros(0, dtype=torch.float64)


def _mean(
    preds: Tensor, target: Tensor, valid: Tensor | None, alignment: TrajectoryAlignment, name: str
) -> Float[Tensor, ""]:
    return _errors(preds, target, valid, alignment, name).mean().float()


def _moves(poses: Tensor, least: float) -> bool:
    centres = poses[:, :3, 3]
    return bool((centres - centres[:1]).abs().max() > least)


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()
