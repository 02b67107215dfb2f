"""Semantic segmentation: mean IoU and accuracies from totals over the whole data set.

Totals are those of DINOv3 (`dinov3/eval/segmentation/metrics.py`) and mmsegmentation
(`mmseg/evaluation/metrics/iou_metric.py`): intersection, predicted and labelled pixels of every class, over all
images. A mean of the IoU of single images is another number.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torchmetrics import Metric

IGNORE_INDEX = 255
"""Label of pixels that do not count."""


class ClassTotals(NamedTuple):
    """Pixels of every class."""

    intersection: Int64[Tensor, " C"]
    """Predicted and labelled as this class."""
    predicted: Int64[Tensor, " C"]
    labelled: Int64[Tensor, " C"]

    def iou(self) -> Float[Tensor, " C"]:
        """Intersection over union; NaN for a class that is neither predicted nor labelled anywhere."""
        union = self.predicted + self.labelled - self.intersection
        return self.intersection.double() / union

    def recall(self) -> Float[Tensor, " C"]:
        """Share of a class's pixels that are predicted as it; NaN for a class without any."""
        return self.intersection.double() / self.labelled

    def accuracy(self) -> Float[Tensor, ""]:
        """Share of all pixels."""
        return self.intersection.sum().double() / self.labelled.sum()


def predicted_classes(scores: Float[Tensor, "B C H W"]) -> Int64[Tensor, "B H W"]:
    """The class of the highest score at every pixel; -1, which is never right, where a score is NaN."""
    return torch.where(scores.isnan().any(1), -1, scores.argmax(1))


def class_totals(
    preds: Shaped[Tensor, " B *S"], target: Int64[Tensor, "B H W"], num_classes: int, ignore_index: int = IGNORE_INDEX
) -> ClassTotals:
    """Pixels of every class in some images.

    Args:
        preds: Classes [B, H, W], -1 for none, or scores [B, C, H, W] of which the highest counts.
        target: True classes; pixels labelled `ignore_index` do not count, whatever is predicted there.
        num_classes: C.
        ignore_index: Label of pixels that do not count.

    Raises:
        ValueError: If shapes differ, or a class is out of range.
    """
    classes = predicted_classes(preds) if preds.ndim == target.ndim + 1 else preds
    if classes.shape != target.shape:
        raise ValueError(
            f"predictions {tuple(preds.shape)} and labels {tuple(target.shape)} are not of the same pixels"
        )
    counted = target != ignore_index
    classes, labels = classes[counted].long(), target[counted]
    for name, values, lowest in (("predicted", classes, -1), ("labelled", labels, 0)):
        if len(values) and not lowest <= int(values.min()) <= int(values.max()) < num_classes:
            found = int(values.min()), int(values.max())
            raise ValueError(f"{name} classes are from {found[0]} to {found[1]}, outside [0, {num_classes})")

    def count(values: Tensor) -> Tensor:
        return torch.bincount(values, minlength=num_classes)

    return ClassTotals(count(labels[classes == labels]), count(classes[classes >= 0]), count(labels))


def class_iou(
    preds: Shaped[Tensor, " B *S"], target: Int64[Tensor, "B H W"], num_classes: int, ignore_index: int = IGNORE_INDEX
) -> Float[Tensor, " C"]:
    """IoU of every class over all images; NaN for absent classes. See `class_totals` for the arguments."""
    return class_totals(preds, target, num_classes, ignore_index).iou().float()


def mean_iou(
    preds: Shaped[Tensor, " B *S"], target: Int64[Tensor, "B H W"], num_classes: int, ignore_index: int = IGNORE_INDEX
) -> Float[Tensor, ""]:
    """Mean IoU over the classes that occur (mIoU); in [0, 1], higher is better.

    Classes that are neither predicted nor labelled are left out; one that is predicted, but labelled nowhere, counts 0.
    See `class_totals` for the arguments.
    """
    return class_totals(preds, target, num_classes, ignore_index).iou().nanmean().float()


