"""Metrics as `torchmetrics.Metric` classes, each with a function that gives the same value for one batch."""

from omnistream.metrics.boxes import BoxIoU, matched_iou, mean_matched_iou
from omnistream.metrics.classification import TopKAccuracy, top_k_accuracy
from omnistream.metrics.depth import (
    AbsRel,
    ConstantAbsRel,
    DeltaAccuracy,
    DepthRMSE,
    abs_rel,
    align_depth,
    constant_abs_rel,
    delta_accuracy,
    depth_rmse,
    relative_depth_error,
)
from omnistream.metrics.mean import SampleMean
from omnistream.metrics.text import (
    ExactMatch,
    TokenLoss,
    UnigramEntropy,
    WordAccuracy,
    exact_match,
    token_loss,
    unigram_entropy,
    word_accuracy,
)
from omnistream.metrics.trajectory import (
    AbsoluteTrajectoryError,
    RelativeRotationError,
    RelativeTranslationError,
    TrajectoryErrors,
    absolute_trajectory_error,
    align_trajectory,
    relative_rotation_error,
    relative_translation_error,
    trajectory_errors,
)

__all__ = [
    "AbsRel",
    "AbsoluteTrajectoryError",
    "BoxIoU",
    "ConstantAbsRel",
    "DeltaAccuracy",
    "DepthRMSE",
    "ExactMatch",
    "RelativeRotationError",
    "RelativeTranslationError",
    "SampleMean",
    "TokenLoss",
    "TopKAccuracy",
    "TrajectoryErrors",
    "UnigramEntropy",
    "WordAccuracy",
    "abs_rel",
    "absolute_trajectory_error",
    "align_depth",
    "align_trajectory",
    "constant_abs_rel",
    "delta_accuracy",
    "depth_rmse",
    "exact_match",
    "matched_iou",
    "mean_matched_iou",
    "relative_depth_error",
    "relative_rotation_error",
    "relative_translation_error",
    "token_loss",
    "top_k_accuracy",
    "trajectory_errors",
    "unigram_entropy",
    "word_accuracy",
]
