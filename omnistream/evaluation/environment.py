"""Where a result comes from: machine, versions, command, and a fingerprint of the weights."""

import hashlib
import os
import platform
import shlex
import sys
from pathlib import Path

import lightning
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from omnistream.version import __version__


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


def versions() -> dict[str, str]:
    """Versions of this library and of those that affect a result."""
    return {
        "omnistream": __version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
    }


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def weights_sha256(module: nn.Module) -> str | None:
    """SHA-256 over names, types, shapes and values of all weights; None if they are sharded over processes."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, DTensor):
            return None
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
