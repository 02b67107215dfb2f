"""Plots of the worst and best sequences of a reconstruction evaluation: what lies in their folder, and on a page."""

import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from omnistream.report.examples import read_texts
from omnistream.report.page import ReportPage

SUMMARY = "sequence.json"
"""Describes the sequence whose plots are in the same folder."""
PLOTS = ("depth.png", "path.png", "errors.png")
"""In the order of the page."""
FILES = ("points.ply", "depth.mp4")
"""Named on the page, which cannot show them."""


@dataclass(frozen=True)
class DrawnSequence:
    """A sequence whose plots are in a folder."""

    name: str
    folder: str
    """Name of the folder."""
    headline: str
    """Its name and errors in words."""
    error: float
    """By which sequences are ordered; infinite if it is not known, which counts as the worst."""

    def write(self, folder: Path) -> None:
        """Write the description into the folder of the plots."""
        error = self.error if math.isfinite(self.error) else None  # JSON has no infinity
        (folder / SUMMARY).write_text(json.dumps(asdict(self) | {"error": error}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "DrawnSequence":
        """The sequence that a file describes."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(**content | {"error": math.inf if content["error"] is None else content["error"]})


def worst_and_best(sequences: Iterable[DrawnSequence], limit: int) -> list[DrawnSequence]:
    """At most `limit` sequences in turn: the worst, the best, the second worst, and so on; equal ones by name."""
    ordered = sorted(sequences, key=lambda one: (-one.error, one.name))
    chosen: list[DrawnSequence] = []
    while ordered and len(chosen) < limit:
        chosen.append(ordered.pop(0 if len(chosen) % 2 == 0 else -1))
    return chosen


def remove_sequences(folder: Path) -> None:
    """Remove the folders of sequences from a folder; others stay."""
    for path in folder.glob(f"*/{SUMMARY}"):
        shutil.rmtree(path.parent)


def find_sequences(folder: Path) -> list[DrawnSequence]:
    """The sequences in a folder, the worst and best ones first."""
    found = [DrawnSequence.read(path) for path in folder.glob(f"*/{SUMMARY}")]
    return worst_and_best(found, len(found))


def sequence_plots(folder: Path, one: DrawnSequence) -> list[Path]:
    """The plots of a sequence, in the order of the page."""
    return [path for name in PLOTS if (path := folder / one.folder / name).is_file()]


def describe(one: DrawnSequence, place: int, count: int) -> str:
    """Heading of a sequence that is the `place`-th (from 0) of `count` drawn ones: "Worst: market_2: ..."."""
    if count == 1:
        return one.headline
    rank, kind = place // 2 + 1, "worst" if place % 2 == 0 else "best"
    return f"{kind.capitalize() if rank == 1 else f'{rank}. {kind}'}: {one.headline}"


def add_reconstructions(page: ReportPage, folder: Path, title: str) -> None:
    """The plots that `ReconstructionPlots` wrote into a folder, under a heading; nothing if there is none.

    Args:
        page: Gets the plots.
        folder: `reconstruction` of a test.
        title: Of the evaluation.
    """
    sequences = find_sequences(folder)
    for place, one in enumerate(sequences):
        files = [str(path.resolve()) for name in FILES if (path := folder / one.folder / name).is_file()]
        text = f"Point cloud and video: {', '.join(files)}" if files else ""
        page.add_heading(f"{title}: {describe(one, place, len(sequences))}")
        if text:
            page.add_text(text)
        for path in sequence_plots(folder, one):
            name, caption = read_texts(path)
            page.add_plot(name, path.read_bytes(), caption)


def reconstruction_images(folder: Path, title: str) -> list[tuple[str, list[Path]]]:
    """The same plots under their headings, for a report that links to them; nothing if there is none."""
    sequences = find_sequences(folder)
    return [
        (f"{title}: {describe(one, place, len(sequences))}", sequence_plots(folder, one))
        for place, one in enumerate(sequences)
    ]
