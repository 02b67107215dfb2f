"""Published numbers, read from `published.yaml`: of which model, on which benchmark, from which source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import yaml

from omnistream.evaluation.results import MetricValue

_DECIMALS = {"%": 1, "m": 3, "": 3, "°": 3}


@dataclass(frozen=True)
class Benchmark:
    """One metric of one protocol, as results and published numbers name it."""

    title: str
    protocol: str
    """That of `results.json`."""
    metric: str
    """That of `results.json`."""
    unit: str
    """`%` for shares, which `results.json` holds in [0, 1]."""
    higher_is_better: bool
    num_samples: int | None = None
    """Size of the test set; None where it is not known."""
    samples: str = "samples"
    """What they are."""

    @property
    def heading(self) -> str:
        """Title with unit and direction."""
        unit = f" [{self.unit}]" if self.unit else ""
        return f"{self.title}{unit} {'↑' if self.higher_is_better else '↓'}"

    def show(self, value: float) -> str:
        """A published number, with as many decimals as tables have."""
        return f"{value:.{_DECIMALS[self.unit]}f}"

    def show_result(self, value: MetricValue, num_samples: int, skipped: int) -> str:
        """A result in the unit of published numbers, with its standard error; marked if not of the whole test set."""
        scale = 100 if self.unit == "%" else 1
        error = "" if value.stderr is None else f" ± {self.show(scale * value.stderr)}"
        whole = self.num_samples or num_samples + skipped
        mark = f" ({num_samples} of {whole} {self.samples})" if num_samples != whole else ""
        return self.show(scale * value.value) + error + mark


@dataclass(frozen=True)
class Source:
    """Where numbers were published."""

    title: str
    url: str


@dataclass(frozen=True)
class PublishedTable:
    """A published table: models as columns, benchmarks as rows."""

    title: str
    source: str
    note: str
    columns: Mapping[str, Mapping[str, float]]
    """Values by the benchmark's key, by the model's name."""
    rows: list[str] = field(default_factory=list)
    """Keys of the benchmarks, also of those without a published value; by default those of the columns, in the order in
    which they are first named."""

    def __post_init__(self) -> None:
        named = list(dict.fromkeys(key for values in self.columns.values() for key in values))
        if self.rows and (absent := [key for key in named if key not in self.rows]):
            raise ValueError(f"published numbers: the rows of {self.title!r} lack {', '.join(absent)}")
        object.__setattr__(self, "rows", self.rows or named)


@dataclass(frozen=True)
class PublishedNumber:
    """One number of one model."""

    benchmark: str
    model: str
    value: float
    source: str
    same_protocol: str
    """`yes`, `no` or `unknown`."""
    note: str


@dataclass(frozen=True)
class Published:
    """All published numbers."""

    sources: Mapping[str, Source]
    benchmarks: Mapping[str, Benchmark]
    tables: list[PublishedTable]
    numbers: list[PublishedNumber]


def load_published() -> Published:
    """The numbers of this package."""
    return parse_published(yaml.safe_load((files("omnistream.report") / "published.yaml").read_text(encoding="utf-8")))


def parse_published(content: Mapping[str, Any]) -> Published:
    """The content of a file of published numbers.

    Raises:
        ValueError: If a number names a benchmark or source that is not described, or its protocol is not known to be
            the same or not.
    """
    published = Published(
        sources={key: Source(**fields) for key, fields in content["sources"].items()},
        benchmarks={key: Benchmark(**fields) for key, fields in content["benchmarks"].items()},
        tables=[PublishedTable(**fields) for fields in content["tables"]],
        numbers=[PublishedNumber(**fields) for fields in content["numbers"]],
    )
    used = [(key, table.source, "unknown") for table in published.tables for key in table.rows]
    used += [(number.benchmark, number.source, number.same_protocol) for number in published.numbers]
    for benchmark, source, same in used:
        if benchmark not in published.benchmarks or source not in published.sources:
            raise ValueError(f"published numbers: benchmark {benchmark!r} or source {source!r} is not described")
        if same not in ("yes", "no", "unknown"):
            raise ValueError(f"published numbers: same_protocol must be yes, no or unknown, got {same!r}")
    return published
