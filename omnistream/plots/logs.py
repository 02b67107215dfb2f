"""The scalars of a run, from its log files."""

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Series:
    """One logged number over the steps of a run."""

    steps: tuple[int, ...]
    """Ascending, without repetition."""
    values: tuple[float, ...]

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[int, float]]) -> "Series":
        """Sorted by step; of a step that was logged twice (a resumed run) the later entry counts."""
        ordered = sorted(dict(pairs).items())
        return cls(tuple(step for step, _ in ordered), tuple(value for _, value in ordered))


def read_scalars(path: Path | str) -> dict[str, Series]:
    """Every scalar of a run by its name.

    Args:
        path: A folder with TensorBoard event files or a `metrics.csv` (Lightning's CSVLogger), or a `.csv` or
            `.jsonl` file whose rows have a column `step`. Several kinds in one folder are merged.

    Raises:
        FileNotFoundError: If there is no such folder or file, or no log in it.
        ValueError: If a file has another ending, or rows without a step.
    """
    path = Path(path)
    if path.is_dir():
        sources = sorted(path.glob("*.csv")) + sorted(path.glob("*.jsonl"))
        pairs = _merge(_read_table(source) for source in sources)
        if any(path.glob("events.out.tfevents.*")):
            pairs = _merge([pairs, _read_events(path)])
        elif not sources:
            raise FileNotFoundError(f"no TensorBoard event file, .csv or .jsonl in {path}")
    elif path.is_file():
        pairs = _read_table(path)
    else:
        raise FileNotFoundError(f"no log at {path}")
    return {name: Series.from_pairs(values) for name, values in sorted(pairs.items())}


def _merge(parts: Iterable[Mapping[str, list[tuple[int, float]]]]) -> dict[str, list[tuple[int, float]]]:
    merged: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for part in parts:
        for name, pairs in part.items():
            merged[name] += pairs
    return merged


def _read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow to import

    # 0 keeps everything; of images and the rest only the newest is kept, because they are not read here
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1, "tensors": 1, "histograms": 1})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _read_table(path: Path) -> dict[str, list[tuple[int, float]]]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            rows: list[dict[str, object]] = list(csv.DictReader(file))
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    else:
        raise ValueError(f"expected a .csv or .jsonl file, got {path}")
    pairs: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for number, row in enumerate(rows, start=1):
        if row.get("step") in (None, ""):
            raise ValueError(f"{path}: row {number} has no value for 'step'")
        for name, value in row.items():
            if name not in ("step", "epoch") and value not in (None, ""):
                pairs[name].append((int(float(str(row["step"]))), float(str(value))))
    return pairs
