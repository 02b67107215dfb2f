"""Facts about a run for its report: model, length, machine, versions, command."""

from lightning import LightningModule, Trainer
from torch import nn

from omnistream.evaluation.environment import command, machine, versions


def run_info(trainer: Trainer, module: LightningModule, seconds: float) -> dict[str, str]:
    """Names and values in the order they are shown.

    Args:
        trainer: After fitting.
        module: The fitted module; its `backbone`, if it has one, is counted separately.
        seconds: Duration of fitting.
    """
    backbone = getattr(module, "backbone", None)
    info = {}
    if isinstance(backbone, nn.Module):
        variant = getattr(backbone, "variant", None)
        name = getattr(variant, "name", variant) or type(backbone).__name__
        info["backbone"] = f"{name}, {_count(backbone)} parameters"
    info |= {
        "all parameters": f"{_count(module)}, of which {_count(module, trainable=True)} are trained",
        "optimiser steps": f"{trainer.global_step:,}",
        "time": f"{int(seconds) // 60} min {int(seconds) % 60} s",
        "machine": machine(),
        "processes": f"{trainer.world_size}, {type(trainer.strategy).__name__}, precision {trainer.precision}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "command": command(),
    }
    return info


def _count(module: nn.Module, *, trainable: bool = False) -> str:
    count = sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
    return f"{count / 1e6:,.2f} M" if count >= 10_000 else f"{count:,}"
