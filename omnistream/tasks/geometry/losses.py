"""The geometry losses (paper Eq. 6 to 8).

Every mean is a local sum over `average_count(local count)`, so that N processes together compute the mean over all
their elements. Errors are limited to `error_limit`; NaN predictions stay NaN, so that they are detected.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from omnistream.distributed import all_reduce, average_count
from omnistream.tasks.geometry.prediction import GeometryPrediction
from omnistream.tasks.geometry.targets import GeometryTargets

Anchor = Literal["right_bottom", "left_top"]


@dataclass(frozen=True, kw_only=True)
class GeometryLossConfig:
    """Weights and choices of the geometry losses; the defaults are Eq. 6 to 8 with means in place of sums."""

    depth_weight: float = 1.0
    """Weight of the depth term."""
    ray_weight: float = 1.0
    """Weight of the ray term."""
    points_weight: float = 1.0
    """Weight of the point term."""
    camera_weight: float = 1.0
    """Weight of the camera term."""
    alpha: float = 0.2
    """Reward of log confidence. The paper does not say; 0.2 in VGGT, CUT3R and STream3R."""
    gradient_weight: float = 1.0
    """Weight of the depth gradient inside the depth term; 0 for sparse or noisy depth."""
    gradient_anchor: Anchor = "right_bottom"
    """Which pixel of a pair provides the confidence: the second (VGGT) or the first (Eq. 7 read literally)."""
    grad_scales: int = 1
    """Scales of the gradient, averaged, with pixel strides 1, 2, 4, ...; VGGT uses 4."""
    frame_reduction: Literal["mean", "sum"] = "mean"
    """`sum` multiplies all terms by the number of frames, as the printed sums over t do."""
    camera_weights: Literal["literal", "vggt"] = "literal"
    """Eq. 8 (sum of nine errors), or VGGT's 5 x (translation + rotation + field of view / 2) of group means."""
    sign_invariant_quaternion: bool = False
    """Compare with the nearer of q and -q; matters only for rotations near 180 degrees from the first frame."""
    ray_confidence: bool = False
    """Weigh ray errors by their confidence and reward its logarithm, as for depth; Eq. 8 does not."""
    valid_quantile: float | None = None
    """Leave out pixels whose confidence-weighted depth error is at or above this quantile (VGGT: 0.98)."""
    error_limit: float = 100.0
    """Largest error of a single number."""
    min_valid_pixels: int = 100
    """Depth and points are not trained on a batch with fewer valid pixels than this over all processes."""

    def __post_init__(self) -> None:
        weights = (self.depth_weight, self.ray_weight, self.points_weight, self.camera_weight, self.gradient_weight)
        if min(*weights, self.alpha) < 0:
            raise ValueError(f"loss weights and alpha must not be negative, got {weights} and {self.alpha}")
        if self.grad_scales < 1 or self.error_limit <= 0 or self.min_valid_pixels < 0:
            raise ValueError(
                "grad_scales and error_limit must be positive and min_valid_pixels not negative, "
                f"got {self.grad_scales}, {self.error_limit}, {self.min_valid_pixels}"
            )
        if self.valid_quantile is not None and not 0 < self.valid_quantile < 1:
            raise ValueError(f"valid_quantile must be in (0, 1), or None for no filter, got {self.valid_quantile}")
        for name, value, choices in (
            ("gradient_anchor", self.gradient_anchor, ("right_bottom", "left_top")),
            ("frame_reduction", self.frame_reduction, ("mean", "sum")),
            ("camera_weights", self.camera_weights, ("literal", "vggt")),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {value!r}")


def _pairs(x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Horizontal and vertical neighbours of a map: (left, right) and (top, bottom)."""
    yield x[..., :, :-1], x[..., :, 1:]
    yield x[..., :-1, :], x[..., 1:, :]


def depth_gradient(
    error: Float[Tensor, "*B H W"],
    valid: Bool[Tensor, "*B H W"],
    confidence: Float[Tensor, "*B H W"] | None = None,
    *,
    scales: int = 1,
    anchor: Anchor = "right_bottom",
    limit: float = 100.0,
) -> Float[Tensor, ""]:
    """Differences of a signed depth error between neighbours, summed over x and y, per valid pixel.

    Args:
        error: Prediction minus truth.
        valid: Only pairs of two valid pixels count.
        confidence: Weights of the pixels; None for 1.
        scales: Scale k uses every 2^k-th row and column; the scales are averaged.
        anchor: Which pixel of a pair provides the confidence.
        limit: Largest difference.

    Source: facebookresearch/vggt: training/loss.py, without its reward of confidence per pair.
    """
    total = error.new_zeros(())
    weights = torch.ones_like(error) if confidence is None else confidence
    for scale in range(scales):
        e, m, c = (x[..., :: 2**scale, :: 2**scale] for x in (error, valid, weights))
        count = average_count(m.sum())
        for (e0, e1), (m0, m1), (c0, c1) in zip(_pairs(e), _pairs(m), _pairs(c), strict=True):
            difference = (e1 - e0).abs().clamp(max=limit)
            total = total + ((m0 & m1) * (c1 if anchor == "right_bottom" else c0) * difference).sum() / count
    return total / scales


def below_quantile(
    values: Float[Tensor, "*B"], valid: Bool[Tensor, "*B"], quantile: float, least: int = 1000
) -> Bool[Tensor, "*B"]:
    """Valid places whose value is below the quantile of all valid ones; all of them if `least` or fewer would remain.

    Source: facebookresearch/vggt: training/loss.py, the option `valid_range`.
    """
    ordered = values.detach().masked_fill(~valid, float("inf")).flatten().sort().values
    place = ((valid.sum() - 1).clamp_min(0).double() * quantile).round().long()
    kept = valid & (values < ordered.index_select(0, place.view(1)))
    return torch.where(kept.sum() > least, kept, valid)


def depth_loss(
    depth: Float[Tensor, "*B H W"],
    confidence: Float[Tensor, "*B H W"],
    target: Float[Tensor, "*B H W"],
    valid: Bool[Tensor, "*B H W"],
    config: GeometryLossConfig,
) -> Float[Tensor, ""]:
    """Confidence-weighted L1 of depth and of its gradient, less alpha log confidence, per valid pixel (Eq. 7).

    Negative where the errors are small: with the best confidence alpha / E for an error E it is alpha (1 + ln(E /
    alpha)).
    """
    error = depth - target
    pointwise = confidence * error.abs().clamp(max=config.error_limit) - config.alpha * confidence.log()
    counted = valid
    if config.valid_quantile is not None:
        pointwise = pointwise.clamp(max=config.error_limit)
        counted = below_quantile(pointwise, valid, config.valid_quantile)
    regression = (counted * pointwise).sum() / average_count(counted.sum())
    gradient = depth_gradient(
        error,
        valid,
        confidence,
        scales=config.grad_scales,
        anchor=config.gradient_anchor,
        limit=config.error_limit,
    )
    return regression + config.gradient_weight * gradient


def masked_l1(
    prediction: Float[Tensor, "*B C"], target: Float[Tensor, "*B C"], mask: Bool[Tensor, "*B"], limit: float = 100.0
) -> Float[Tensor, ""]:
    """Sum of the absolute errors over the channels, averaged where `mask` holds (Eq. 8)."""
    error = (prediction - target).abs().clamp(max=limit).sum(-1)
    return (mask * error).sum() / average_count(mask.sum())


def ray_loss(
    rays: Float[Tensor, "B T h w 6"],
    confidence: Float[Tensor, "B T h w"],
    target: Float[Tensor, "B T h w 6"],
    frame_valid: Bool[Tensor, "B T"],
    config: GeometryLossConfig,
) -> Float[Tensor, ""]:
    """L1 over the six numbers of a ray, averaged over all pixels of the frames with known cameras (Eq. 8)."""
    mask = frame_valid[..., None, None].expand(rays.shape[:-1])
    if not config.ray_confidence:
        return masked_l1(rays, target, mask, config.error_limit)
    error = (rays - target).abs().clamp(max=config.error_limit).sum(-1)
    return (mask * (confidence * error - config.alpha * confidence.log())).sum() / average_count(mask.sum())


def camera_loss(
    pose: Float[Tensor, "B T 9"],
    target: Float[Tensor, "B T 9"],
    frame_valid: Bool[Tensor, "B T"],
    config: GeometryLossConfig,
) -> Float[Tensor, ""]:
    """L1 of translation, quaternion and field of view, averaged over frames with known cameras (Eq. 8)."""
    error = (pose - target).abs().clamp(max=config.error_limit)
    translation, rotation, fov = (part.sum(-1) for part in error.split([3, 4, 2], -1))
    if config.sign_invariant_quaternion:
        opposite = (pose[..., 3:7] + target[..., 3:7]).abs().clamp(max=config.error_limit).sum(-1)
        rotation = torch.minimum(rotation, opposite)
    if config.camera_weights == "vggt":
        per_frame = 5 * (translation / 3 + rotation / 4 + 0.5 * fov / 2)
    else:
        per_frame = translation + rotation + fov
    return (frame_valid * per_frame).sum() / average_count(frame_valid.sum())


@torch.no_grad()
def _diagnostics(
    prediction: GeometryPrediction, targets: GeometryTargets, config: GeometryLossConfig
) -> dict[str, Tensor]:
    """Plain depth error, plain gradient error, and mean confidence over valid pixels."""
    error, valid = prediction.depth - targets.depth, targets.valid
    count = average_count(valid.sum())
    return {
        "depth_l1": (valid * error.abs()).sum() / count,
        "depth_gradient": depth_gradient(error, valid, scales=config.grad_scales, limit=config.error_limit),
        "confidence": (valid * prediction.depth_confidence).sum() / count,
    }


def geometry_loss(
    prediction: GeometryPrediction, targets: GeometryTargets, config: GeometryLossConfig
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The weighted sum of the four terms with gradient (Eq. 6), and all terms, unweighted and without gradient.

    `depth`, `ray`, `points`, `camera` are the terms of the loss; `depth_l1` and `depth_gradient` are plain errors
    without confidence; `confidence` is its mean.
    """
    enough = all_reduce(targets.valid.sum().float()) >= config.min_valid_pixels
    frames = prediction.depth.shape[1] if config.frame_reduction == "sum" else 1
    depth = depth_loss(prediction.depth, prediction.depth_confidence, targets.depth, targets.valid, config)
    points = masked_l1(prediction.points, targets.points, targets.valid, config.error_limit)
    # Multiplying by 0 keeps every parameter in the graph, which DDP needs.
    terms = {
        "depth": frames * enough * depth,
        "ray": frames * ray_loss(prediction.rays, prediction.ray_confidence, targets.rays, targets.ray_valid, config),
        "points": frames * enough * points,
        "camera": frames * camera_loss(prediction.pose, targets.pose, targets.pose_valid, config),
    }
    total = (
        config.depth_weight * terms["depth"]
        + config.ray_weight * terms["ray"]
        + config.points_weight * terms["points"]
        + config.camera_weight * terms["camera"]
    )
    logged = {name: value.detach() for name, value in terms.items()}
    return total, logged | _diagnostics(prediction, targets, config)
