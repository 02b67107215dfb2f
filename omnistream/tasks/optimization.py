"""Optimiser and learning-rate schedule of the paper (Sec. 4.2): Adam, 1e-4, linear warm-up, cosine, no weight decay."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass
class OptimizerConfig:
    """Settings of the optimiser; defaults are the paper's where it states them."""

    lr: float = 1e-4
    """Peak learning rate."""
    backbone_lr: float | None = None
    """Peak learning rate of the backbone's parameters; None for `lr`, as in the paper."""
    warmup_steps: int = 4000
    """Steps of linear warm-up from 0 to `lr`."""
    final_lr: float = 0.0
    """`lr` at the last step of the cosine; `backbone_lr` ends at the same share of itself. The paper does not say."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's betas; torch's defaults, the paper does not say."""
    eps: float = 1e-8
    """Adam's epsilon."""
    weight_decay: float = 0.0
    """Decoupled; the paper uses none."""
    grad_clip: float | None = 1.0
    """Largest gradient norm, over all parameters; None for no clipping. Not stated in the paper; 1.0 is VGGT's."""
    accumulate_grad_batches: int = 1
    """Batches whose gradients are averaged for one step."""

    def __post_init__(self) -> None:
        rates = [self.lr] if self.backbone_lr is None else [self.lr, self.backbone_lr]
        if min(rates) <= 0 or self.warmup_steps < 0 or self.weight_decay < 0:
            raise ValueError(
                "lr and backbone_lr must be positive, warmup_steps and weight_decay not negative; "
                f"got {self.lr}, {self.backbone_lr}, {self.warmup_steps}, {self.weight_decay}"
            )
        if self.accumulate_grad_batches < 1:
            raise ValueError(f"accumulate_grad_batches must be at least 1, got {self.accumulate_grad_batches}")


def warmup_cosine(step: int, peak: float, final: float, warmup: int, total: int) -> float:
    """Value at `step`: linear from 0, reaching `peak` at index `warmup`, then a half cosine that ends at index total-1.

    Source: facebookresearch/dinov3: dinov3/train/cosine_lr_scheduler.py (the linear_warmup_cosine_decay form).
    """
    if step < warmup:
        return peak * step / warmup
    span = max(total - warmup - 1, 1)
    progress = min((step - warmup) / span, 1.0)
    return final + 0.5 * (peak - final) * (1 + math.cos(math.pi * progress))


def build_optimizer(module: nn.Module, config: OptimizerConfig, total_steps: int) -> dict[str, Any]:
    """Adam and its per-step schedule in the form Lightning's `configure_optimizers` returns.

    With `backbone_lr` the parameters of `module.backbone`, where there is one, are a second group; both groups follow
    the same schedule, a factor from 0 to 1 and down to `final_lr / lr`.

    Raises:
        ValueError: If the number of steps is not known.
    """
    if total_steps < 1:
        raise ValueError("the cosine schedule needs trainer.max_steps; set it to the number of optimiser steps")
    optimizer = torch.optim.AdamW(
        _groups(module, config), lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
    )
    warmup = min(config.warmup_steps, total_steps - 1)
    final = config.final_lr / config.lr
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, 1.0, final, warmup, total_steps)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _groups(module: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if config.backbone_lr is None:
        return [{"params": list(trained.values())}]
    slow = {name for name in trained if name.startswith("backbone.")}
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in trained.items() if name not in slow]},
        {"params": [trained[name] for name in trained if name in slow], "lr": config.backbone_lr},
    ]
    return [group for group in groups if group["params"]]
