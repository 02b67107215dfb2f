"""Memory use of this process."""

import resource
import sys
from pathlib import Path

import torch

_STATM = Path("/proc/self/statm")


def peak_rss() -> int:
    """Peak resident memory of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rss() -> int:
    """Resident memory of this process in bytes; the peak if the system does not report it."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    return peak_rss()


def cuda_bytes(device: torch.device) -> int | None:
    """Memory of tensors on a CUDA device in bytes; None for other devices."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None


def cuda_peak(device: torch.device) -> int | None:
    """Peak memory of tensors on a CUDA device in bytes; None for other devices."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
