"""Results of evaluations beside published numbers, as tables."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from omnistream.errors import one_line
from omnistream.evaluation.results import EvaluationResult, MetricValue
from omnistream.paths import expand_path
from omnistream.report.published import Benchmark, Published
from omnistream.report.tables import Table
from omnistream.report.variants import variants

logger = logging.getLogger(__name__)

MISSING = "missing"
_CHOSEN = {"setting": "index", "step": "step"}
"""What a selection may have chosen, and its key there."""
_Newest: TypeAlias = dict[tuple[str, str, str], tuple[MetricValue, int, int]]


@dataclass(frozen=True)
class FoundResult:
    """A `results.json` and where it lies."""

    path: Path
    result: EvaluationResult
    variant: str = ""
    """Settings in which it differs from other results of the same weights; see `omnistream.report.variants`."""

    @property
    def weights(self) -> str:
        """Fingerprint of the weights; of a model without weights its class and name."""
        known = self.result.model
        return str(known.get("weights_sha256") or f"{known.get('class')} {known.get('name')}")

    @property
    def model(self) -> str:
        """By which results belong together: the weights, and the settings in which results of them differ."""
        return f"{self.weights} {self.variant}".rstrip()

    @property
    def date(self) -> str:
        """When it was written."""
        return str(self.result.environment.get("date", ""))


def find_results(folders: Iterable[Path | str]) -> list[FoundResult]:
    """Every `results.json` at any depth of some folders, oldest first.

    Files that cannot be read are named in a warning.

    Raises:
        FileNotFoundError: If a folder does not exist, or there is no result that can be read.
    """
    roots = [expand_path(folder) for folder in folders]
    if absent := [root for root in roots if not root.exists()]:
        raise FileNotFoundError(f"no such folder: {absent[0]}")
    paths = sorted({path.resolve() for root in roots for path in _files(root)})
    found = []
    for path in paths:
        try:
            found.append(FoundResult(path, EvaluationResult.read(path)))
        except (ValueError, TypeError, KeyError, OSError) as error:
            logger.warning("not read: %s (%s)", path, one_line(error, 200))
    if not found:
        named = ", ".join(str(root) for root in roots)
        unread = f"; {len(paths)} cannot be read" if paths else ""
        raise FileNotFoundError(
            f"no results.json below {named}{unread}; `omnistream test` writes one if its configuration has the "
            "callback omnistream.callbacks.ResultsWriter"
        )
    found.sort(key=lambda one: (one.date, str(one.path)))
    differing = variants([(one.weights, one.result) for one in found])
    return [replace(one, variant=variant) for one, variant in zip(found, differing, strict=True)]


def _files(root: Path) -> Iterable[Path]:
    return [root] if root.is_file() else root.rglob("results.json")


def model_names(results: Sequence[FoundResult]) -> dict[str, str]:
    """A short name for each model, by `FoundResult.model`, in the order of the results."""
    names: dict[str, str] = {}
    for one in results:
        if one.model not in names:
            known = one.result.model
            name = str(known.get("name") or known.get("class") or "model")
            name = f"{name} ({one.weights[:6]})" if known.get("weights_sha256") else name
            names[one.model] = f"{name}: {one.variant}" if one.variant else name
    return names


def compare(results: Sequence[FoundResult], published: Published) -> list[Table]:
    """Tables for the page and the terminal: each published table with the results beside it, and all results."""
    names, newest = model_names(results), _newest(results)
    tables = [_beside(table, published, names, newest) for table in published.tables]
    return [*tables, _numbers(published, names, newest), _all_results(results, names), _sources(published)]


def _newest(results: Sequence[FoundResult]) -> _Newest:
    """Value, number of samples and of those left out by model, protocol and metric; of several the newest."""
    return {
        (one.model, one.result.protocol, metric): (value, one.result.num_samples, one.result.skipped)
        for one in results
        for metric, value in one.result.metrics.items()
    }


def _yours(benchmark: Benchmark, names: dict[str, str], newest: _Newest) -> list[str]:
    found = [newest.get((model, benchmark.protocol, benchmark.metric)) for model in names]
    return [MISSING if value is None else benchmark.show_result(*value) for value in found]


def _beside(table: Any, published: Published, names: dict[str, str], newest: Any) -> Table:
    rows = []
    for key in table.rows:
        benchmark = published.benchmarks[key]
        theirs = [benchmark.show(values[key]) if key in values else "-" for values in table.columns.values()]
        rows.append((benchmark.heading, *_yours(benchmark, names, newest), *theirs))
    columns = ("benchmark", *(f"yours: {name}" for name in names.values()), *table.columns)
    note = f"{table.note} Source: {published.sources[table.source].title}."
    return Table(title=table.title, columns=columns, rows=tuple(rows), note=note)


def _numbers(published: Published, names: dict[str, str], newest: Any) -> Table:
    rows = []
    for number in published.numbers:
        benchmark = published.benchmarks[number.benchmark]
        yours = _yours(benchmark, names, newest)
        source = published.sources[number.source].title
        shown = benchmark.show(number.value)
        rows.append((benchmark.heading, *yours, shown, number.model, number.same_protocol, number.note, source))
    own = tuple(f"yours: {name}" for name in names.values())
    return Table(
        title="Other published numbers",
        columns=("benchmark", *own, "published", "model", "same protocol", "note", "source"),
        rows=tuple(rows),
        note="Compare only where the protocol is the same.",
    )


def _all_results(results: Sequence[FoundResult], names: dict[str, str]) -> Table:
    rows = []
    for one in results:
        on = _choice(one.result.selection)
        counts = (str(one.result.num_samples), str(one.result.skipped))
        for metric, value in one.result.metrics.items():
            error = "" if value.stderr is None else f" ± {value.stderr:.2g}"
            direction = {True: " ↑", False: " ↓", None: ""}[value.higher_is_better]
            shown = f"{value.value:.4g}{error}"
            rows.append((one.result.protocol, metric + direction, shown, names[one.model], *counts, on, str(one.path)))
    return Table(
        title="All results",
        columns=("protocol", "metric", "value", "model", "samples", "skipped", "chosen on", "file"),
        rows=tuple(rows),
        note=(
            "± is the standard error over the samples. Of several results of one model and protocol the tables above "
            "show the newest; where streaming geometry was evaluated with other settings, each has its own column."
        ),
    )


def _choice(selection: Mapping[str, Any] | None) -> str:
    """What was chosen, a setting of a sweep or a step of training, and on which data."""
    if not selection:
        return "-"
    chosen = next((f"{kind} {selection[key]}" for kind, key in _CHOSEN.items() if key in selection), "")
    return ", ".join(filter(None, (str(selection["on"]), chosen)))


def _sources(published: Published) -> Table:
    rows = tuple((source.title, source.url) for source in published.sources.values())
    return Table(title="Sources", columns=("source", "address"), rows=rows)