def pixel_accuracy(
    preds: Shaped[Tensor, " B *S"], target: Int64[Tensor, "B H W"], num_classes: int, ignore_index: int = IGNORE_INDEX
) -> Float[Tensor, ""]:
    """Share of pixels with the right class (aAcc); in [0, 1], higher is better. See `class_totals`."""
    return class_totals(preds, target, num_classes, ignore_index).accuracy().float()


def mean_class_accuracy(
    preds: Shaped[Tensor, " B *S"], target: Int64[Tensor, "B H W"], num_classes: int, ignore_index: int = IGNORE_INDEX
) -> Float[Tensor, ""]:
    """Mean over labelled classes of the share of their pixels that is right (mAcc); in [0, 1]. See `class_totals`."""
    return class_totals(preds, target, num_classes, ignore_index).recall().nanmean().float()


def majority_mean_iou(
    preds: Shaped[Tensor, " B *S"], target: Int64[Tensor, "B H W"], num_classes: int, ignore_index: int = IGNORE_INDEX
) -> Float[Tensor, ""]:
    """Mean IoU of predicting the most frequent class everywhere: a baseline. See `class_totals` for the arguments."""
    return _majority_iou(class_totals(preds, target, num_classes, ignore_index).labelled)


def _majority_iou(labelled: Int64[Tensor, " C"]) -> Float[Tensor, ""]:
    """Of that class, IoU is its share of all pixels; of the other labelled classes it is 0."""
    return (labelled.max().double() / labelled.sum() / (labelled > 0).sum()).float()


class SegmentationMetric(Metric):
    """Base of metrics of `ClassTotals`, which are exact over batches and processes; NaN before any labelled pixel.

    Args:
        num_classes: Classes C.
        ignore_index: Label of pixels that do not count.
        options: For torchmetrics.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    intersection: Tensor
    predicted: Tensor
    labelled: Tensor

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX, **options: Any) -> None:
        super().__init__(**options)
        self.num_classes, self.ignore_index = num_classes, ignore_index
        for name in ClassTotals._fields:
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Shaped[Tensor, " B *S"], target: Int64[Tensor, "B H W"]) -> None:
        """Add images; see `class_totals`."""
        new = class_totals(preds, target, self.num_classes, self.ignore_index)
        for name, old in zip(ClassTotals._fields, self.totals, strict=True):
            setattr(self, name, old + getattr(new, name))

    @property
    def totals(self) -> ClassTotals:
        """Pixels so far; inside `compute`, those of all processes."""
        return ClassTotals(self.intersection, self.predicted, self.labelled)


class MeanIoU(SegmentationMetric):
    """Mean IoU over the classes that occur in the data set (mIoU); see `mean_iou`.

    After `compute`, `class_iou` holds the IoU of every class, NaN for absent ones, and `class_pixels` how many pixels
    are labelled as it.
    """

    class_iou: Tensor | None = None
    class_pixels: Tensor | None = None

    def compute(self) -> Float[Tensor, ""]:
        """The value so far."""
        self.class_iou, self.class_pixels = self.totals.iou().float(), self.totals.labelled
        return self.totals.iou().nanmean().float()


class PixelAccuracy(SegmentationMetric):
    """Share of pixels with the right class (aAcc); see `pixel_accuracy`."""

    def compute(self) -> Float[Tensor, ""]:
        """The value so far."""
        return self.totals.accuracy().float()


class MeanClassAccuracy(SegmentationMetric):
    """Mean accuracy of the classes that are labelled anywhere (mAcc); see `mean_class_accuracy`."""

    def compute(self) -> Float[Tensor, ""]:
        """The value so far."""
        return self.totals.recall().nanmean().float()


class MajorityMeanIoU(SegmentationMetric):
    """Mean IoU of predicting the most frequent class everywhere: a baseline; see `majority_mean_iou`."""

    def compute(self) -> Float[Tensor, ""]:
        """The value so far."""
        return _majority_iou(self.totals.labelled)
