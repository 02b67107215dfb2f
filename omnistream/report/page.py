"""One self-contained HTML page of a run, and the same numbers as JSON."""

import base64
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, StrictUndefined

from omnistream.plots.png import encode_png
from omnistream.report.rows import MetricRow
from omnistream.report.tables import Table

COLUMNS = ("value", "baseline", "ratio", "required", "result")
PHONE_WIDTH = 500
"""Pixels; wider plots are scrolled on a narrow screen, where they would be too small to read."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of the page; `page.html` renders each kind."""

    kind: Literal["info", "rows", "table", "plot", "text", "heading", "collapsed"]
    title: str = ""
    text: str = ""
    paragraphs: tuple[str, ...] = ()
    info: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    rows: tuple["Cells", ...] = ()
    cells: tuple[tuple[str, ...], ...] = ()
    """Rows of a table of text."""
    judged: int = 0
    """Rows with a required bound."""
    passed: int = 0
    width: int = 0
    height: int = 0
    data: str = ""
    """A PNG file in base64."""

    @property
    def wide(self) -> bool:
        """Whether the plot is scrolled on a narrow screen."""
        return self.width > PHONE_WIDTH


@dataclass(frozen=True)
class Cells:
    """A row of a table of results, as text."""

    name: str
    note: str
    value: str
    baseline: str
    baseline_name: str
    ratio: str
    required: str
    result: str

    @classmethod
    def of(cls, row: MetricRow) -> "Cells":
        """The cells of a row; empty if a value is missing."""
        return cls(
            name=row.name,
            note=row.note,
            value=format_number(row.value, row.unit),
            baseline="" if row.baseline is None else format_number(row.baseline, row.unit),
            baseline_name=row.baseline_name,
            ratio="" if row.ratio is None else format_number(row.ratio),
            required=row.bound,
            result=row.verdict if row.bound else "",
        )


class ReportPage:
    """Collects sections in the order they are added and writes them as one HTML file that needs nothing else.

    All text is escaped; plots are embedded as PNG. A JSON file next to the page holds the numbers of its tables.

    Args:
        title: Heading of the page.
        subtitle: One line under the heading; the time of writing where empty.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self.rows: list[MetricRow] = []
        self.info: dict[str, str] = {}
        self.tables: list[Table] = []
        self._sections: list[Section] = []

    def _add(self, section: Section) -> "ReportPage":
        self._sections.append(section)
        return self

    def add_info(self, info: Mapping[str, object], title: str = "Run") -> "ReportPage":
        """A list of names and values: variant, parameters, steps, machine, versions, command."""
        values = {name: str(value) for name, value in info.items()}
        self.info |= values
        return self._add(Section(kind="info", title=title, info=values))

    def add_rows(self, rows: Iterable[MetricRow], title: str = "Results") -> "ReportPage":
        """A table of results with baseline, ratio, required bound and verdict; empty columns are omitted."""
        rows = list(rows)
        self.rows += rows
        cells = tuple(Cells.of(row) for row in rows)
        return self._add(
            Section(
                kind="rows",
                title=title,
                columns=tuple(name for name in COLUMNS if any(getattr(row, name) for row in cells)),
                rows=cells,
                judged=sum(row.passed is not None for row in rows),
                passed=sum(bool(row.passed) for row in rows),
            )
        )

    def add_table(self, table: Table) -> "ReportPage":
        """A table of text with its note."""
        self.tables.append(table)
        return self._add(
            Section(kind="table", title=table.title, text=table.note, columns=table.columns, cells=table.rows)
        )

    def add_plot(self, title: str, image: UInt8[np.ndarray, "H W 3"] | bytes, caption: str = "") -> "ReportPage":
        """A plot with its caption.

        Args:
            title: Heading above the plot, and its alternative text.
            image: Pixels, or the content of a PNG file.
            caption: What it shows.

        Raises:
            ValueError: If bytes are given that are not PNG.
        """
        png = image if isinstance(image, bytes) else encode_png(image)
        if not png.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError(f"plot {title!r}: expected pixels or a PNG file, got other bytes")
        width, height = struct.unpack(">II", png[16:24])  # of the header chunk, which comes first in every PNG
        data = base64.b64encode(png).decode()
        return self._add(Section(kind="plot", title=title, text=caption, width=width, height=height, data=data))

    def add_text(self, text: str, title: str = "") -> "ReportPage":
        """Paragraphs of plain text, separated by empty lines."""
        paragraphs = tuple(part.strip() for part in text.split("\n\n") if part.strip())
        return self._add(Section(kind="text", title=title, paragraphs=paragraphs))

    def add_heading(self, title: str) -> "ReportPage":
        """A heading over the plots that follow."""
        return self._add(Section(kind="heading", title=title))

    def add_collapsed(self, title: str, text: str) -> "ReportPage":
        """Preformatted text that opens on a click, such as the configuration."""
        return self._add(Section(kind="collapsed", title=title, text=text))

    def html(self) -> str:
        """The whole page."""
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string((files("omnistream.report") / "page.html").read_text(encoding="utf-8"))
        subtitle = self.subtitle or f"written {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
        return template.render(title=self.title, subtitle=subtitle, sections=self._sections)

    def to_json(self) -> dict[str, object]:
        """The numbers of the page as plain values."""
        numbers: dict[str, object] = {
            "title": self.title,
            "info": self.info,
            "results": [row.to_json() for row in self.rows],
        }
        if self.tables:
            numbers["tables"] = [table.to_json() for table in self.tables]
        return numbers

    def write(self, path: Path | str) -> Path:
        """Write the page, and its numbers to the same path with the ending `.json`; creates the folder if needed.

        Raises:
            ValueError: If the path does not end in `.html`.
        """
        path = Path(path)
        if path.suffix != ".html":
            raise ValueError(f"report page: expected a path ending in .html, got {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.html(), encoding="utf-8")
        numbers = json.dumps(self.to_json(), indent=2, allow_nan=False)
        path.with_suffix(".json").write_text(numbers + "\n", encoding="utf-8")
        return path


def format_number(number: float, unit: str = "") -> str:
    """Four significant digits, thousands grouped; the unit behind a narrow space, "%" for shares in [0, 1]."""
    if unit == "%":
        return f"{100 * number:.1f} %"
    text = f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:.4g}"
    return f"{text} {unit}" if unit else text
