"""The facts of a run for its report: model, length, machine, versions, command."""

import os
import platform
import shlex
import sys
from pathlib import Path

import lightning
import torch
from lightning import LightningModule, Trainer
from torch import nn

from omnistream.version import __version__


def run_info(trainer: Trainer, module: LightningModule, seconds: float) -> dict[str, str]:
    """Names and values in the order they are shown.

    Args:
        trainer: After fitting.
        module: The fitted module; its `backbone`, where it has one, is counted apart.
        seconds: How long fitting took.
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
        "versions": (
            f"omnistream {__version__}, torch {torch.__version__}, lightning {lightning.__version__}, "
            f"Python {platform.python_version()}"
        ),
        "command": command(),
    }
    return info


def command() -> str:
    """The command line of this process, as a user would type it again."""
    program = Path(sys.argv[0])
    # `python -m omnistream` has the path of the package's __main__.py as its first argument.
    name = program.parent.name if program.name == "__main__.py" else program.name
    return shlex.join([name, *sys.argv[1:]])


def machine() -> str:
    """Processor, its usable cores, accelerators and system of this machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():  # platform.processor() is empty or only "x86_64" on Linux
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    accelerators = f", {len(devices)} x {devices[0]}" if devices else ""
    return f"{model}, {cores} cores{accelerators}, {platform.system()} {platform.release()}"


def _count(module: nn.Module, *, trainable: bool = False) -> str:
    count = sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
    return f"{count / 1e6:,.2f} M" if count >= 10_000 else f"{count:,}"
