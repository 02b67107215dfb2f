"""Overlap of predicted and true boxes, regardless of order."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import box_iou

from omnistream.boxes import Box
from omnistream.metrics.mean import SampleMean


def matched_iou(preds: Sequence[Box], target: Sequence[Box]) -> float:
    """Mean IoU of one sample's boxes matched one to one, best pair first; a missing or superfluous box counts as 0.

    Args:
        preds: Boxes x1, y1, x2, y2.
        target: The true boxes, in the same unit.

    Returns:
        A value in [0, 1]; 1 if both are empty.
    """
    if not preds and not target:
        return 1.0
    if not preds or not target:
        return 0.0
    iou = box_iou(torch.tensor(preds, dtype=torch.float64), torch.tensor(target, dtype=torch.float64)).nan_to_num(0.0)
    total = 0.0
    for _ in range(min(len(preds), len(target))):
        best = int(iou.argmax())
        row, column = divmod(best, iou.shape[1])
        total += max(float(iou[row, column]), 0.0)
        iou[row], iou[:, column] = -1.0, -1.0
    return total / max(len(preds), len(target))


def _ious(preds: Sequence[Sequence[Box]], target: Sequence[Sequence[Box]]) -> Tensor:
    pairs = zip(preds, target, strict=True)
    return torch.tensor([matched_iou(predicted, true) for predicted, true in pairs])


def mean_matched_iou(preds: Sequence[Sequence[Box]], target: Sequence[Sequence[Box]]) -> Float[Tensor, ""]:
    """Mean over samples of `matched_iou`. In [0, 1]."""
    return _ious(preds, target).mean()


class BoxIoU(SampleMean):
    """Mean over samples of `matched_iou`. In [0, 1], higher is better; see `mean_matched_iou`."""

    higher_is_better = True

    def update(self, preds: Sequence[Sequence[Box]], target: Sequence[Sequence[Box]]) -> None:
        """Add samples: for each, the predicted and the true boxes."""
        self.add(_ious(preds, target))
