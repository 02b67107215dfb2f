"""Which measurements of two sensors with clocks of their own belong together."""

from heapq import heapify, heappop, heappush

import numpy as np
from jaxtyping import Float64, Int64

MAX_DIFFERENCE = 0.02
"""Seconds, exclusive; the default of the TUM RGB-D benchmark's tools."""


def associate(
    first: Float64[np.ndarray, " N"], second: Float64[np.ndarray, " M"], max_difference: float = MAX_DIFFERENCE
) -> Int64[np.ndarray, "K 2"]:
    """Pairs of timestamps by the rule of the TUM RGB-D benchmark: the closest two, then the closest of the rest.

    The pair that is closest at any moment is of neighbours in time, so only neighbours wait in a queue, and a pair that
    leaves makes new neighbours: O(n log n) whatever the timestamps are. Of pairs at the same distance, the one with the
    earlier first timestamp comes first.

    Args:
        first: Seconds, in any order, all different.
        second: The same of the other sensor.
        max_difference: Seconds; pairs are closer than this.

    Returns:
        Positions in `first` and in `second`, in the order of the first timestamps; each position occurs at most once.

    Raises:
        ValueError: If a timestamp is repeated or not finite.

    Source: TUM RGB-D benchmark, associate.py (the rule; this implementation is our own).

    Example:
        >>> associate(np.array([1.0, 1.01]), np.array([1.008, 1.030])).tolist()
        [[1, 0]]
    """
    _check(first, second)
    timeline = _Timeline(first, second)
    queue = [pair for left in range(len(timeline.stamps) - 1) for pair in timeline.pair(left, left + 1, max_difference)]
    heapify(queue)
    pairs: list[tuple[int, int]] = []
    while queue:
        _, _, left, right = heappop(queue)
        if timeline.is_paired[left] or timeline.is_paired[right]:
            continue
        pairs.append((left, right) if timeline.is_first[left] else (right, left))
        for pair in timeline.pair(*timeline.remove(left, right), max_difference):
            heappush(queue, pair)
    places = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return (timeline.order[places] - [0, len(first)]).astype(np.int64)


class _Timeline:
    """The timestamps of two sensors in order of time; paired ones are taken out of a linked list."""

    def __init__(self, first: Float64[np.ndarray, " N"], second: Float64[np.ndarray, " M"]) -> None:
        stamps = np.concatenate([first, second])
        self.order = np.argsort(stamps, kind="stable")
        self.stamps: list[float] = stamps[self.order].tolist()
        self.is_first: list[bool] = (self.order < len(first)).tolist()
        self.is_paired = [False] * len(stamps)
        self._before, self._after = list(range(-1, len(stamps) - 1)), list(range(1, len(stamps) + 1))

    def pair(self, left: int, right: int, max_difference: float) -> list[tuple[float, float, int, int]]:
        """Distance, first timestamp and places of two neighbours; empty if they cannot be a pair."""
        if left < 0 or right >= len(self.stamps) or self.is_first[left] == self.is_first[right]:
            return []
        distance = self.stamps[right] - self.stamps[left]
        first = self.stamps[left if self.is_first[left] else right]
        return [(distance, first, left, right)] if distance < max_difference else []

    def remove(self, left: int, right: int) -> tuple[int, int]:
        """Take out two neighbours; the places before and after them, which are now neighbours."""
        self.is_paired[left] = self.is_paired[right] = True
        before, after = self._before[left], self._after[right]
        if before >= 0:
            self._after[before] = after
        if after < len(self.stamps):
            self._before[after] = before
        return before, after


def nearest(
    stamps: Float64[np.ndarray, " N"], references: Float64[np.ndarray, " M"], max_difference: float = MAX_DIFFERENCE
) -> Int64[np.ndarray, " N"]:
    """Position of the reference nearest to each timestamp, -1 if none is closer than `max_difference` seconds.

    One reference may be the nearest of several timestamps; of two at the same distance, the earlier one is taken.

    Args:
        stamps: Seconds, in any order.
        references: Seconds, in any order, all different.
        max_difference: Seconds, exclusive.

    Raises:
        ValueError: If a reference is repeated, or a timestamp is not finite.

    Example:
        >>> nearest(np.array([0.0, 0.096, 0.2]), np.array([0.11, 0.09, 0.5])).tolist()
        [-1, 1, -1]
    """
    _check(np.unique(stamps), references)
    if not len(references):
        return np.full(len(stamps), -1, np.int64)
    order = np.argsort(references)
    ordered = references[order]
    later = np.searchsorted(ordered, stamps).clip(1, max(1, len(ordered) - 1))
    earlier, later = later - 1, later.clip(max=len(ordered) - 1)
    distances = np.abs(ordered[np.stack([earlier, later])] - stamps)
    closest = np.where(distances[0] <= distances[1], earlier, later)
    return np.where(distances.min(0) < max_difference, order[closest], -1)


def _check(*sensors: np.ndarray) -> None:
    for stamps in sensors:
        if not np.isfinite(stamps).all():
            raise ValueError("a timestamp is not finite")
        if len(np.unique(stamps)) < len(stamps):
            raise ValueError("timestamps must differ; one is repeated")
