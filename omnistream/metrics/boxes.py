"""How well predicted boxes fit the true ones, without regard to order."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchvision.ops import box_iou

Box = tuple[float, float, float, float]


def matched_iou(preds: Sequence[Box], target: Sequence[Box]) -> float:
    """Mean IoU of boxes matched one to one, best pair first; a missing or a superfluous box counts 0.

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


class BoxIoU(Metric):
    """Mean over samples of `matched_iou`; NaN before any sample. In [0, 1], higher is better."""

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Sequence[Sequence[Box]], target: Sequence[Sequence[Box]]) -> None:
        """Add samples: for each, the predicted and the true boxes."""
        for predicted, true in zip(preds, target, strict=True):
            self.total += matched_iou(predicted, true)
            self.count += 1

    def compute(self) -> Tensor:
        """The mean so far."""
        return (self.total / self.count).float()
