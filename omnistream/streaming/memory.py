"""How much memory this process holds."""

import resource
import sys
from pathlib import Path

import torch

_STATM = Path("/proc/self/statm")


def peak_rss() -> int:
    """Most resident bytes this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rss() -> int:
    """Resident bytes of this process; the peak where the system does not tell."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    return peak_rss()


def cuda_bytes(device: torch.device) -> int | None:
    """Bytes of tensors on a CUDA device; None for other devices."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None


def cuda_peak(device: torch.device) -> int | None:
    """Most bytes of tensors there have been on a CUDA device; None for other devices."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
