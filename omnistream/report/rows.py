"""Rows of a table of results: a metric, its baseline and the bounds it has to meet."""

import math
from dataclasses import asdict, dataclass
from typing import Literal, Protocol, runtime_checkable


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One row of a table of results; the bounds apply to `value` or to its ratio to a baseline."""

    name: str
    value: float
    unit: str = ""
    baseline: float | None = None
    baseline_name: str = ""
    """What the baseline is, for example "best constant depth"."""
    at_most: float | None = None
    """Passes if the judged number is at most this."""
    at_least: float | None = None
    """Passes if the judged number is at least this."""
    judged: Literal["value", "ratio"] = "value"
    """Which number the bounds apply to."""
    note: str = ""

    def __post_init__(self) -> None:
        """Check that a bound on the ratio has a baseline."""
        if self.judged == "ratio" and self.baseline is None:
            raise ValueError(f"row {self.name!r}: judged by its ratio, so it needs a baseline; got None")

    @property
    def ratio(self) -> float | None:
        """`value / baseline`; None without a baseline, infinite or NaN if the baseline is 0."""
        if self.baseline is None:
            return None
        if self.baseline == 0:
            return math.nan if self.value == 0 else math.copysign(math.inf, self.value)
        return self.value / self.baseline

    @property
    def passed(self) -> bool | None:
        """Whether all bounds hold; None if there is no bound. NaN never passes."""
        if self.at_most is None and self.at_least is None:
            return None
        number = self.ratio if self.judged == "ratio" else self.value
        assert number is not None  # __post_init__
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return low <= number <= high

    @property
    def verdict(self) -> str:
        """`passed` in plain words."""
        return {True: "pass", False: "fail", None: "no bound"}[self.passed]

    @property
    def bound(self) -> str:
        """The bounds in plain words, for example "ratio at most 0.6"; empty if there is none."""
        limits = [("at most", self.at_most), ("at least", self.at_least)]
        parts = [f"{word} {limit:.4g}" for word, limit in limits if limit is not None]
        return f"{self.judged} {' and '.join(parts)}" if parts else ""

    def to_json(self) -> dict[str, object]:
        """The row as plain values; numbers that JSON lacks (NaN, infinities) become strings."""
        values = asdict(self) | {"ratio": self.ratio, "bound": self.bound, "verdict": self.verdict}
        return {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }


@runtime_checkable
class HasMetricRows(Protocol):
    """A module or callback with results for the final report, typically beside a baseline that it evaluated itself."""

    def metric_rows(self) -> list[MetricRow]:
        """Rows of the table of results; called on rank zero after training."""
        ...
