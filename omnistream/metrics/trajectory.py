"""Errors of camera trajectories after a Sim(3) alignment: ATE and RPE, as evo and CUT3R report them (paper Table 4).

A reference with fewer than three known poses, or one that does not move, cannot be aligned to: it is left out and
counted in `skipped`. A prediction that does not move is put on the mean of the reference (the limit of a vanishing
scale), and one with a value that is not finite makes the result NaN: a failure of the model never improves a mean.

Source: MichaelGrupp/evo (`ape`, `rpe` with `align=True, correct_scale=True, delta=1`, RMSE); CUT3R/CUT3R eval/relpose.
Unlike evo, a straight path is evaluated: none of the three errors depends on the turn about it that is left open.
"""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from omnistream.cameras import Similarity, align_similarity, apply_similarity_to_poses, invert_pose, rotation_angle
from omnistream.metrics.mean import SampleMean

MIN_POSES = 3
MOTION = 1e-9
"""Largest coordinate difference, in the reference's unit, of a trajectory that does not move."""


class TrajectoryErrors(NamedTuple):
    """Errors of one trajectory, float64 scalars."""

    ate: Tensor
    """Root mean square distance of the aligned camera centres, in the reference's unit (absolute trajectory error)."""
    rpe_translation: Tensor
    """Root mean square translation error between consecutive frames, in the reference's unit."""
    rpe_rotation: Tensor
    """Root mean square rotation error between consecutive frames, in degrees."""


def trajectory_similarity(preds: Float[Tensor, "N 4 4"], target: Float[Tensor, "N 4 4"]) -> Similarity:
    """The similarity, in float64, that brings the predicted camera centres closest to those of the reference.

    Its scale is 0, which puts all centres on the mean of the reference, if the prediction does not move.
    """
    similarity = align_similarity(preds[:, :3, 3].double(), target[:, :3, 3].double())
    if _moves(preds):
        return similarity
    centre = target[:, :3, 3].double().mean(0)
    return Similarity(torch.zeros_like(similarity.scale), similarity.rotation, centre)


def position_rmse(preds: Float[Tensor, "N 4 4"], target: Float[Tensor, "N 4 4"]) -> Float[Tensor, ""]:
    """Root mean square distance of the camera centres, without any alignment."""
    return _rms((preds[:, :3, 3] - target[:, :3, 3]).norm(dim=-1))


def trajectory_errors(
    preds: Float[Tensor, "N 4 4"], target: Float[Tensor, "N 4 4"], valid: Bool[Tensor, " N"] | None = None
) -> TrajectoryErrors | None:
    """ATE and RPE of one trajectory after Sim(3) alignment.

    Args:
        preds: Camera-to-world poses, OpenCV axes, in any frame and scale.
        target: Reference poses.
        valid: Frames whose reference pose is known; one with a value that is not finite never is. Frames that follow
            each other among those make the pairs of the RPE.

    Returns:
        NaN errors if a prediction is not finite; None if there is no reference to compare with.
    """
    known = target.flatten(1).isfinite().all(1) & (True if valid is None else valid)
    preds, target = preds[known].double(), target[known].double()
    if len(target) < MIN_POSES or not _moves(target):
        return None
    if not preds.isfinite().all():
        return TrajectoryErrors(*torch.full((3,), torch.nan, dtype=torch.float64, device=preds.device))
    aligned = apply_similarity_to_poses(trajectory_similarity(preds, target), preds)
    steps = [invert_pose(poses[:-1]) @ poses[1:] for poses in (target, aligned)]
    wrong = invert_pose(steps[0]) @ steps[1]
    return TrajectoryErrors(
        ate=position_rmse(aligned, target),
        rpe_translation=_rms(wrong[:, :3, 3].norm(dim=-1)),
        rpe_rotation=_rms(rotation_angle(steps[0][:, :3, :3], steps[1][:, :3, :3])),
    )


def absolute_trajectory_error(
    preds: Float[Tensor, "B N 4 4"], target: Float[Tensor, "B N 4 4"], valid: Bool[Tensor, "B N"] | None = None
) -> Float[Tensor, ""]:
    """Mean over trajectories of the ATE after Sim(3) alignment, in the reference's unit. Lower is better."""
    return _mean(preds, target, valid, "ate")


def relative_translation_error(
    preds: Float[Tensor, "B N 4 4"], target: Float[Tensor, "B N 4 4"], valid: Bool[Tensor, "B N"] | None = None
) -> Float[Tensor, ""]:
    """Mean over trajectories of the RPE in translation, in the reference's unit. Lower is better."""
    return _mean(preds, target, valid, "rpe_translation")


def relative_rotation_error(
    preds: Float[Tensor, "B N 4 4"], target: Float[Tensor, "B N 4 4"], valid: Bool[Tensor, "B N"] | None = None
) -> Float[Tensor, ""]:
    """Mean over trajectories of the RPE in rotation, in degrees. Lower is better."""
    return _mean(preds, target, valid, "rpe_rotation")


class _TrajectoryMetric(SampleMean):
    """Mean over trajectories of an error after Sim(3) alignment; see the module for what is left out.

    Args:
        options: For torchmetrics.
    """

    higher_is_better = False
    error: Literal["ate", "rpe_translation", "rpe_rotation"]
    skipped: Tensor
    """Trajectories without a usable reference, of this process."""
    skipped_samples = 0
    """The same over all processes, after `compute`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("skipped", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        preds: Float[Tensor, "B N 4 4"],
        target: Float[Tensor, "B N 4 4"],
        valid: Bool[Tensor, "B N"] | None = None,
    ) -> None:
        """Add trajectories; arguments as in `trajectory_errors`."""
        values = _errors(preds, target, valid, self.error)
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


def _errors(preds: Tensor, target: Tensor, valid: Tensor | None, name: str) -> Float[Tensor, " K"]:
    """The named error of every trajectory that has a reference."""
    masks = [None] * len(preds) if valid is None else list(valid)
    found = [trajectory_errors(*each) for each in zip(preds, target, masks, strict=True)]
    values = [getattr(errors, name) for errors in found if errors is not None]
    return torch.stack(values) if values else preds.new_zeros(0, dtype=torch.float64)


def _mean(preds: Tensor, target: Tensor, valid: Tensor | None, name: str) -> Tensor:
    return _errors(preds, target, valid, name).mean().float()


def _moves(poses: Tensor) -> bool:
    centres = poses[:, :3, 3]
    return bool((centres - centres[:1]).abs().max() > MOTION)


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()
