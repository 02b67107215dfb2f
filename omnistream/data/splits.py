"""The parts of a data set: those its authors published, or a fraction held out where they published none."""

from collections.abc import Sequence
from typing import Literal

from omnistream.data.sequences import ComputedSequence

Split = Literal["train", "val", "test"]
"""A part as the authors of a data set divided it."""


class _AllBut(ComputedSequence[int]):
    """The numbers below `length` that are not position `every - 1`, `2 * every - 1`, ...; takes no memory."""

    def __init__(self, length: int, every: int) -> None:
        self._range, self._kept = range(length - length // every), every - 1

    def __len__(self) -> int:
        return len(self._range)

    def _item(self, index: int) -> int:
        position = self._range[index]
        return position + position // self._kept


def split_positions(length: int, split: Split | None, val_fraction: float) -> Sequence[int]:
    """Positions of one part of `length` items; every k-th item is held out, k = 1 / `val_fraction` rounded.

    Args:
        length: Number of items.
        split: `val` has the held-out items, `train` the others; None has all.
        val_fraction: Held-out fraction.

    Raises:
        ValueError: If the split is another, or the fraction not in (0, 0.5].
    """
    check_fraction_split(split)
    if not 0 < val_fraction <= 0.5:
        raise ValueError(f"expected a val_fraction in (0, 0.5], got {val_fraction}")
    every = round(1 / val_fraction)
    parts = {None: range(length), "val": range(every - 1, length, every), "train": _AllBut(length, every)}
    return parts[split]


def check_fraction_split(split: Split | None) -> None:
    """Refuse a split that cannot be made by holding out a fraction.

    Raises:
        ValueError: If the split is not `train`, `val` or None.
    """
    if split not in (None, "train", "val"):
        raise ValueError(
            f"expected split train or val, held out of one folder, or null for all of it; got {split!r}. For data with "
            "a folder per split, set `root` to that folder"
        )


def check_official_split(split: Split | None, official: Sequence[Split], name: str) -> None:
    """Refuse a split that the authors of a data set have not published.

    Raises:
        ValueError: If there is no such split.
    """
    if split is not None and split not in official:
        known = f"the splits are {', '.join(official)}, or null for all" if official else "it has none; use null"
        raise ValueError(f"{name} has no official split {split!r}: {known}")
