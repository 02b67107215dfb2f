"""The classes on which a model does worst and best, as a table."""

import math

from omnistream.evaluation.results import EvaluationResult
from omnistream.report.tables import Table

MOST = 10
"""Classes of each kind."""


def class_table(result: EvaluationResult, model: str) -> Table | None:
    """The classes with the lowest and the highest scores beside each other; None for a result without classes.

    Args:
        result: Of an evaluation.
        model: Its name, for the title.
    """
    scores = result.per_class
    if scores is None:
        return None
    known = [row for row in zip(scores.values, scores.names, scores.counts, strict=True) if not math.isnan(row[0])]
    rows = [(name, f"{100 * value:.1f} %", f"{count:,}") for value, name, count in sorted(known)]
    half = (len(rows) + 1) // 2  # of few classes, each is shown once
    lowest, highest = rows[:half][:MOST], rows[half:][::-1][:MOST]
    highest += [("", "", "")] * (len(lowest) - len(highest))
    absent = len(scores.values) - len(known)
    return Table(
        title=f"Classes of {result.protocol}, {model}",
        columns=(f"lowest {scores.metric}", "value", scores.unit, f"highest {scores.metric}", "value", scores.unit),
        rows=tuple(low + high for low, high in zip(lowest, highest, strict=True)),
        note=f"Of {len(scores.values)} classes, {absent} do not occur." if absent else f"Of {len(rows)} classes.",
    )
