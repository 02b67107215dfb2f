"""Checks of the rows to reset and of saved states."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def chosen_rows(
    rows: Iterable[int] | Int[Tensor, " R"] | Bool[Tensor, " B"] | None, num_streams: int
) -> Int[Tensor, " R"]:
    """Indices of the streams to reset, int64 on the CPU.

    Args:
        rows: Numbers of streams, a mask that is True for them, or None for all.
        num_streams: B.

    Raises:
        ValueError: If there is no such stream, or the mask is not one value per stream.
    """
    if rows is None:
        return torch.arange(num_streams)
    chosen = torch.as_tensor(rows if isinstance(rows, Tensor) else list(rows)).cpu()
    if chosen.dtype == torch.bool:
        if chosen.shape != (num_streams,):
            raise ValueError(f"a mask of rows must have one value per stream ({num_streams}), got {chosen.tolist()}")
        return chosen.nonzero()[:, 0]
    if bad := [row for row in chosen.tolist() if row not in range(num_streams)]:
        raise ValueError(f"cannot reset rows {bad}; the session has streams 0 to {num_streams - 1}")
    return chosen.long()


def require_keys(part: Any, keys: Sequence[str], what: str) -> None:
    """Check that a part of a saved state is a dictionary with these keys.

    Args:
        part: The part of the state.
        keys: Keys that must be there.
        what: Name of the part, for the message.

    Raises:
        ValueError: If it is no dictionary, or a key is missing.
    """
    if not isinstance(part, Mapping):
        raise ValueError(f"not the state of a session: {what} should be a dictionary, got {type(part).__name__}")
    if missing := sorted(set(keys) - part.keys()):
        raise ValueError(f"not the state of a session: {what} lacks {', '.join(missing)}")


def described(value: Any) -> str:
    """Shape and dtype of a tensor, or the type of what should have been one."""
    return f"shape {tuple(value.shape)} ({value.dtype})" if isinstance(value, Tensor) else type(value).__name__


def saved_dtype(name: Any) -> torch.dtype:
    """The floating-point dtype of a name in a saved state.

    Raises:
        ValueError: If there is none of this name.
    """
    dtype = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"not the state of a session: dtype should name a floating-point dtype, got {name!r}")
    return dtype


def saved_counts(counts: Any, num_streams: int) -> Int[Tensor, " B"]:
    """A copy of the frames seen by each stream, on the CPU.

    Raises:
        ValueError: If it is not one number of frames per stream.
    """
    if not isinstance(counts, Tensor) or counts.dtype != torch.int64 or counts.shape != (num_streams,):
        raise ValueError(
            "not the state of a session: frame_indices should be int64 with one value per stream "
            f"({num_streams}), got {described(counts)}"
        )
    if bool((counts < 0).any()):
        raise ValueError(f"not the state of a session: frame_indices should not be negative, got {counts.tolist()}")
    return counts.to("cpu", copy=True)
