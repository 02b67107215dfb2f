"""The published schedule of depth probes: learning rate and beta1 of AdamW."""

import math
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

FINAL_FACTOR = 1 / 25_000


def lr_factor(step: int, total: int, warmup: int) -> float:
    """Factor on the learning rate: a cosine from 1, reached by a linear warm-up.

    The cosine runs from step 0, so with a third of the steps as warm-up the factor is never above 0.751.

    Args:
        step: Steps taken.
        total: Of the run.
        warmup: Of them, for warming up.

    Source: facebookresearch/dinov3 dinov3/eval/depth/schedulers.py.
    """
    if step < warmup:
        return 0.001 + 0.5 * (1 + math.cos(math.pi * step / total)) * step / warmup
    return _cosine(1.0, FINAL_FACTOR, (step + 1) / total)


def beta1(step: int, total: int, warmup: int) -> float:
    """Beta1 of AdamW: 0 in the warm-up, then a cosine from 0.85 to 0.95.

    Arguments and source: those of `lr_factor`.
    """
    return 0.0 if step < warmup else _cosine(0.85, 0.95, (step - warmup) / max(total - warmup, 1))


def _cosine(first: float, last: float, done: float) -> float:
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * min(done, 1.0)))


class DepthSchedule(LambdaLR):
    """Sets the learning rate of every group by `lr_factor`, and beta1 by `beta1`.

    Args:
        optimizer: AdamW.
        total: Steps of the run.
        warmup: Of them, for warming up.
        schedule_beta1: Leave beta1 as it is if false.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, total: int, warmup: int, schedule_beta1: bool = True) -> None:
        self.total, self.warmup, self.schedule_beta1 = total, warmup, schedule_beta1
        super().__init__(optimizer, lambda step: lr_factor(step, total, warmup))

    def get_lr(self) -> list[Any]:
        """Learning rates of the groups; sets their beta1 as well."""
        if self.schedule_beta1:
            for group in self.optimizer.param_groups:
                group["betas"] = (beta1(self.last_epoch, self.total, self.warmup), group["betas"][1])
        return super().get_lr()
